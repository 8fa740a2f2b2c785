//! What every recording used, by class: nothing is lost, nothing counted twice,
//! and our own count is near enough where a provider says none.

use super::{
    Event, registry,
    replay::{Framing, decode, files, read},
};
use crate::{config::Config, estimate::Sample, price::Prices, usage::Tally};
use mesh::config::Sources;
use serde_json::Value;
use skein_proto::model::v1::{Finished, GenerateRequest, Usage};

/// Whose recording a file is; OpenAI's where it does not say.
const VENDORS: [&str; 5] = ["azure", "deepseek", "groq", "mistral", "xai"];

fn vendor(file: &str) -> &'static str {
    let name = file.rsplit('/').next().unwrap();
    if file.starts_with("anthropic/") {
        return "anthropic";
    }
    VENDORS.into_iter().find(|vendor| name.starts_with(vendor)).unwrap_or("openai")
}

/// The answer of a recording, if it ended well.
fn replay(file: &str) -> Option<(Vec<Event>, Finished)> {
    let variables = [
        ("SKEIN_MESH_KEY", "x"),
        ("SKEIN_MESH_PEERS", "x"),
        ("OPENAI_API_KEY", "k"),
        ("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:1"),
        ("DEEPSEEK_API_KEY", "k"),
        ("GROQ_API_KEY", "k"),
        ("MISTRAL_API_KEY", "k"),
        ("XAI_API_KEY", "k"),
        ("ANTHROPIC_API_KEY", "k"),
    ];
    let (config, _) = Config::read(&Sources::of(&variables)).unwrap();
    let providers = registry(&config).unwrap();
    let provider = providers.iter().find(|known| &**known.name() == vendor(file)).unwrap();
    let mut decoder = provider.generate("m", &GenerateRequest::default()).unwrap().decoder;
    let framing = if vendor(file) == "anthropic" { Framing::Named } else { Framing::Data };
    let bytes = read(file, framing);
    let mut events = Vec::new();
    let ended = if file.ends_with(".json") {
        decoder.whole(&bytes, &mut events)
    } else {
        let (told, ended) = decode(decoder, [bytes.as_slice()]);
        events = told;
        ended
    };
    ended.ok()?;
    let Some(Event::Finished(finished)) = events.pop() else { return None };
    Some((events, finished))
}

/// Every usage object of a recording, in order.
fn told(file: &str) -> Vec<Value> {
    fn walk(value: &Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == "usage" && value.is_object() {
                        found.push(value.clone());
                    } else {
                        walk(value, found);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let bytes = read(file, Framing::Data);
    let text = String::from_utf8(bytes).unwrap();
    let mut found = Vec::new();
    if file.ends_with(".json") {
        walk(&serde_json::from_str(&text).unwrap(), &mut found);
    } else {
        let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
        for payload in lines.filter_map(|line| serde_json::from_str(line.trim()).ok()) {
            walk(&payload, &mut found);
        }
    }
    found
}

fn input(usage: &Usage) -> i64 {
    usage.input_uncached + usage.input_cache_read + usage.input_cache_write
}

#[test]
fn the_classes_of_every_recording_add_up_to_what_its_provider_said() {
    let mut seen = 0;
    for file in files(&["openai-chat", "openai-chat-raw-sse", "anthropic"]) {
        let Some((_, finished)) = replay(&file) else { continue };
        let (told, Some(usage)) = (told(&file), finished.usage) else { continue };
        let last = |name: &str| told.iter().rev().find_map(|usage| usage[name].as_i64());
        let (sum, output) = (input(&usage), usage.output);
        if vendor(&file) == "anthropic" {
            let of = |name: &str| last(name).unwrap_or_default();
            let cached = of("cache_read_input_tokens") + of("cache_creation_input_tokens");
            let listed = told.iter().rev().find_map(|usage| usage["iterations"].as_array());
            let compacted: Vec<_> =
                listed.into_iter().flatten().filter(|one| one["type"] == "compaction").collect();
            let more = |name: &str| -> i64 {
                compacted.iter().map(|one| one[name].as_i64().unwrap_or_default()).sum()
            };
            // A tool that the provider runs begins a message within the message,
            // and the last count is of the last one alone.
            if !file.contains("programmatic") {
                assert_eq!(sum, of("input_tokens") + cached + more("input_tokens"), "{file}");
                assert_eq!(output, of("output_tokens") + more("output_tokens"), "{file}");
            }
        } else {
            assert_eq!(Some(sum), last("prompt_tokens"), "{file}");
            assert_eq!(Some(sum + output), last("total_tokens"), "{file}");
        }
        assert!(sum > 0 && output > 0 && !usage.estimated, "{file}: {usage:?}");
        assert!(usage.output_reasoning + usage.output_audio + usage.output_image <= output);
        assert!(usage.input_audio + usage.input_image <= sum, "{file}");
        assert!(usage.input_cache_write_hour <= usage.input_cache_write, "{file}");
        seen += 1;
    }
    assert!(seen == 0 || seen > 40, "{seen} recordings with a usage");
}

#[test]
fn recordings_cost_what_their_classes_cost() {
    if files(&["openai-chat"]).is_empty() {
        return;
    }
    let prices = Prices::built_in().unwrap();
    let cost = |file: &str, model: &str| {
        let usage = replay(file).unwrap().1.usage.unwrap();
        prices.cost(model, &usage, 20_780 * 86_400).nano_usd
    };
    // $0.28 in, $0.028 from the cache, $0.42 out.
    let deepseek = cost("openai-chat/deepseek-tool-call.json", "deepseek/deepseek-reasoner");
    assert_eq!(deepseek, Some(19 * 280 + 320 * 28 + 92 * 420));
    // $1.25, $0.20 and $2.50; 26 tokens said and 227 thought.
    let xai = cost("openai-chat/xai-tool-call.sse.txt", "xai/grok-4.3");
    assert_eq!(xai, Some(1250 + 306 * 200 + (26 + 227) * 2500));
    // $1.00 and $5.00.
    let claude = cost("anthropic/anthropic-text.sse.txt", "anthropic/claude-haiku-4-5-20251001");
    assert_eq!(claude, Some(12 * 1000 + 30 * 5000));
}

/// How far our count of an answer is from its provider's, where the provider
/// bills what it sends. Thoughts that it keeps to itself nobody else can count,
/// and how calls of tools are written down is each provider's secret.
#[tokio::test]
async fn our_own_count_is_near_the_providers() {
    let (mut errors, mut worst) = (Vec::new(), 0.0_f64);
    for file in files(&["openai-chat", "openai-chat-raw-sse", "anthropic"]) {
        let Some((events, finished)) = replay(&file) else { continue };
        let Some(usage) = finished.usage else { continue };
        let mut tally = Tally::new(Sample::default());
        for event in &events {
            if let Event::Delta(delta) = event {
                tally.delta(delta);
            }
        }
        let said = usage.output - usage.output_reasoning;
        let counted = tally.count("gpt-4o").await;
        let counted = counted.output - counted.output_reasoning;
        let rough = tally.rough();
        let rough = rough.output - rough.output_reasoning;
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let error = (counted - said) as f64 / said as f64;
        println!(
            "{file}: {said} told, {counted} counted ({:+.0} %), {rough} by the rule",
            error * 100.0
        );
        // Answers of OpenAI's own in text: what the vocabulary is for.
        if file.contains("/openai-text") || file.ends_with("raw-sse/text.sse.txt") {
            worst = worst.max(error.abs());
        }
        errors.push(error.abs());
    }
    if errors.is_empty() {
        return;
    }
    assert!(worst <= 0.05, "{worst} for OpenAI's own text");
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    assert!(median <= 0.5, "half of all recordings are further off than {median}");
}
