//! What Anthropic's models differ in, as far as a request has to know it.
//!
//! Invariants:
//! - A model that nobody has listed is taken for a new one: it chooses how to
//!   think, and takes neither `temperature` nor `top_p` (the API's own types
//!   have them no more).
//! - What is not Anthropic's (a compatible server's own name) is taken for an
//!   old one, which is what such servers imitate.

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinks {
    /// It does not.
    Never,
    /// As much as it is given tokens for.
    Budget,
    /// As much as it finds right, and more or less by a word.
    Adaptive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// Takes `temperature` and `top_p`.
    pub(super) sampling: bool,
    pub(super) thinks: Thinks,
}

const NEW: Traits = Traits { sampling: false, thinks: Thinks::Adaptive };
const COMPATIBLE: Traits = Traits { sampling: true, thinks: Thinks::Budget };

/// How the names of older models begin.
const OLDER: &[(&str, Thinks)] = &[
    ("claude-2", Thinks::Never),
    ("claude-instant", Thinks::Never),
    ("claude-3-haiku", Thinks::Never),
    ("claude-3-sonnet", Thinks::Never),
    ("claude-3-opus", Thinks::Never),
    ("claude-3-5-", Thinks::Never),
    ("claude-3-7-", Thinks::Budget),
    ("claude-opus-4-0", Thinks::Budget),
    ("claude-opus-4-1", Thinks::Budget),
    ("claude-opus-4-2025", Thinks::Budget),
    ("claude-opus-4-5", Thinks::Budget),
    ("claude-sonnet-4-0", Thinks::Budget),
    ("claude-sonnet-4-2025", Thinks::Budget),
    ("claude-sonnet-4-5", Thinks::Budget),
    ("claude-haiku-4-5", Thinks::Budget),
    ("claude-opus-4-6", Thinks::Adaptive),
    ("claude-sonnet-4-6", Thinks::Adaptive),
];

pub(super) fn of(model: &str) -> Traits {
    if !model.starts_with("claude-") {
        return COMPATIBLE;
    }
    let older = OLDER.iter().find(|(name, _)| model.starts_with(name));
    older.map_or(NEW, |(_, thinks)| Traits { sampling: true, thinks: *thinks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_new() {
        for model in ["claude-opus-5-5", "claude-opus-4-8", "claude-haiku-5-5", "claude-next"] {
            assert_eq!(of(model), NEW, "{model}");
        }
        for (model, thinks) in [
            ("claude-3-haiku-20240307", Thinks::Never),
            ("claude-opus-4-20250514", Thinks::Budget),
            ("claude-haiku-4-5-20251001", Thinks::Budget),
            ("claude-sonnet-4-6", Thinks::Adaptive),
        ] {
            assert_eq!(of(model), Traits { sampling: true, thinks }, "{model}");
        }
        assert_eq!(of("kimi-k3"), COMPATIBLE);
    }
}
