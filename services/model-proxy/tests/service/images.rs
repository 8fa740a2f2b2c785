//! Pictures through the served RPC: of both dialects, as URLs and as data,
//! unfinished ones, large ones, and those that nobody waits for.

use crate::proxy::Proxy;
use axum::body::Bytes;
use mesh::error;
use providers::{Entry, Reply, openai, replicate};
use skein_proto::model::v1::{
    GenerateImageRequest, GenerateImageResponse, Image, ImageDelivery, ImageProgress,
    ImagesFinished, Started, generate_image_response::Event, image::Source,
};
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// Ten times what is promised.
const SOON: Duration = Duration::from_secs(1);
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

pub(crate) fn ask(model: &str) -> GenerateImageRequest {
    GenerateImageRequest {
        call_id: "c1".into(),
        model: model.into(),
        prompt: "three geese".into(),
        size: "64x64".into(),
        ..GenerateImageRequest::default()
    }
}

async fn draw(
    proxy: &Proxy,
    request: GenerateImageRequest,
) -> Result<Streaming<GenerateImageResponse>, Status> {
    Ok(proxy.client().generate_image(Proxy::call().request(request)).await?.into_inner())
}

#[derive(Debug, Default)]
pub(crate) struct Drawn {
    started: Started,
    progress: Vec<ImageProgress>,
    pub(crate) images: Vec<Image>,
    revised: Vec<String>,
    /// The longest message that held a picture.
    longest: usize,
    finished: ImagesFinished,
}

/// Reads a stream to its end, joins the pieces, and checks that it ends once.
pub(crate) async fn collect(proxy: &Proxy, request: GenerateImageRequest) -> Result<Drawn, Status> {
    let mut stream = draw(proxy, request).await?;
    let (mut drawn, mut finished, mut open) = (Drawn::default(), None, None);
    while let Some(answer) = stream.message().await? {
        assert!(finished.is_none(), "something after the last event");
        match answer.event.unwrap() {
            Event::Started(event) => drawn.started = event,
            Event::Progress(event) => drawn.progress.push(event),
            Event::Finished(event) => finished = Some(event),
            Event::Image(piece) => {
                assert_eq!(piece.index as usize, drawn.images.len());
                let image = piece.image.unwrap();
                drawn.longest = drawn.longest.max(bytes(&image).map_or(0, |data| data.len()));
                let joined = match (open.take(), bytes(&image)) {
                    (Some(start), Some(end)) => {
                        let data = Source::Data([start, end].concat().into());
                        Image { source: Some(data), ..image }
                    }
                    _ => image,
                };
                if piece.more {
                    open = bytes(&joined);
                } else {
                    drawn.images.push(joined);
                    drawn.revised.push(piece.revised_prompt);
                }
            }
        }
    }
    drawn.finished = finished.unwrap();
    Ok(drawn)
}

fn bytes(image: &Image) -> Option<Bytes> {
    match &image.source {
        Some(Source::Data(data)) => Some(data.clone()),
        _ => None,
    }
}

pub(crate) fn url(image: &Image) -> Option<&str> {
    match &image.source {
        Some(Source::Url(url)) => Some(url),
        _ => None,
    }
}

pub(crate) async fn with_openai(more: &[(&str, &str)]) -> (openai::Fake, Proxy) {
    let fake = openai::start().await.unwrap();
    let mut settings =
        vec![("OPENAI_BASE_URL", fake.url.as_str()), ("OPENAI_API_KEY", "sk-test-marker")];
    settings.extend_from_slice(more);
    let proxy = Proxy::start(&settings).await;
    (fake, proxy)
}

async fn with_replicate() -> (replicate::Fake, Proxy) {
    let fake = replicate::start().await.unwrap();
    let settings =
        [("REPLICATE_BASE_URL", fake.url.as_str()), ("REPLICATE_API_TOKEN", "r8_test-marker")];
    let proxy = Proxy::start(&settings).await;
    (fake, proxy)
}

#[tokio::test]
async fn openais_pictures_come_with_their_tokens_and_price() {
    let (fake, proxy) = with_openai(&[]).await;
    let mut request = ask("openai/gpt-image-2");
    (request.n, request.quality) = (2, "low".into());
    request.extra_json = r#"{"background":"opaque","prompt":"mine"}"#.into();
    request.delivery = ImageDelivery::Data.into();
    let drawn = collect(&proxy, request).await.unwrap();
    assert_eq!((drawn.started.provider.as_str(), drawn.started.call_id.as_str()), ("openai", "c1"));
    assert_eq!(drawn.images.len(), 2);
    for image in &drawn.images {
        assert!(bytes(image).unwrap().starts_with(PNG) && image.media_type == "image/png");
    }
    let usage = drawn.finished.usage.unwrap();
    assert_eq!((usage.input_uncached, usage.output, usage.output_image), (2, 2112, 2112));
    assert_eq!((usage.images, usage.estimated), (2, false));
    // $5 for a million tokens in, $30 for a million tokens of pictures.
    assert_eq!(usage.cost.unwrap().nano_usd, Some(2 * 5_000 + 2112 * 30_000));
    assert!(drawn.finished.extra_json.contains("output_format"), "{}", drawn.finished.extra_json);
    let sent = &fake.log()[0].request;
    assert_eq!((&sent["prompt"], &sent["n"]), (&"three geese".into(), &2.into()));
    assert_eq!((&sent["background"], &sent["quality"]), (&"opaque".into(), &"low".into()));
    assert!(sent.get("response_format").is_none(), "this family refuses it");
}

#[tokio::test]
async fn older_models_give_what_was_asked_for() {
    let (fake, proxy) = with_openai(&[]).await;
    for (delivery, format) in [
        (ImageDelivery::Unspecified, None),
        (ImageDelivery::Url, Some("url")),
        (ImageDelivery::Data, Some("b64_json")),
    ] {
        fake.clear_log();
        let request = GenerateImageRequest { delivery: delivery.into(), ..ask("openai/dall-e-3") };
        let drawn = collect(&proxy, request).await.unwrap();
        assert_eq!(fake.log()[0].request["response_format"].as_str(), format);
        assert_eq!(bytes(&drawn.images[0]).is_some(), delivery == ImageDelivery::Data);
        assert_eq!(drawn.revised, ["In detail: three geese"]);
        let usage = drawn.finished.usage.unwrap();
        assert_eq!((usage.images, usage.cost.unwrap().nano_usd), (1, None), "unknown is not zero");
    }
}

#[tokio::test]
async fn unfinished_pictures_are_shown_where_they_are_wanted() {
    let (fake, proxy) = with_openai(&[]).await;
    let extra_json = r#"{"partial_images":2}"#.into();
    let drawn = collect(&proxy, GenerateImageRequest { extra_json, ..ask("openai/gpt-image-2") });
    let drawn = drawn.await.unwrap();
    let done: Vec<_> = drawn.progress.iter().map(|progress| progress.done).collect();
    assert_eq!(done, [1.0 / 3.0, 2.0 / 3.0]);
    assert!(bytes(drawn.progress[0].preview.as_ref().unwrap()).unwrap().starts_with(PNG));
    assert_eq!((drawn.images.len(), drawn.finished.usage.unwrap().output_image), (1, 1056));
    assert_eq!(fake.log()[0].request["stream"], true);
}

#[tokio::test]
async fn each_failure_of_a_picture_has_its_reason() {
    let (fake, proxy) = with_openai(&[("SKEIN_PROVIDER__TRIES", "1")]).await;
    for (model, code, reason) in [
        ("error-400", Code::InvalidArgument, "PROVIDER_BAD_REQUEST"),
        ("error-429", Code::ResourceExhausted, "PROVIDER_RATE_LIMITED"),
        ("error-500", Code::Unavailable, "PROVIDER_UNAVAILABLE"),
        ("html-502", Code::Unavailable, "PROVIDER_UNAVAILABLE"),
        ("reset", Code::Unavailable, "CONNECTION_RESET"),
    ] {
        let status = collect(&proxy, ask(&format!("openai/{model}"))).await.unwrap_err();
        let told = (status.code(), error::reason(&status));
        assert_eq!(told, (code, Some(reason.to_owned())), "{model}");
    }
    fake.clear_log();
    for (change, field) in [
        (GenerateImageRequest { prompt: " ".into(), ..ask("openai/x") }, "prompt"),
        (GenerateImageRequest { n: 11, ..ask("openai/x") }, "n"),
        (GenerateImageRequest { extra_json: "[]".into(), ..ask("openai/x") }, "extra_json"),
    ] {
        let status = collect(&proxy, change).await.unwrap_err();
        assert_eq!(error::field(&status).as_deref(), Some(field));
    }
    assert!(fake.log().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_picture_that_cannot_be_delivered_is_paid_for_all_the_same() {
    let (fake, proxy) = with_openai(&[]).await;
    let url = "https://elsewhere.example/goose.png"; // none of the provider's hosts
    let usage = serde_json::json!({"input_tokens": 7, "output_tokens": 1056});
    let body = serde_json::json!({"created": 1, "data": [{"url": url}], "usage": usage});
    fake.script("gpt-image-2", [Reply::json(200, &body)]);
    let delivery = ImageDelivery::Data.into();
    let asked = GenerateImageRequest { delivery, ..ask("openai/gpt-image-2") };
    let status = collect(&proxy, asked).await.unwrap_err();
    let told = |name: &str| error::metadata(&status, name).unwrap();
    assert_eq!((told("input_tokens"), told("output_tokens")), ("7".into(), "1056".into()));
    assert_eq!(told("cost_nano_usd"), (7 * 5_000 + 1056 * 30_000).to_string());
}

#[tokio::test]
async fn a_large_picture_comes_in_pieces() {
    let (fake, proxy) = with_openai(&[]).await;
    let mut picture = PNG.to_vec();
    picture.extend((0..3_000_000_u32).map(|at| at.to_le_bytes()[1]));
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &picture);
    let body = serde_json::json!({"created": 1, "data": [{"b64_json": encoded}]});
    fake.script("gpt-image-2", [Reply::json(200, &body)]);
    let drawn = collect(&proxy, ask("openai/gpt-image-2")).await.unwrap();
    assert!(bytes(&drawn.images[0]).unwrap() == picture && drawn.longest == 256 << 10);
}

#[tokio::test]
async fn replicates_pictures_come_as_urls_or_are_fetched() {
    let (fake, proxy) = with_replicate().await;
    let drawn = collect(&proxy, ask("replicate/black-forest-labs/flux-1.1-pro")).await.unwrap();
    assert!(url(&drawn.images[0]).unwrap().starts_with(&fake.url));
    assert_eq!(drawn.started.provider_request_id, fake.predictions()[0]);
    assert_eq!(fake.log()[0].headers["prefer"], "wait=1");
    assert_eq!(count(&fake, "POST", "/predictions"), 1);

    let mut request = ask("replicate/black-forest-labs/flux-schnell");
    (request.n, request.delivery) = (2, ImageDelivery::Data.into());
    let drawn = collect(&proxy, request).await.unwrap();
    assert_eq!(drawn.images.len(), 2);
    for image in &drawn.images {
        assert!(bytes(image).unwrap().starts_with(PNG) && image.media_type == "image/png");
    }
    assert_eq!(drawn.finished.usage.unwrap().images, 2);
    let fetched = fake.log().into_iter().filter(|entry| entry.path.starts_with("/_pictures/"));
    assert!(fetched.into_iter().all(|entry| entry.key.is_none()), "a file needs no token");
    assert_eq!(count(&fake, "POST", "/cancel"), 0);
}

#[tokio::test]
async fn a_slow_picture_is_waited_for_and_says_how_far_it_is() {
    let (fake, proxy) = with_replicate().await;
    // Longer than the second that the create waits.
    let drawn = collect(&proxy, ask("replicate/a/flux/run-2500")).await;
    assert!(drawn.is_err(), "no such name");
    let drawn = collect(&proxy, ask("replicate/flux/run-2500")).await.unwrap();
    assert_eq!(drawn.images.len(), 1);
    assert!(!drawn.progress.is_empty() && drawn.progress[0].done == 0.0);
    assert_eq!(count(&fake, "POST", "/predictions"), 1);
}

#[tokio::test]
async fn a_picture_that_nobody_waits_for_is_called_off() {
    let (fake, proxy) = with_replicate().await;
    let is_canceled = |log: &[Entry]| log.iter().any(|entry| entry.path.ends_with("/cancel"));
    // After the create: the stream or the polls are under way.
    let mut stream = draw(&proxy, ask("replicate/flux/run-60000")).await.unwrap();
    assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Started(_))));
    drop(stream);
    assert!(is_canceled(&fake.log_when(SOON, is_canceled).await));
    // While the create is held for its second: called off when it is answered.
    fake.clear_log();
    let call = Proxy::call().with_timeout(Duration::from_millis(200));
    let asked = proxy.client().generate_image(call.request(ask("replicate/flux/run-60000"))).await;
    assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(is_canceled(&fake.log_when(SOON + SOON, is_canceled).await));

    let (fake, proxy) = with_openai(&[]).await;
    let call = Proxy::call().with_timeout(Duration::from_millis(200));
    let asked = proxy.client().generate_image(call.request(ask("openai/silent"))).await;
    assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
    let log = fake.log_when(SOON, |log| log[0].ended_ms.is_some()).await;
    assert!(log[0].aborted);
}

fn count(fake: &replicate::Fake, method: &str, end: &str) -> usize {
    let is = |entry: &&Entry| entry.method == method && entry.path.ends_with(end);
    fake.log().iter().filter(is).count()
}
