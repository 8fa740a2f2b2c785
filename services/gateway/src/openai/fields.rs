//! A JSON object read field by field; what nobody took stays.
//!
//! Invariants:
//! - A value of the wrong type is refused with the path of the field.
//! - `null` is the same as absent, as with OpenAI.

use super::error::Refusal;
use serde_json::{Map, Value};

pub(super) struct Fields {
    object: Map<String, Value>,
    /// `messages[0].` or empty.
    prefix: String,
}

impl Fields {
    pub(super) fn of(value: Value, path: &str) -> Result<Self, Refusal> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        match value {
            Value::Object(object) => Ok(Self { object, prefix }),
            other => Err(wrong(if path.is_empty() { "body" } else { path }, "an object", &other)),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The value unless absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        // `shift_remove` keeps what remains in the client's order.
        self.object.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn put_back(&mut self, name: &str, value: Value) {
        self.object.insert(name.to_owned(), value);
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Refusal> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(&self.path(name), "true or false", &other)),
        }
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| wrong(&self.path(name), "an integer", &value))
    }

    /// An integer within limits, both included.
    pub(super) fn integer_in(
        &mut self,
        name: &str,
        low: i64,
        high: i64,
    ) -> Result<Option<i64>, Refusal> {
        let found = self.integer(name)?;
        match found {
            Some(number) if !(low..=high).contains(&number) => {
                Err(self.out_of_range(name, &number.to_string(), &range(low, high)))
            }
            _ => Ok(found),
        }
    }

    pub(super) fn number_in(
        &mut self,
        name: &str,
        low: f64,
        high: f64,
    ) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| wrong(&self.path(name), "a number", &value))?;
        if (low..=high).contains(&number) {
            return Ok(Some(number));
        }
        Err(self.out_of_range(name, &number.to_string(), &format!("between {low} and {high}")))
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(&self.path(name), "an array", &other)),
        }
    }

    pub(super) fn missing(&self, name: &str) -> Refusal {
        let path = self.path(name);
        let message = format!("missing required parameter: {path}");
        Refusal::invalid(path, "missing_required_parameter", message)
    }

    pub(super) fn out_of_range(&self, name: &str, found: &str, wanted: &str) -> Refusal {
        let path = self.path(name);
        let message = format!("{path} must be {wanted}, is {found}");
        Refusal::invalid(path, "invalid_value", message)
    }

    /// What nobody has taken and says anything.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.object.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// The same as `extra_json`.
    pub(super) fn extra(self) -> String {
        extra(self.rest())
    }
}

/// The text of a JSON object; empty for one of nothing.
pub(super) fn extra(fields: Map<String, Value>) -> String {
    if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() }
}

/// Adds what is left of an object inside another one, under its name.
pub(super) fn nest(outer: &mut Map<String, Value>, name: &str, inner: Map<String, Value>) {
    if !inner.is_empty() {
        outer.insert(name.to_owned(), inner.into());
    }
}

fn range(low: i64, high: i64) -> String {
    if high == i64::MAX { format!("at least {low}") } else { format!("between {low} and {high}") }
}

pub(super) fn wrong(path: &str, wanted: &str, found: &Value) -> Refusal {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Refusal::invalid(path, "invalid_type", format!("{path} must be {wanted}, is {found}"))
}
