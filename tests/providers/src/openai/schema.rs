//! Answers in the form a request demands.
//!
//! Invariants:
//! - What is made for a schema is valid for it, as far as strict mode goes:
//!   objects, arrays, strings, numbers, booleans, `enum`, `const`, `anyOf`, `$ref`.

use crate::words;
use serde_json::{Map, Value, json};

/// The answer to a request that demands JSON; `None` where it does not.
pub(super) fn answer(request: &Value) -> Option<String> {
    let format = &request["response_format"];
    match format["type"].as_str()? {
        "json_object" => Some(json!({"answer": words::echo(request)}).to_string()),
        "json_schema" => {
            let schema = &format["json_schema"]["schema"];
            Some(instance(schema, schema, 0).to_string())
        }
        _ => None,
    }
}

fn instance(schema: &Value, root: &Value, depth: usize) -> Value {
    // A schema may refer to itself; strict mode lets such a place be null or empty.
    if depth > 8 {
        return Value::Null;
    }
    let within = |schema| instance(schema, root, depth + 1);
    if let Some(path) = schema["$ref"].as_str() {
        return root.pointer(path.trim_start_matches('#')).map_or(Value::Null, within);
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    if let Some(first) = schema["anyOf"].get(0) {
        return within(first);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(properties.map(|(name, of)| (name.clone(), within(of))).collect())
        }
        Some("array") => json!([within(&schema["items"])]),
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1)),
        Some("number") => json!(schema["minimum"].as_f64().unwrap_or(1.5)),
        Some("boolean") => json!(true),
        Some("string") => json!("text"),
        Some(_) => Value::Null,
        None => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_what_the_schema_names() {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": "string"}, "age": {"type": "integer", "minimum": 18},
            "mood": {"enum": ["calm", "wild"]}, "legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "$defs": {"leg": {"type": "object", "properties": {"left": {"type": "boolean"}}}}});
        let request =
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
        let made: Value = serde_json::from_str(&answer(&request).unwrap()).unwrap();
        let wanted = json!({"name": "text", "age": 18, "mood": "calm", "legs": [{"left": true}], "note": "text"});
        assert_eq!(made, wanted);
        assert_eq!(answer(&json!({})), None);
    }
}
