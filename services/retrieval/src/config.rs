//! The settings of retrieval.
//!
//! Invariants:
//! - a store that this release cannot serve is refused at start, with what to
//!   write instead.

use crate::knowledge::Limits;
use mesh::config::{Common, ConfigError, Reader, Setting, Size, Sources, Time, key};
use std::time::Duration;

#[derive(Debug)]
pub struct Config {
    pub common: Common,
    pub store_url: String,
    pub limits: Limits,
    /// How long nobody waits for models that have just failed.
    pub embed_pause: Duration,
    /// For collections held in memory.
    pub memory: usize,
}

impl Config {
    pub fn read(sources: &Sources) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut reader = sources.reader();
        let common = Common::read(&mut reader, "retrieval");
        let store_url = store_url(&mut reader, common.as_ref());
        let limits = Limits {
            embedding_model: reader.or(key("retrieval.embedding_model"), "local/minilm".to_owned()),
            embed_wait: reader.or(key("retrieval.embed_wait"), seconds(2)).0,
            query_wait: reader.or(key("retrieval.query_wait"), seconds(5)).0,
            // Small enough that a query's text does not wait long behind one.
            embed_batch: reader.or(key("retrieval.embed_batch"), 16),
        };
        if !(1..=2048).contains(&limits.embed_batch) {
            reader.complain(key("retrieval.embed_batch"), "must be 1 to 2048");
        }
        let embed_pause = reader.or(key("retrieval.embed_pause"), seconds(2)).0;
        let memory = reader.or(key("retrieval.memory"), Size(512 * 1024 * 1024)).0;
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        reader.finish(|| {
            Some(Self { common: common?, store_url: store_url?, limits, embed_pause, memory })
        })
    }
}

const fn seconds(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

fn store_url(reader: &mut Reader<'_>, common: Option<&Common>) -> Option<String> {
    let setting = key("database.vector_url").env("VECTOR_DB_URL");
    let url: Option<String> = reader.optional(setting);
    if url.as_ref().is_some_and(|url| !url.starts_with("sqlite:")) {
        reader
            .complain(setting, "only sqlite:<path> is served yet; leave it unset for the default");
        return None;
    }
    common?
        .state_url(url, "VECTOR_DB_URL")
        .map_err(|message| reader.complain(setting, message))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_yet_is_refused_by_name() {
        for url in ["postgres://u:p@h/d", "pinecone://index", "redis://x"] {
            let mesh = [("SKEIN_MESH_KEY", "k"), ("SKEIN_MESH_PEERS", "p")];
            let set: Vec<_> = mesh.into_iter().chain([("VECTOR_DB_URL", url)]).collect();
            let error = Config::read(&Sources::of(&set)).unwrap_err();
            assert!(
                matches!(error.0.as_slice(), [one] if one.starts_with("VECTOR_DB_URL: only sqlite"))
            );
        }
    }
}
