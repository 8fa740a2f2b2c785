//! What a call has used so far, so that it is known whenever the call ends.
//!
//! Invariants:
//! - Whatever way a call ends, finished, failed in mid-stream or left by its
//!   caller, there is a usage, and it is marked where it is an estimate.
//! - The provider's own count always wins.

use crate::{estimate, price::Prices};
use mesh::clock;
use skein_proto::model::v1::{Delta, Finished, Usage, delta::Piece};
use std::sync::Arc;

pub struct Tally {
    prices: Arc<Prices>,
    /// `<provider>/<id>`.
    model: String,
    /// When the call began, in seconds since 1970.
    at: i64,
    input: i64,
    output: i64,
}

impl Tally {
    /// `input` is the estimated size of what is asked.
    pub fn new(prices: Arc<Prices>, model: String, input: i64) -> Self {
        Self { prices, model, at: clock::now_seconds(), input, output: 0 }
    }

    pub fn delta(&mut self, delta: &Delta) {
        self.output += match &delta.piece {
            Some(Piece::Text(text) | Piece::Refusal(text) | Piece::Reasoning(text)) => {
                estimate::text(text)
            }
            Some(Piece::ToolCall(piece)) => estimate::text(&piece.arguments),
            Some(Piece::Citation(_)) | None => 0,
        };
    }

    /// Completes what the provider said at the end.
    pub fn finish(&self, finished: &mut Finished) {
        let mut usage = finished.usage.unwrap_or_else(|| self.estimate());
        usage.cost = Some(self.prices.cost(&self.model, &usage, self.at));
        finished.usage = Some(usage);
    }

    /// What an answer that ended here has used.
    pub fn partial(&self) -> Usage {
        let mut usage = self.estimate();
        usage.cost = Some(self.prices.cost(&self.model, &usage, self.at));
        usage
    }

    fn estimate(&self) -> Usage {
        Usage {
            input_uncached: self.input,
            output: self.output,
            estimated: true,
            ..Usage::default()
        }
    }
}
