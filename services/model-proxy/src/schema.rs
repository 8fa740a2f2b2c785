//! Whether a JSON document is of the shape that was asked for.
//!
//! Only what providers promise with a schema is looked at: types, required and
//! further fields, items, enumerations, alternatives and references within the
//! schema. A keyword that is not one of these is taken to be met, so that what
//! is reported is a mismatch and never our own ignorance.

use serde_json::{Map, Value};
use std::cell::Cell;

/// Deeper than this nobody looks; a schema may refer to itself.
const DEEPEST: usize = 64;
/// Nor at more places than these: two references of a schema to itself double
/// the places with every level, and this runs while an answer waits.
const MOST_STEPS: u32 = 20_000;

pub fn fits(schema: &Value, value: &Value) -> bool {
    Schema { root: schema, steps: Cell::new(MOST_STEPS) }.fits(schema, value, 0)
}

struct Schema<'a> {
    root: &'a Value,
    /// What is left of [`MOST_STEPS`].
    steps: Cell<u32>,
}

impl<'a> Schema<'a> {
    fn fits(&self, schema: &'a Value, value: &Value, depth: usize) -> bool {
        let Some(left) = self.steps.get().checked_sub(1) else { return true };
        self.steps.set(left);
        let schema = match schema {
            Value::Bool(all) => return *all,
            Value::Object(schema) if depth < DEEPEST => schema,
            _ => return true,
        };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|path| self.root.pointer(path));
            return target.is_none_or(|target| self.fits(target, value, depth + 1));
        }
        let among = |wanted: &Value| match wanted {
            Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
            kind => is(kind, value),
        };
        schema.get("type").is_none_or(among)
            && schema.get("const").is_none_or(|wanted| wanted == value)
            && schema
                .get("enum")
                .and_then(Value::as_array)
                .is_none_or(|known| known.contains(value))
            && ["anyOf", "oneOf"].iter().all(|name| {
                schema
                    .get(*name)
                    .and_then(Value::as_array)
                    .is_none_or(|any| any.iter().any(|schema| self.fits(schema, value, depth + 1)))
            })
            && schema
                .get("allOf")
                .and_then(Value::as_array)
                .is_none_or(|all| all.iter().all(|schema| self.fits(schema, value, depth + 1)))
            && match value {
                Value::Object(fields) => self.object(schema, fields, depth),
                Value::Array(items) => schema.get("items").is_none_or(|schema| {
                    items.iter().all(|item| self.fits(schema, item, depth + 1))
                }),
                _ => true,
            }
    }

    fn object(
        &self,
        schema: &'a Map<String, Value>,
        fields: &Map<String, Value>,
        depth: usize,
    ) -> bool {
        let required = schema.get("required").and_then(Value::as_array);
        let there = |name: &Value| name.as_str().is_none_or(|name| fields.contains_key(name));
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.contains_key("patternProperties");
        let further = schema.get("additionalProperties").filter(|_| !patterns);
        required.is_none_or(|names| names.iter().all(there))
            && fields.iter().all(|(name, value)| {
                match (known.and_then(|known| known.get(name)), further) {
                    (Some(schema), _) | (None, Some(schema)) => self.fits(schema, value, depth + 1),
                    (None, None) => true,
                }
            })
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_for_is_told_from_what_is_not() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "legs": {"type": "integer"},
                "kind": {"enum": ["goose", "duck"]},
                "young": {"type": "array", "items": {"$ref": "#"}},
                "home": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
            },
            "required": ["name", "legs"],
            "additionalProperties": false,
            "$defs": {"place": {"type": "object", "required": ["lake"]}},
        });
        let goose = json!({"name": "Ada", "legs": 2, "kind": "goose", "home": null,
            "young": [{"name": "Bo", "legs": 2.0, "home": {"lake": "Ladoga"}}]});
        assert!(fits(&schema, &goose));
        for (field, wrong) in [
            ("name", json!(7)),
            ("legs", json!(2.5)),
            ("kind", json!("swan")),
            ("home", json!({"pond": 1})),
            ("young", json!([{"name": "Bo"}])),
            ("wings", json!(2)),
        ] {
            let mut goose = goose.clone();
            goose[field] = wrong;
            assert!(!fits(&schema, &goose), "{field}");
        }
        assert!(!fits(&schema, &json!(["Ada"])));
        assert!(!fits(&json!(false), &goose) && fits(&json!({"pattern": "x"}), &json!("y")));
        let endless = json!({"allOf": [{"$ref": "#"}]});
        assert!(fits(&endless, &goose));
    }

    #[test]
    fn a_schema_that_multiplies_itself_costs_little() {
        let schema = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]});
        assert!(fits(&schema, &json!({})), "ignorance is no mismatch");
    }
}
