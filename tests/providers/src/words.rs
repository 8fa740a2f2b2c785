//! What all providers say when nobody scripted anything, and how it is counted.
//!
//! Invariants:
//! - The same request gets the same answer and the same counts.

use serde_json::Value;

/// Tokens of a picture among the input.
const PICTURE: usize = 85;

pub(crate) fn count(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The text of a message's content, whether a string or parts.
pub(crate) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// The tokens of a message's content.
pub(crate) fn tokens(content: &Value) -> usize {
    let is_picture = |part: &&Value| matches!(part["type"].as_str(), Some("image_url" | "image"));
    let pictures = content.as_array().map_or(0, |parts| parts.iter().filter(is_picture).count());
    count(&text(content)) + pictures * PICTURE
}

pub(crate) fn messages(request: &Value) -> impl Iterator<Item = &Value> {
    request["messages"].as_array().into_iter().flatten()
}

/// The usual answer.
pub(crate) fn echo(request: &Value) -> String {
    let last = messages(request).last().map(|message| text(&message["content"]));
    format!("You said: {}", last.unwrap_or_default())
}

/// The first so many words.
pub(crate) fn first(text: &str, words: usize) -> String {
    text.split_inclusive(' ').take(words).collect()
}

/// Up to the first of `stops`, and which it was.
pub(crate) fn until<'a>(
    stops: impl Iterator<Item = &'a str>,
    said: String,
) -> (String, Option<String>) {
    match stops.filter_map(|stop| Some((said.find(stop)?, stop))).min() {
        Some((at, stop)) => (said[..at].to_owned(), Some(stop.to_owned())),
        None => (said, None),
    }
}

/// Cuts arguments as models stream them; joined they are the same.
pub(crate) fn pieces(arguments: &str) -> Vec<String> {
    let characters: Vec<char> = arguments.chars().collect();
    characters.chunks(6).map(|piece| piece.iter().collect()).collect()
}

/// The tools an answer calls: those of the script, or of the model's name. `first`
/// is the first tool there is; none once its result was told.
pub(crate) fn calls(
    model: &str,
    first: Option<&str>,
    scripted: &[(String, String)],
) -> Vec<(String, String)> {
    match first {
        Some(first) if scripted.is_empty() && matches!(model, "tool" | "tool-whole") => {
            vec![(first.to_owned(), "{\"city\":\"Lisbon\"}".to_owned())]
        }
        _ => scripted.to_vec(),
    }
}
