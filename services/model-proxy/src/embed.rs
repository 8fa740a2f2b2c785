//! What a request for embeddings has to be, and what its answer has to be.
//!
//! Invariants:
//! - Vectors have the length that was asked for, or the model's own where the
//!   table knows it; anything else is the provider's error and names both.
//! - Where a model gives unit vectors, its vectors have length 1 here, shortened
//!   ones too.

use crate::{
    batch::{Limits, Way},
    call::{Caller, Target},
    error::{Error, Failure},
    models::Name,
    price::Listed,
    upstream::Upstream,
};
use futures_util::FutureExt as _;
use skein_proto::model::v1::{EmbedRequest, Embedding};
use std::sync::Arc;

#[cfg(feature = "local")]
use crate::local::Engine;

/// What one call of OpenAI's takes, which others imitate: 2,048 inputs and
/// 300,000 tokens, less what our estimate may be wrong by.
const LIMITS: Limits = Limits { inputs: 2048, tokens: 240_000 };
/// Of the embedded model: in larger batches it gains nothing.
#[cfg(feature = "local")]
const LOCAL_LIMITS: Limits = Limits { inputs: 64, tokens: 8_192 };

/// Models that have one length and no other.
const RIGID: [&str; 2] = ["text-embedding-ada-002", "mistral-embed"];
/// How the names of models begin that give vectors of length 1, though some of
/// them only as long as nobody shortens them.
const UNIT: [&str; 4] = ["text-embedding-", "gemini-embedding-", "mistral-embed", "voyage-"];
/// Further from 1 than 32-bit numbers and their rounding explain.
const OFF: f64 = 1e-3;

/// Asks a provider.
pub fn asking(target: Target, caller: Arc<Caller>) -> Way {
    let ask = move |request: EmbedRequest, upstream: Arc<Upstream>| {
        let (target, caller) = (Target { upstream, ..target.clone() }, Arc::clone(&caller));
        async move {
            let ask = || target.provider.embed(&target.model, &request);
            let body = caller.document(&target, ask).await?;
            let embedded = target.provider.embedded(&request, &body)?;
            Ok((embedded.embeddings, embedded.usage))
        }
        .boxed()
    };
    Way { limits: LIMITS, ask: Arc::new(ask) }
}

/// Asks the embedded model.
#[cfg(feature = "local")]
pub fn computing(engine: Arc<Engine>) -> Way {
    let ask = move |request: EmbedRequest, _: Arc<Upstream>| {
        let engine = Arc::clone(&engine);
        async move {
            let (embeddings, usage) = engine.embed_request(request).await?;
            Ok((embeddings, Some(usage)))
        }
        .boxed()
    };
    Way { limits: LOCAL_LIMITS, ask: Arc::new(ask) }
}

/// `known` is what the table has of the model.
pub fn check(name: &Name, request: &EmbedRequest, known: Option<&Listed>) -> Result<(), Error> {
    let Some(wanted) = request.dimensions else { return Ok(()) };
    let own = known.map_or(0, |known| known.dimensions);
    let model = name.full();
    if RIGID.contains(&name.id.as_str()) && wanted != own {
        let message = format!("{model} has a length of its own and cannot shorten");
        return Err(Error::invalid("dimensions", message));
    }
    if own > 0 && wanted > own {
        let message = format!("must be at most {own} for {model}, is {wanted}");
        return Err(Error::invalid("dimensions", message));
    }
    Ok(())
}

/// The answer, or why it is none.
pub fn settle(
    name: &Name,
    dimensions: Option<i32>,
    known: Option<&Listed>,
    mut embeddings: Vec<Embedding>,
) -> Result<Vec<Embedding>, Error> {
    let own = known.map(|known| known.dimensions).filter(|own| *own > 0);
    let wanted = dimensions.or(own).and_then(|wanted| usize::try_from(wanted).ok());
    let lengths = embeddings.iter().map(|embedding| embedding.values.len());
    if let Some((wanted, found)) = wanted
        .and_then(|wanted| Some((wanted, lengths.into_iter().find(|found| *found != wanted)?)))
    {
        let message = format!("{} gave vectors of {found} numbers, not {wanted}", name.id);
        return Err(Error::provider(&name.provider, Failure::Malformed, message));
    }
    if UNIT.iter().any(|begin| name.id.starts_with(begin)) {
        embeddings.iter_mut().for_each(|embedding| normalise(&mut embedding.values));
    }
    Ok(embeddings)
}

fn normalise(values: &mut [f32]) {
    let square: f64 = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let length = square.sqrt();
    if length > 0.0 && (length - 1.0).abs() > OFF {
        for value in values {
            #[expect(clippy::cast_possible_truncation, reason = "embeddings are 32-bit floats")]
            let unit = (f64::from(*value) / length) as f32;
            *value = unit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::Prices;
    use mesh::error::ServiceError as _;

    fn name(id: &str) -> Name {
        Name { provider: "openai".into(), id: id.to_owned() }
    }

    fn asked(dimensions: i32) -> EmbedRequest {
        EmbedRequest { dimensions: Some(dimensions), ..EmbedRequest::default() }
    }

    #[test]
    fn a_length_that_the_model_does_not_have_is_refused() {
        let prices = Prices::built_in().unwrap();
        let small = name("text-embedding-3-small");
        let known = prices.find(&small.full());
        assert!(check(&small, &asked(512), known).is_ok());
        assert!(check(&small, &asked(1536), known).is_ok());
        let error = check(&small, &asked(1537), known).unwrap_err();
        assert_eq!(error.field(), Some("dimensions"));
        assert!(error.to_string().contains("1536"), "{error}");
        assert!(check(&name("text-embedding-ada-002"), &asked(512), None).is_err());
        assert!(check(&name("anybodys"), &asked(7), None).is_ok(), "the provider knows");
    }

    #[test]
    fn a_length_that_nobody_asked_for_is_the_providers_error() {
        let prices = Prices::built_in().unwrap();
        let small = name("text-embedding-3-small");
        let known = prices.find(&small.full());
        let vector = |length: usize| vec![Embedding { values: vec![0.5; length] }];
        let told = |dimensions, length| {
            settle(&small, dimensions, known, vector(length)).map_err(|error| error.to_string())
        };
        assert!(told(None, 1536).is_ok() && told(Some(8), 8).is_ok());
        let error = settle(&small, Some(8), known, vector(9)).unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Malformed));
        assert!(error.to_string().contains('8') && error.to_string().contains('9'), "{error}");
        assert!(told(None, 8).is_err());
        assert!(settle(&name("anybodys"), None, None, vector(3)).is_ok());
    }

    #[test]
    fn shortened_vectors_have_length_one_again() {
        let settled = |id: &str, values: [f32; 2]| {
            let vectors = vec![Embedding { values: values.to_vec() }];
            settle(&name(id), Some(2), None, vectors).unwrap().remove(0).values
        };
        assert_eq!(settled("gemini-embedding-001", [3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(settled("gemini-embedding-001", [0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(settled("gemini-embedding-001", [1.0, 0.0001]), [1.0, 0.0001]);
        assert_eq!(settled("anybodys", [3.0, 4.0]), [3.0, 4.0]);
    }
}
