//! The arguments of one tool call, as their pieces come.
//!
//! Invariants:
//! - Nothing (or only blanks) is no JSON object: a call without arguments has
//!   to be given `{}`.
//! - Memory is bounded: what grows past [`MOST`] is broken, and no longer kept.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longer than what any model writes in one answer.
const MOST: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Arguments {
    text: String,
    too_long: bool,
}

impl Arguments {
    pub(super) fn push(&mut self, piece: &str) {
        self.too_long |= self.text.len() + piece.len() > MOST;
        if self.too_long {
            self.text = String::new();
        } else {
            self.text.push_str(piece);
        }
    }

    /// Whether nothing was said yet.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && !self.too_long
    }

    /// What has come, an object without fields where it is none.
    pub(super) fn value(&self) -> Value {
        let object: Option<Map<String, Value>> = serde_json::from_str(&self.text).ok();
        object.unwrap_or_default().into()
    }

    /// Whether what has come is no JSON object.
    pub(super) fn is_broken(&self) -> bool {
        self.too_long || serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&self.text).is_err()
    }
}

/// Which of the calls, by their places, are broken.
pub(super) fn broken<'a>(calls: impl IntoIterator<Item = &'a Arguments>) -> Vec<u32> {
    let places = (0_u32..).zip(calls);
    places.filter(|(_, call)| call.is_broken()).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_object_is_well() {
        let told = |pieces: &[&str]| {
            let mut arguments = Arguments::default();
            pieces.iter().for_each(|piece| arguments.push(piece));
            arguments
        };
        assert!(!told(&["{\"ci", "ty\":", "\"雁\"}"]).is_broken());
        assert!(!told(&[" {} "]).is_broken());
        for pieces in [&["{\"a\":"][..], &["[]"], &["{}{}"], &["null"], &["\"{}\""], &[" "], &[]] {
            assert!(told(pieces).is_broken(), "{pieces:?}");
        }
        assert_eq!(broken(&[told(&["{}"]), told(&["{"]), told(&["{}"]), told(&[])]), [1, 3]);
    }

    #[test]
    fn endless_arguments_are_not_kept() {
        let mut arguments = Arguments::default();
        arguments.push(&"x".repeat(MOST));
        arguments.push("x");
        arguments.push("{}");
        assert!(arguments.is_broken() && !arguments.is_empty() && arguments.text.is_empty());
    }
}
