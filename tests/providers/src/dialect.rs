//! What differs between the providers below their routes: keys, errors, pings,
//! headers of every answer.

use crate::{answer::Answer, anthropic, limits::Left, openai, replicate, reply::Failure};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Replicate,
}

impl Dialect {
    /// The key of a request: Bearer, or Anthropic's or Azure's own header.
    pub(crate) fn key(self, headers: &HeaderMap) -> Option<&str> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = || text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match self {
            Self::Anthropic => text("x-api-key").or_else(bearer),
            Self::OpenAi => bearer().or_else(|| text("api-key")),
            Self::Replicate => bearer(),
        }
    }

    /// What a request asks for; empty where it names no model.
    pub(crate) fn model(self, path: &str, request: &Value) -> String {
        match self {
            Self::OpenAi | Self::Anthropic => {
                let deployment = path.strip_prefix("/openai/deployments/");
                let deployment = deployment.and_then(|rest| rest.split('/').next());
                deployment.or_else(|| request["model"].as_str()).unwrap_or_default().into()
            }
            Self::Replicate => replicate::model(path, request),
        }
    }

    /// The status and body that say so in this dialect.
    pub(crate) fn failure(self, failure: Failure) -> Answer {
        match self {
            Self::OpenAi => openai::errors::failure(failure),
            Self::Anthropic => anthropic::errors::failure(failure),
            Self::Replicate => replicate::errors::failure(failure),
        }
    }

    /// A request that cannot be served, with why.
    pub(crate) fn refused(self, status: u16, why: &str) -> Answer {
        match self {
            Self::OpenAi => openai::errors::refused(status, why),
            Self::Anthropic => anthropic::errors::refused(status, why),
            Self::Replicate => replicate::errors::refused(status, why),
        }
    }

    pub(crate) fn error_event(self) -> Bytes {
        match self {
            Self::OpenAi => openai::errors::event(),
            Self::Anthropic => anthropic::errors::event(),
            Self::Replicate => replicate::errors::event(),
        }
    }

    /// What still comes after an error inside a stream.
    pub(crate) fn done_after_error(self) -> Option<Bytes> {
        match self {
            Self::OpenAi => Some(Bytes::from_static(b"data: [DONE]\n\n")),
            Self::Anthropic => None,
            Self::Replicate => Some(replicate::errors::done()),
        }
    }

    pub(crate) fn ping(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
            Self::OpenAi | Self::Replicate => b": ping\n\n",
        })
    }

    /// The headers of every answer to the n-th request.
    pub(crate) fn headers(self, request: u64, left: Left) -> HeaderMap {
        match self {
            Self::OpenAi => openai::errors::headers(request, left),
            Self::Anthropic => anthropic::errors::headers(request, left),
            Self::Replicate => replicate::errors::headers(left),
        }
    }
}
