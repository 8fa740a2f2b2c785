//! What a client sends and nobody here has a name for reaches a provider of the
//! same dialect: random fields at every level of a request, through the whole
//! mesh.
use e2e::{KEY, Mesh};
use serde_json::{Map, Value, json};

/// Numbers as they come from a seed: a linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => json!(self.below(1000)),
            1 => json!(format!("雁 \"{}\" \\ \n", self.below(1000))),
            2 => json!(self.below(2) == 0),
            3 => json!(0.5),
            4 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let mut object = Map::new();
                self.decorate(&mut object, depth - 1);
                object.into()
            }
        }
    }

    /// Adds up to two fields of names that nobody uses.
    fn decorate(&mut self, object: &mut Map<String, Value>, depth: u64) {
        for _ in 0..self.below(3) {
            let name = format!("x_{}", self.below(1_000_000));
            let value = self.value(depth);
            object.insert(name, value);
        }
    }

    /// Adds some to every object there is.
    fn everywhere(&mut self, value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|value| self.everywhere(value)),
            Value::Object(object) => {
                object.values_mut().for_each(|value| self.everywhere(value));
                self.decorate(object, 2);
            }
            _ => {}
        }
    }
}

fn request(seed: u64) -> Value {
    let mut request = json!({
        "model": format!("openai/extras-{seed}"),
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://example.com/goose.png"}},
                {"type": "input_audio", "input_audio": {"data": "AQID", "format": "wav"}},
                {"type": "film", "film": {"frames": 3}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
            {"type": "search", "depth": {"of": 2}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
        "prediction": {"type": "content", "content": "x"},
    });
    Random(seed).everywhere(&mut request);
    request
}

/// What of `sent` is missing in `got`, if anything.
fn missing(sent: &Value, got: &Value, path: &str) -> Option<String> {
    match (sent, got) {
        (Value::Object(sent), Value::Object(got)) => sent.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match got.get(name) {
                None => Some(path),
                Some(got) => missing(value, got, &path),
            }
        }),
        (Value::Array(sent), Value::Array(got)) if sent.len() == got.len() => {
            let pairs = sent.iter().zip(got).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (sent, got))| missing(sent, got, &format!("{path}[{at}]")))
        }
        // One text alone may be a string or a part.
        (sent, got) => (sent != got).then(|| format!("{path}: {got} instead of {sent}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_here_has_a_name_for_reaches_the_provider() {
    let fake = providers::openai::start().await.unwrap();
    let mesh = Mesh::with(|spec| {
        let provider =
            [("OPENAI_API_KEY", "sk-test-marker"), ("OPENAI_BASE_URL", fake.url.as_str())];
        let provider = provider.map(|(name, value)| (name.to_owned(), value.to_owned()));
        spec.app_mut("model-proxy").unwrap().secrets.extend(provider);
    })
    .await;
    for seed in 0..50 {
        let mut sent = request(seed);
        let call = e2e::client().post(format!("{}/v1/chat/completions", mesh.url));
        let call = call.bearer_auth(KEY).header("content-type", "application/json");
        let answer = call.body(sent.to_string()).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(status, 200, "seed {seed}: {body}");
        let model = format!("extras-{seed}");
        let log = fake.log();
        let got = log.iter().find(|entry| entry.model == model).unwrap();
        sent["model"] = model.into(); // without its provider
        assert_eq!(missing(&sent, &got.request, "request"), None, "seed {seed}: {sent}");
    }
}
