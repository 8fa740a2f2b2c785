//! Texts to vectors, through the region's router, as the tenant of the call.
//!
//! Invariants:
//! - an answer is used whole or not at all: one finite vector a text, all of one
//!   length, scaled to length one;
//! - after a failure nobody waits for the models again until `pause` is over,
//!   but for callers who have nothing else to offer; being slow with passages is
//!   no failure, or a bulk load would blind the searches beside it.

use crate::model::{Vectors, normalised};
use mesh::{call::Call, channel::Channel, error, h2};
use skein_proto::model::v1::embed_input::Input;
use skein_proto::model::v1::model_service_client::ModelServiceClient;
use skein_proto::model::v1::{EmbedInput, EmbedPurpose, EmbedRequest, EmbedResponse, Usage};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

pub struct Embedder {
    channel: Channel,
    pause: Duration,
    away_until: Mutex<Option<Instant>>,
}

#[derive(Debug)]
pub struct Embedded {
    pub vectors: Vec<Vec<f32>>,
    pub of: Vectors,
    pub by: String,
    pub usage: Option<Usage>,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// These texts will never be embedded by this model.
    #[error("{0}")]
    Refused(String),
    /// Later it may work.
    #[error("{0}")]
    Away(String),
}

impl Embedder {
    pub const fn new(channel: Channel, pause: Duration) -> Self {
        Self { channel, pause, away_until: Mutex::new(None) }
    }

    pub const fn pause(&self) -> Duration {
        self.pause
    }

    /// Whether a call failed so recently that the next one would too.
    pub fn is_away(&self) -> bool {
        let until = *self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub async fn passages(
        &self,
        call: &Call,
        model: &str,
        texts: &[String],
    ) -> Result<Embedded, EmbedError> {
        self.embed(call, model, texts, EmbedPurpose::Passage).await
    }

    /// The vector of a query.
    pub async fn query(
        &self,
        call: &Call,
        model: &str,
        text: &str,
    ) -> Result<Embedded, EmbedError> {
        self.embed(call, model, &[text.to_owned()], EmbedPurpose::Query).await
    }

    async fn embed(
        &self,
        call: &Call,
        model: &str,
        texts: &[String],
        purpose: EmbedPurpose,
    ) -> Result<Embedded, EmbedError> {
        let input = |text: &String| EmbedInput { input: Some(Input::Text(text.clone())) };
        let request = EmbedRequest {
            model: model.to_owned(),
            inputs: texts.iter().map(input).collect(),
            purpose: purpose.into(),
            ..EmbedRequest::default()
        };
        let mut client = ModelServiceClient::new(self.channel.clone())
            .max_decoding_message_size(h2::MAX_MESSAGE)
            .max_encoding_message_size(h2::MAX_MESSAGE);
        let (outcome, slow) = match timeout_at(call.deadline, client.embed(call.request(request)))
            .await
        {
            Ok(Ok(response)) => (check(response.into_inner(), model, texts.len()), false),
            Ok(Err(status)) => failure(&status),
            Err(_) => (Err(EmbedError::Away("the models did not answer in time".to_owned())), true),
        };
        if !(slow && purpose == EmbedPurpose::Passage) {
            let away = matches!(outcome, Err(EmbedError::Away(_)));
            let until = away.then(|| Instant::now() + self.pause);
            *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        outcome
    }
}

/// What a status means, and whether time ran out.
fn failure(status: &Status) -> (Result<Embedded, EmbedError>, bool) {
    if status.code() == Code::InvalidArgument {
        return (Err(EmbedError::Refused(status.message().to_owned())), false);
    }
    let slow = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    let reason = error::reason(status).unwrap_or_default();
    let cause = format!("{reason} {}", status.message()).trim().to_owned();
    (Err(EmbedError::Away(cause)), slow)
}

fn check(response: EmbedResponse, asked: &str, texts: usize) -> Result<Embedded, EmbedError> {
    let EmbedResponse { embeddings, model, provider, region, usage } = response;
    let dimensions = embeddings.first().map_or(0, |first| first.values.len());
    let whole = embeddings.len() == texts
        && dimensions > 0
        && embeddings.iter().all(|embedding| {
            embedding.values.len() == dimensions
                && embedding.values.iter().all(|value| value.is_finite())
        });
    if !whole {
        return Err(EmbedError::Away(format!("{asked} answered with vectors that cannot be used")));
    }
    let model = if model.is_empty() { asked.to_owned() } else { model };
    Ok(Embedded {
        vectors: embeddings.into_iter().map(|embedding| normalised(embedding.values)).collect(),
        of: Vectors { model, dimensions },
        by: if region.is_empty() { provider } else { format!("{provider}/{region}") },
        usage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::Embedding;

    fn answer(vectors: &[&[f32]]) -> EmbedResponse {
        let embeddings = vectors.iter().map(|values| Embedding { values: values.to_vec() });
        EmbedResponse { embeddings: embeddings.collect(), ..EmbedResponse::default() }
    }

    #[test]
    fn an_answer_is_used_whole_or_not_at_all() {
        let good = check(answer(&[&[3.0, 4.0], &[0.0, 0.0]]), "m", 2).unwrap();
        assert_eq!(good.vectors, [[0.6, 0.8], [0.0, 0.0]]);
        assert_eq!(good.of, Vectors { model: "m".to_owned(), dimensions: 2 });
        for bad in [
            answer(&[&[1.0, 0.0]]),
            answer(&[&[1.0, 0.0], &[1.0]]),
            answer(&[&[1.0, f32::NAN], &[1.0, 0.0]]),
            answer(&[&[], &[]]),
        ] {
            assert!(matches!(check(bad, "m", 2), Err(EmbedError::Away(_))));
        }
    }
}
