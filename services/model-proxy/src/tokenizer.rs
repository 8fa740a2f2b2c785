//! Tokens as a model's own vocabulary cuts them.
//!
//! A vocabulary is some 46 MB once it is loaded, and a proxy whose providers
//! all say what was used never needs one: it is loaded when first asked for, by
//! a thread where nobody waits, and let go when nobody has asked for a while.
//!
//! Invariant: nobody waits longer than three seconds; then there is no count.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tiktoken_rs::CoreBPE;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

/// Loading takes 0.2 s on a machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a vocabulary is kept after it was last needed.
const KEPT: Duration = Duration::from_secs(300);
/// Counts at a time: a thousand callers that leave at once share them.
static THREADS: Semaphore = Semaphore::const_new(2);

/// The vocabularies that are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
    /// Everything since; the nearest for models that keep theirs to themselves.
    O200k,
}

impl Vocabulary {
    /// `model` is a provider's id.
    pub fn of(model: &str) -> Self {
        let id = model.rsplit('/').next().unwrap_or(model);
        let old = ["gpt-3.5", "gpt-35", "text-embedding-"].iter().any(|name| id.starts_with(name));
        let older = id == "gpt-4" || id.starts_with("gpt-4-");
        if old || older { Self::Cl100k } else { Self::O200k }
    }

    fn load(self) -> Option<CoreBPE> {
        match self {
            Self::Cl100k => tiktoken_rs::cl100k_base().ok(),
            Self::O200k => tiktoken_rs::o200k_base().ok(),
        }
    }
}

struct Loaded {
    vocabulary: Vocabulary,
    tokens: Arc<CoreBPE>,
    used: Instant,
}

static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// How many tokens each text is; `None` when that took too long.
pub async fn count(vocabulary: Vocabulary, texts: Vec<String>) -> Option<Vec<i64>> {
    let counted = timeout(PATIENCE, async {
        let _turn = THREADS.acquire().await.ok()?;
        let work = move || {
            let tokens = tokens(vocabulary)?;
            let count = |text: &String| i64::try_from(tokens.encode_ordinary(text).len()).ok();
            texts.iter().map(count).collect::<Option<Vec<_>>>()
        };
        tokio::task::spawn_blocking(work).await.ok()?
    });
    counted.await.ok()?
}

fn tokens(vocabulary: Vocabulary) -> Option<Arc<CoreBPE>> {
    // Held while it is read: who comes second finds it there.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let used = Instant::now();
    if let Some(known) = loaded.iter_mut().find(|known| known.vocabulary == vocabulary) {
        known.used = used;
        return Some(Arc::clone(&known.tokens));
    }
    let tokens = Arc::new(vocabulary.load()?);
    loaded.push(Loaded { vocabulary, tokens: Arc::clone(&tokens), used });
    if loaded.len() == 1 {
        tokio::spawn(let_go());
    }
    Some(tokens)
}

/// Ends with the last vocabulary.
async fn let_go() {
    loop {
        sleep(KEPT / 5).await;
        // Somebody is loading one: that is no moment to wait for here.
        let Ok(mut loaded) = LOADED.try_lock() else { continue };
        loaded.retain(|known| known.used.elapsed() < KEPT);
        if loaded.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_own_vocabulary_or_the_nearest() {
        for id in ["gpt-4", "gpt-4-0613", "gpt-3.5-turbo", "text-embedding-3-small"] {
            assert_eq!(Vocabulary::of(id), Vocabulary::Cl100k, "{id}");
        }
        for id in ["gpt-4o", "gpt-4.1-mini", "o3", "claude-opus-4-8", "openai/gpt-oss-20b"] {
            assert_eq!(Vocabulary::of(id), Vocabulary::O200k, "{id}");
        }
    }

    #[tokio::test]
    async fn text_is_cut_as_the_model_cuts_it() {
        let texts = vec!["tiktoken is great!".to_owned(), String::new()];
        assert_eq!(count(Vocabulary::Cl100k, texts.clone()).await, Some(vec![6, 0]));
        assert_eq!(count(Vocabulary::O200k, texts).await, Some(vec![6, 0]));
    }
}
