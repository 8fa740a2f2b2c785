//! The built-in table and files that change it.

use super::*;

const TODAY: i64 = 20_780 * 86_400; // 2026-11-23

fn built_in() -> Prices {
    Prices::built_in().unwrap()
}

fn usage(input: i64, cached: i64, output: i64) -> Usage {
    Usage { input_uncached: input, input_cache_read: cached, output, ..Usage::default() }
}

#[test]
fn every_model_of_the_published_list_has_its_price() {
    let table = built_in();
    assert!(table.0.len() >= 79);
    for (name, listed) in &table.0 {
        let price = listed.price(TODAY).unwrap();
        let billed = price.input.or(price.per_query).or(price.per_second);
        assert!(billed.is_some(), "{name} has no price at all");
        assert!(listed.mode != "chat" || price.output.is_some(), "{name}");
        assert_eq!(
            listed.dimensions > 0,
            listed.capabilities().contains(&2) && listed.dimensions > 0
        );
    }
    let sum = |model: &str, usage: &Usage| table.cost(model, usage, TODAY).nano_usd;
    // $0.15, $0.075 and $0.60 for a million tokens.
    let mini = Some(1000 * 150 + 200 * 75 + 10 * 600);
    for model in ["openai/gpt-4o-mini", "openai/gpt-4o-mini-2024-07-18"] {
        assert_eq!(sum(model, &usage(1000, 200, 10)), mini, "{model}");
    }
    // $0.10 and $0.50, above 100,000 tokens $0.50 and $2.50.
    let haiku = "anthropic/claude-haiku-5-5-20261001";
    assert_eq!(sum(haiku, &usage(100_000, 0, 10)), Some(100_000 * 100 + 10 * 500));
    assert_eq!(sum(haiku, &usage(100_001, 0, 10)), Some(100_001 * 500 + 10 * 2500));
    // $3.00 in, $3.75 to write for five minutes, $6.00 for an hour.
    let written = Usage { input_cache_write: 10, input_cache_write_hour: 4, ..usage(1, 0, 0) };
    let sonnet = "anthropic/claude-sonnet-4-6";
    assert_eq!(sum(sonnet, &written), Some(3000 + 6 * 3750 + 4 * 6000));
    // $30 for a million tokens of pictures.
    let drawn = Usage { images: 1, output_image: 1056, ..usage(10, 0, 1056) };
    assert_eq!(sum("openai/gpt-image-2", &drawn), Some(10 * 5000 + 1056 * 30_000));
    assert_eq!(sum("together/openai/gpt-oss-120b", &usage(1, 0, 0)), Some(150));
}

#[test]
fn unknown_is_not_zero_and_local_is() {
    let table = built_in();
    let sum = |model: &str, usage: &Usage| table.cost(model, usage, TODAY).nano_usd;
    assert_eq!(sum("local/extractive", &usage(1, 0, 1)), Some(0));
    for unpriced in ["openai/my-own", "openai/gpt-4o-mini-audio", "openai/gpt-4o-2024-13-40"] {
        assert_eq!(sum(unpriced, &usage(1, 0, 1)), None, "{unpriced}");
    }
    let spoken = Usage { output_audio: 5, ..usage(1, 0, 5) };
    assert_eq!(sum("openai/gpt-4o-mini", &spoken), None, "no price for sound");
    let drawn = Usage { images: 1, ..usage(1, 0, 0) };
    assert_eq!(sum("openai/gpt-image-2", &drawn), None, "billed by tokens, and none are told");
    assert_eq!(sum("cohere/rerank-v3.5", &usage(9, 0, 0)), None, "billed by searches");
}

#[test]
fn more_tokens_never_cost_less() {
    let table = built_in();
    for name in table.0.keys() {
        let mut last = None;
        for tokens in (0..400_000).step_by(1000) {
            let cost = table.cost(name, &usage(tokens, tokens / 3, 0), TODAY).nano_usd;
            assert!(cost >= last, "{name} at {tokens}");
            last = cost;
        }
    }
}

#[test]
fn a_call_has_the_price_of_its_day() {
    let text = r#"[{"id": "own/geese", "prices": [
        {"from": "2027-01-01", "input": 2000000, "output": 0},
        {"from": "2026-06-01", "input": 1000000, "output": 0}]}]"#;
    let table = built_in().with(text).unwrap();
    let on = |day: &str| {
        let at = fields::day(day).unwrap() * 86_400;
        let ends = [at, at + 86_399].map(|at| table.cost("own/geese", &usage(1, 0, 0), at));
        assert_eq!(ends[0], ends[1], "{day}");
        ends[0].nano_usd
    };
    assert_eq!((on("2026-12-31"), on("2027-01-01")), (Some(1), Some(2)));
    assert_eq!(on("2025-01-01"), Some(1), "a clock that is behind turns no meter off");
}

#[test]
fn a_file_changes_what_it_names_and_nothing_else() {
    let text = r#"[
        {"id": "openai/gpt-4o-mini", "timers": {"first_token": "90s"},
         "prices": [{"from": "2026-11-01", "input": 140000000, "output": 500000000}]},
        {"id": "own/geese", "mode": "embedding", "dimensions": 8}]"#;
    let table = built_in().with(text).unwrap();
    let (was, is) = (built_in(), table.find("openai/gpt-4o-mini").unwrap());
    let was = was.find("openai/gpt-4o-mini").unwrap();
    assert_eq!((is.context_window, is.tools), (was.context_window, was.tools));
    assert_eq!(is.patience.first_token, Some(std::time::Duration::from_secs(90)));
    assert_eq!(is.price(TODAY).unwrap().cache_read, None, "rows are replaced whole");
    assert_eq!(table.cost("own/geese", &usage(1, 0, 0), TODAY).nano_usd, None);
    assert_eq!(table.0.len(), built_in().0.len() + 1);
}

#[test]
fn whatever_is_wrong_with_a_file_is_said_at_once() {
    let text = r#"[
        {"id": "geese", "modus": "chat", "timers": {"first_tokens": "1s", "idle": "soon"}},
        {"id": "own/a", "mode": "song", "prices": [{"from": "soon", "input": -1}]},
        {"id": "own/b", "prices": [{"input": 20000000000000, "output": 1.5}]},
        {"id": "own/c", "prices": [{"input": 9, "output": 9, "tiers": [{"above": 5, "input": 8}]}]}]"#;
    let complaints = built_in().with(text).unwrap_err().join("\n");
    for expected in [
        "geese: id must be <provider>/<model>",
        "geese: \"modus\" is no key",
        "geese: timers: \"first_tokens\" is no key",
        "geese: timers: idle is \"soon\"",
        "own/a: mode must be one of chat",
        "own/a: prices[0]: from must be a day",
        "own/a: prices[0]: input must be a whole number from 0",
        "own/b: prices[0]: input must be a whole number from 0 to 10000000000000, is 20000000000000",
        "own/b: prices[0]: output must be a whole number",
        "own/c: prices[0]: tiers[0]: input must not be cheaper",
        "own/c: prices[0]: tiers[0]: output is missing",
    ] {
        assert!(complaints.contains(expected), "{expected}\nis not in\n{complaints}");
    }
    assert!(built_in().with("{}").unwrap_err()[0].contains("must be a JSON list"));
}

#[test]
fn a_tenfold_jump_is_refused_unless_it_is_confirmed() {
    let file = |input: i64, confirmed: bool| {
        format!(
            r#"[{{"id": "openai/gpt-4o-mini", "confirmed": {confirmed},
                "prices": [{{"input": {input}, "output": 600000000}}]}}]"#
        )
    };
    for input in [1_500_000_000, 15_000_000, 0] {
        let complaints = built_in().with(&file(input, false)).unwrap_err();
        assert_eq!(complaints.len(), 1);
        let named = complaints[0].contains("openai/gpt-4o-mini: input");
        let numbers =
            complaints[0].contains(&input.to_string()) && complaints[0].contains("150000000");
        assert!(named && numbers, "{}", complaints[0]);
        assert!(built_in().with(&file(input, true)).is_ok());
    }
    for input in [1_499_999_999, 15_000_001, 150_000_000] {
        assert!(built_in().with(&file(input, false)).is_ok(), "{input}");
    }
}

#[test]
fn the_example_of_the_documentation_is_right() {
    for language in ["en", "zh"] {
        let path = format!("{}/../../docs/{language}/prices.md", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(path).unwrap();
        let example = page.split("```json prices\n").nth(1).unwrap().split("```").next().unwrap();
        let table = built_in().with(example).unwrap();
        let in_2027 = fields::day("2027-01-01").unwrap() * 86_400;
        let cost = |at| table.cost("openai/gpt-4o-mini", &usage(100, 0, 0), at).nano_usd;
        assert_eq!((cost(TODAY), cost(in_2027)), (Some(12_000), Some(11_000)), "{language}");
        assert!(table.find("geese/honk-1").unwrap().patience.first_token.is_some());
    }
}
