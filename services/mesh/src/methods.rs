//! What the contract says of each RPC, read from its descriptors.
//!
//! Invariant: there is no list of retryable calls in code; `idempotency_level`
//! in the `.proto` is the only place that says so.

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodOptions, method_options::IdempotencyLevel};
use std::{collections::HashMap, sync::LazyLock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its place among the methods of the contract, below [`count`].
    pub index: usize,
    /// Repeating a call does no more than making it once.
    pub idempotent: bool,
    /// The caller sends a stream, which cannot be sent again.
    pub client_streaming: bool,
    pub server_streaming: bool,
}

impl Method {
    /// Whether a call may be made again although it may have run: one message
    /// each way or a stream that is read again, and running twice is running once.
    pub fn repeatable(self) -> bool {
        self.idempotent && !self.client_streaming
    }
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(skein_proto::DESCRIPTORS).unwrap_or_default();
    let mut methods = HashMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let level = method.options.as_ref().map(MethodOptions::idempotency_level);
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let idempotent = matches!(
                    level,
                    Some(IdempotencyLevel::Idempotent | IdempotencyLevel::NoSideEffects)
                );
                let (client_streaming, server_streaming) =
                    (method.client_streaming(), method.server_streaming());
                let index = methods.len();
                let method = Method { index, idempotent, client_streaming, server_streaming };
                methods.insert(path, method);
            }
        }
    }
    methods
});

/// How many methods the contract has.
pub fn count() -> usize {
    METHODS.len()
}

/// `path` is `/package.Service/Method`.
pub fn method(path: &str) -> Option<Method> {
    METHODS.get(path).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_decides_what_may_be_repeated() {
        let idempotent = |path| method(path).unwrap().idempotent;
        assert!(idempotent("/skein.retrieval.v1.RetrievalService/Search"));
        assert!(idempotent("/skein.agent.v1.AgentService/CreateRun"));
        assert!(!idempotent("/skein.model.v1.ModelService/Generate"));
        assert!(method("/skein.retrieval.v1.RetrievalService/Import").unwrap().client_streaming);
        assert_eq!(method("/no.such/Method"), None);
    }
}
