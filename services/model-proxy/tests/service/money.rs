//! What a call used and cost, however it ended, and what is counted of it.

use crate::proxy::{Proxy, ask, collect};
use mesh::{error, telemetry};
use providers::{End, Fake, Reply, openai};
use skein_proto::model::v1::{
    Capability, EmbedInput, EmbedRequest, GenerateRequest, JsonSchema, ListModelsRequest,
    ResponseFormat, embed_input::Input, generate_response::Event, response_format::Format,
};
use std::{io, sync::Mutex, time::Duration};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

/// For what has to happen in the end.
const SOON: Duration = Duration::from_secs(20);

/// A model of this test alone, at a dollar a million tokens in and two out.
async fn start(model: &str, more: &[(&str, &str)]) -> (Fake, Proxy) {
    // Counters that are made before the recorder is there count nothing.
    telemetry::prometheus().unwrap();
    let fake = openai::start().await.unwrap();
    let prices = NamedTempFile::new().unwrap();
    let row = r#"{"input": 1000000000, "output": 2000000000}"#;
    let entry =
        format!(r#"[{{"id": "openai/{model}", "timers": {{"idle": "1s"}}, "prices": [{row}]}}]"#);
    std::fs::write(prices.path(), entry).unwrap();
    let mut settings = vec![
        ("OPENAI_BASE_URL", fake.url.as_str()),
        ("OPENAI_API_KEY", "sk-test-marker"),
        ("SKEIN_PRICES__FILE", prices.path().to_str().unwrap()),
    ];
    settings.extend_from_slice(more);
    let proxy = Proxy::start(&settings).await;
    (fake, proxy)
}

/// The value of the series that has all these labels, if there is one.
fn metric(name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let page = telemetry::prometheus().unwrap().render();
    let is = |line: &&str| {
        line.split_once('{').is_some_and(|(before, _)| before == name)
            && labels.iter().all(|(name, value)| line.contains(&format!("{name}=\"{value}\"")))
    };
    page.lines().find(is).and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

async fn becomes(name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> f64 {
    let begun = Instant::now();
    loop {
        let value = metric(name, labels);
        if let Some(value) = value.filter(|value| wanted(*value)) {
            return value;
        }
        assert!(begun.elapsed() < SOON, "{name} {labels:?} is {value:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_says_what_it_used() {
    let model = "money-breaks";
    let (fake, proxy) = start(model, &[]).await;
    for reply in [
        Reply::usual().cut(2, End::Close),
        Reply::usual().cut(2, End::Reset),
        Reply::usual().stall(2),
        Reply::usual().error_after(2),
    ] {
        fake.script(model, [reply.clone()]);
        let failed = collect(&proxy, ask("openai/money-breaks", "where do geese fly"));
        let failed = failed.await.unwrap_err();
        let told = |name: &str| error::metadata(&failed.status, name);
        let number = |name: &str| told(name).unwrap().parse::<i64>().unwrap();
        assert_eq!(told("call_id").as_deref(), Some("c1"), "{reply:?}");
        assert_eq!(told("estimated").as_deref(), Some("true"));
        let (input, output) = (number("input_tokens"), number("output_tokens"));
        assert!((4..12).contains(&input), "{input} for five words and the format");
        assert!((1..6).contains(&output), "{output} for {:?}", failed.text);
        assert_eq!(number("cost_nano_usd"), input * 1000 + output * 2000);
    }
    let of = [("model", model), ("outcome", "STREAM_CUT")];
    assert!(metric("skein_model_calls_total", &of) >= Some(1.0));
    assert!(
        metric("skein_model_tokens_total", &[("model", model), ("class", "output")]) > Some(3.0)
    );
}

#[tokio::test]
async fn an_error_before_any_answer_used_nothing() {
    let model = "money-refused";
    let (fake, proxy) = start(model, &[]).await;
    fake.script(model, [Reply::status(400)]);
    let status = proxy.generate(ask("openai/money-refused", "hi")).await.unwrap_err();
    assert_eq!(error::metadata(&status, "input_tokens"), None);
    let of = [("model", model), ("outcome", "PROVIDER_BAD_REQUEST")];
    assert_eq!(metric("skein_model_calls_total", &of), Some(1.0));
    assert_eq!(metric("skein_model_in_flight", &[("model", model)]), Some(0.0));
}

#[tokio::test]
async fn a_caller_that_leaves_is_counted_in_each_window() {
    let model = "money-left";
    let (fake, proxy) = start(model, &[]).await;
    let cancelled = [("model", model), ("outcome", "cancelled")];
    let output = [("model", model), ("class", "output")];
    let input = [("model", model), ("class", "input")];

    fake.endless(model, Reply::usual().endless(Duration::from_millis(5)));
    let mut stream = proxy.generate(ask("openai/money-left", "hi")).await.unwrap();
    let mut pieces = 0;
    while pieces < 5 {
        let event = stream.message().await.unwrap().unwrap().event;
        pieces += usize::from(matches!(event, Some(Event::Delta(_))));
    }
    assert_eq!(metric("skein_model_in_flight", &[("model", model)]), Some(1.0));
    drop(stream);
    becomes("skein_model_calls_total", &cancelled, |calls| calls == 1.0).await;
    let said = becomes("skein_model_tokens_total", &output, |tokens| tokens >= 3.0).await;
    let asked = becomes("skein_model_tokens_total", &input, |tokens| tokens > 0.0).await;
    let all = [("model", model)];
    let cost = becomes("skein_model_cost_nano_usd_total", &all, |cost| cost > 0.0).await;
    assert_eq!(cost, asked * 1000.0 + said * 2000.0);

    fake.endless(model, Reply::silence());
    let (before, client) = (fake.log().len(), proxy.client());
    let early = tokio::spawn(async move {
        let mut client = client;
        client.generate(Proxy::call().request(ask("openai/money-left", "hi"))).await
    });
    fake.log_when(SOON, |log| log.len() > before).await;
    early.abort();
    becomes("skein_model_calls_total", &cancelled, |calls| calls == 2.0).await;
    let asked = becomes("skein_model_tokens_total", &input, |tokens| tokens > asked).await;

    let (before, client) = (fake.log().len(), proxy.client());
    let unary = tokio::spawn(async move {
        let inputs = vec![EmbedInput { input: Some(Input::Text("hi".to_owned())) }];
        let request =
            EmbedRequest { model: "openai/money-left".into(), inputs, ..Default::default() };
        let mut client = client;
        client.embed(Proxy::call().request(request)).await
    });
    fake.log_when(SOON, |log| log.len() > before).await;
    unary.abort();
    becomes("skein_model_calls_total", &cancelled, |calls| calls == 3.0).await;
    becomes("skein_model_tokens_total", &input, |tokens| tokens > asked).await;
    becomes("skein_model_in_flight", &[("model", model)], |calls| calls == 0.0).await;
}

#[tokio::test]
async fn what_is_odd_about_an_answer_is_counted() {
    let model = "money-odd";
    let (fake, proxy) = start(model, &[]).await;
    let schema = JsonSchema {
        name: "goose".into(),
        schema_json: r#"{"type":"object","required":["legs"]}"#.into(),
        ..JsonSchema::default()
    };
    let format = |format: Format| Some(ResponseFormat { format: Some(format) });
    let (json, shaped) = (format(Format::JsonObject(true)), format(Format::JsonSchema(schema)));
    for (reply, response_format, kind) in [
        (Reply::text("Honk!"), json.clone(), Some("invalid_json")),
        (Reply::text(r#"{"wings":2}"#), shaped.clone(), Some("schema_mismatch")),
        (Reply::text(r#"{"legs":2}"#), shaped, None),
        (Reply::text(""), None, Some("empty")),
        (Reply::text("Honk").finish("length"), None, Some("truncated")),
        (Reply::text("").finish("content_filter"), None, Some("content_filter")),
        (Reply::usual().refusal("No."), None, Some("refusal")),
        (Reply::usual().tool("look", "{\"q\":"), None, Some("invalid_arguments")),
        (Reply::usual().without_usage(), None, Some("usage_missing")),
    ] {
        let counted = || {
            let kinds = [
                "invalid_json",
                "schema_mismatch",
                "empty",
                "truncated",
                "content_filter",
                "refusal",
                "invalid_arguments",
                "usage_missing",
            ];
            let of =
                |kind| metric("skein_model_anomalies_total", &[("model", model), ("kind", kind)]);
            kinds.map(|kind| (kind, of(kind).unwrap_or_default()))
        };
        let before = counted();
        fake.script(model, [reply]);
        let request = GenerateRequest { response_format, ..ask("openai/money-odd", "hi") };
        collect(&proxy, request).await.unwrap();
        let more: Vec<_> = counted()
            .into_iter()
            .zip(before)
            .filter_map(|((name, now), (_, before))| (now > before).then_some(name))
            .collect();
        assert_eq!(more, kind.into_iter().collect::<Vec<_>>(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_usage_that_never_came_is_counted_with_a_tokenizer() {
    let model = "money-silent";
    let (fake, proxy) = start(model, &[]).await;
    fake.script(model, [Reply::text("tiktoken is great!").without_usage()]);
    let answer = collect(&proxy, ask("openai/money-silent", "tiktoken is great!")).await.unwrap();
    let usage = answer.finished.usage.unwrap();
    assert!(usage.estimated);
    // Six tokens each, if the machine was quick enough to load a vocabulary.
    assert!(
        (5..=12).contains(&usage.input_uncached) && (4..=8).contains(&usage.output),
        "{usage:?}"
    );
    let cost = usage.input_uncached * 1000 + usage.output * 2000;
    assert_eq!(usage.cost.unwrap().nano_usd, Some(cost));
}

#[tokio::test]
async fn what_a_search_costs_besides_is_unknown_and_not_nothing() {
    let (_fake, proxy) = start("money-search", &[]).await;
    for (extra_json, known) in [("", true), (r#"{"web_search_options":{}}"#, false)] {
        let request =
            GenerateRequest { extra_json: extra_json.into(), ..ask("openai/money-search", "hi") };
        let usage = collect(&proxy, request).await.unwrap().finished.usage.unwrap();
        assert_eq!(usage.cost.unwrap().nano_usd.is_some(), known, "{extra_json}");
    }
}

#[tokio::test]
async fn a_call_is_timed_and_labels_are_bounded() {
    let model = "money-timed";
    let (fake, proxy) = start(model, &[]).await;
    fake.script(model, [Reply::usual().late_first(Duration::from_millis(300))]);
    collect(&proxy, ask("openai/money-timed", "one two")).await.unwrap();
    let of = [("model", model), ("provider", "openai")];
    let sum = |name: &str| metric(&format!("{name}_sum"), &of).unwrap();
    let (first, whole) = (sum("skein_model_first_token_seconds"), sum("skein_model_call_seconds"));
    assert!(first >= 0.3 && whole >= first, "{first} {whole}");
    let overhead = sum("skein_model_overhead_seconds");
    assert!(overhead > 0.0 && overhead < whole - 0.25, "{overhead} of {whole} is ours");
    assert_eq!(metric("skein_model_tokens_per_second_count", &of), Some(1.0));
    assert_eq!(
        metric("skein_model_calls_total", &[("model", model), ("outcome", "ok")]),
        Some(1.0)
    );

    for unpriced in ["nobody-knows-1", "nobody-knows-2"] {
        let answer = collect(&proxy, ask(&format!("openai/{unpriced}"), "hi")).await.unwrap();
        assert_eq!(answer.finished.usage.unwrap().cost.unwrap().nano_usd, None);
        assert_eq!(metric("skein_model_calls_total", &[("model", unpriced)]), None);
    }
    assert!(metric("skein_model_unpriced_total", &[("model", "other")]) >= Some(2.0));
}

#[tokio::test]
async fn a_model_has_timers_of_its_own() {
    let model = "money-slow";
    let (fake, proxy) = start(model, &[("SKEIN_OPENAI__IDLE_TIMEOUT", "50s")]).await;
    fake.script(model, [Reply::usual().stall(1)]);
    let begun = Instant::now();
    let failed = collect(&proxy, ask("openai/money-slow", "hi")).await.unwrap_err();
    assert_eq!(error::reason(&failed.status).as_deref(), Some("IDLE_TIMEOUT"));
    assert!(begun.elapsed() < Duration::from_secs(40), "the provider's own would be 50 s");
}

#[tokio::test]
async fn models_are_listed_with_prices_limits_and_abilities() {
    let (_fake, proxy) = start("money-listed", &[]).await;
    let request = Proxy::call().request(ListModelsRequest {});
    let models = proxy.client().list_models(request).await.unwrap().into_inner().models;
    let mini = models.iter().find(|model| model.id == "openai/gpt-4o-mini").unwrap();
    let price = mini.price.as_ref().unwrap();
    assert_eq!((price.input, price.output), (Some(150_000_000), Some(600_000_000)));
    assert_eq!(price.cache_read, Some(75_000_000));
    assert_eq!((mini.context_window, mini.max_output), (128_000, 16_384));
    assert!(mini.capabilities().any(|capability| capability == Capability::ImageInput));
    let small = models.iter().find(|model| model.id == "openai/text-embedding-3-small").unwrap();
    assert_eq!(small.dimensions, 1536);
}

#[tokio::test]
async fn a_caller_that_leaves_is_said_in_one_line_without_a_word_of_the_talk() {
    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    struct Lines;
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LINES.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = tracing_subscriber::fmt().json().with_writer(|| Lines);
    lines.with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
    let model = "money-line";
    let (fake, proxy) = start(model, &[]).await;
    fake.endless(model, Reply::usual().endless(Duration::from_millis(5)));
    let request =
        GenerateRequest { call_id: "left-1".into(), ..ask("openai/money-line", "Zugvogel") };
    let mut stream = proxy.generate(request).await.unwrap();
    while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Delta(_))) {}
    drop(stream);
    let begun = Instant::now();
    let said = loop {
        let text = String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned();
        let said: Vec<_> =
            text.lines().filter(|line| line.contains("left-1")).map(str::to_owned).collect();
        if !said.is_empty() {
            assert!(!text.contains("Zugvogel"), "a log holds no prompt");
            break said;
        }
        assert!(begun.elapsed() < SOON, "nothing was said");
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(said.len(), 1);
    let line: serde_json::Value = serde_json::from_str(&said[0]).unwrap();
    let fields = &line["fields"];
    assert_eq!((&fields["provider"], &fields["model"]), (&"openai".into(), &"money-line".into()));
    let tokens = |name: &str| fields[name].as_i64().unwrap();
    let cost = tokens("input_tokens") * 1000 + tokens("output_tokens") * 2000;
    assert_eq!(tokens("cost_nano_usd"), cost);
    assert_eq!(fields["estimated"], true);
}
