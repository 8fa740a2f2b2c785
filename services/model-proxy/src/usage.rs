//! What a call has used so far, so that it is known whenever the call ends.
//!
//! Invariants:
//! - Whatever way a call ends, finished, failed in mid-stream or left by its
//!   caller, there is a usage, and it is marked where it is an estimate.
//! - The provider's own count always wins, and where it came before the end it
//!   is never gone below.

use crate::{
    estimate::{PER_CALL, Sample},
    tokenizer::{self, Vocabulary},
};
use skein_proto::model::v1::{Delta, Usage, delta::Piece};

#[derive(Clone, Debug, Default)]
pub struct Tally {
    input: Sample,
    output: Sample,
    /// Of the output, by the rule.
    reasoning: i64,
    /// Pictures that have come.
    images: i64,
}

impl Tally {
    /// `input` is what is asked.
    pub fn new(input: Sample) -> Self {
        Self { input, output: Sample::of_stream(), ..Self::default() }
    }

    pub fn delta(&mut self, delta: &Delta) {
        match &delta.piece {
            Some(Piece::Text(text) | Piece::Refusal(text)) => self.output.push(text),
            Some(Piece::Reasoning(text)) => {
                let before = self.output.rough();
                self.output.push(text);
                self.reasoning += self.output.rough() - before;
            }
            Some(Piece::ToolCall(piece)) => {
                if !piece.name.is_empty() {
                    self.output.add(PER_CALL);
                }
                self.output.push(&piece.name);
                self.output.push(&piece.arguments);
            }
            Some(Piece::Citation(_)) | None => {}
        }
    }

    pub fn image(&mut self) {
        self.images += 1;
    }

    /// By the rule of thumb alone.
    pub fn rough(&self) -> Usage {
        self.estimate(self.input.rough(), self.output.rough())
    }

    /// With a tokenizer; `model` is the provider's id.
    pub async fn count(&self, model: &str) -> Usage {
        let texts = [self.input.kept(), self.output.kept()].map(str::to_owned);
        match tokenizer::count(Vocabulary::of(model), texts.into()).await.as_deref() {
            Some([input, output]) => {
                self.estimate(self.input.corrected(*input), self.output.corrected(*output))
            }
            _ => self.rough(),
        }
    }

    fn estimate(&self, input: i64, output: i64) -> Usage {
        let (reasoning, rough) = (i128::from(self.reasoning), i128::from(self.output.rough()));
        let reasoning = reasoning * i128::from(output) / rough.max(1);
        Usage {
            input_uncached: input,
            output,
            output_reasoning: i64::try_from(reasoning).unwrap_or(output).min(output),
            images: self.images,
            estimated: true,
            ..Usage::default()
        }
    }
}

/// What the provider said before it fell silent, with what it sent after that.
pub fn at_least(said: Usage, counted: Usage) -> Usage {
    Usage {
        output: said.output.max(counted.output),
        output_reasoning: said.output_reasoning.max(counted.output_reasoning),
        images: said.images.max(counted.images),
        estimated: true,
        cost: None,
        ..said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::ToolCallPiece;

    fn delta(piece: Piece) -> Delta {
        Delta { piece: Some(piece), ..Delta::default() }
    }

    #[tokio::test]
    async fn everything_that_was_said_is_counted() {
        let mut input = Sample::default();
        input.push("tiktoken is great!");
        let mut tally = Tally::new(input);
        tally.delta(&delta(Piece::Reasoning("tiktoken is".into())));
        tally.delta(&delta(Piece::Text(" great!".into())));
        let usage = tally.count("gpt-4o").await;
        assert_eq!((usage.input_uncached, usage.output, usage.estimated), (6, 6, true));
        assert!((1..6).contains(&usage.output_reasoning), "{usage:?}");
        let piece =
            ToolCallPiece { name: "look".into(), arguments: "{}".into(), ..Default::default() };
        tally.delta(&delta(Piece::ToolCall(piece)));
        assert!(tally.count("gpt-4o").await.output > 6);
        assert!(tally.rough().output > 0);
    }

    #[test]
    fn what_the_provider_said_is_never_gone_below() {
        let said =
            Usage { input_cache_read: 90, input_uncached: 10, output: 1, ..Usage::default() };
        let counted = Usage { input_uncached: 70, output: 40, estimated: true, ..Usage::default() };
        let both = at_least(said, counted);
        let expected = Usage { output: 40, estimated: true, ..said };
        assert_eq!(both, expected);
    }
}
