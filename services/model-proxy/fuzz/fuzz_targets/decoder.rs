//! One provider's decoder against any bytes: as a stream in two pieces, as a
//! whole answer, as an error, as a list of models, as headers. No panic, at most
//! one last event, nothing after it.

use mesh::config::Sources;
use model_proxy::{
    Config,
    provider::{Event, Provider, refused, registry},
    sse,
};
use skein_proto::model::v1::GenerateRequest;
use std::sync::Arc;

pub fn provider(name: &str) -> Arc<dyn Provider> {
    let variables = [
        ("SKEIN_MESH_KEY", "unused"),
        ("SKEIN_MESH_PEERS", "unused"),
        ("OPENAI_API_KEY", "unused"),
        ("ANTHROPIC_API_KEY", "unused"),
        ("REPLICATE_API_TOKEN", "unused"),
    ];
    let (config, _) = Config::read(&Sources::of(&variables)).expect("a configuration");
    let providers = registry(&config).expect("providers");
    providers.into_iter().find(|provider| &**provider.name() == name).expect("the provider")
}

pub fn feed(provider: &dyn Provider, data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let (head, tail) = bytes.split_at(usize::from(*first).min(bytes.len()));
    let request = GenerateRequest::default();
    let decoder = || provider.generate("owner/model", &request).expect("a request").decoder;
    let (mut decoder_of_stream, mut parser) = (decoder(), sse::Parser::default());
    let (mut events, mut parsed) = (Vec::new(), Vec::new());
    let _ = parser.push(head, &mut parsed).and_then(|()| parser.push(tail, &mut parsed));
    for event in &parsed {
        if decoder_of_stream.push(event, &mut events).is_err() {
            break;
        }
    }
    let _ = decoder_of_stream.end(&mut events);
    let _ = decoder_of_stream.abandon();
    check(&events);
    let mut events = Vec::new();
    let _ = decoder().whole(bytes, &mut events);
    check(&events);
    let _ = provider.listed(bytes);
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(head) {
        headers.insert("retry-after", value.clone());
        headers.insert("anthropic-ratelimit-tokens-reset", value);
    }
    let _ = provider.quota(&headers);
    let _ = refused(provider, 429, &headers, bytes);
}

fn check(events: &[Event]) {
    let last = events.iter().position(|event| matches!(event, Event::Finished(_)));
    assert!(last.is_none_or(|at| at + 1 == events.len()), "something after the last event");
}
