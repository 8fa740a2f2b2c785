//! The threads that compute, one a model, and the way to them.
//!
//! Invariants:
//! - A model is loaded once, on its own thread; `minilm` when the process
//!   starts, because retrieval waits for it, `smollm2` when first called.
//! - A load that fails is said to every caller, and tried again.

use super::{
    extractive,
    minilm::{self, Minilm},
    queue::Queue,
    smollm2::{self, Smollm2},
};
use crate::{call::Events, config::LocalSettings, error::Error, provider::Event};
use futures_util::stream;
use skein_proto::model::v1::{
    Capability, EmbedPurpose, EmbedRequest, Embedding, GenerateRequest, Model, ModelHealth, Price,
    Usage, embed_input::Input,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

pub const PROVIDER: &str = "local";
pub const EXTRACTIVE: &str = "extractive";
pub const MINILM: &str = "minilm";
pub const SMOLLM2: &str = "smollm2-135m";
/// How long an answer waits for similarities before it does without.
const QUICK: Duration = Duration::from_millis(400);
const REST: Duration = Duration::from_secs(15);

pub struct Engine {
    folder: PathBuf,
    minilm: Arc<Queue<minilm::Job>>,
    smollm2: Arc<Queue<smollm2::Job>>,
    minilm_loaded: Arc<AtomicBool>,
    /// After a comparison that was too slow, answers do without for a while.
    no_comparison_until: Mutex<Option<Instant>>,
    /// Extracts that compute at a time.
    extracting: Semaphore,
}

impl Engine {
    pub fn start(settings: &LocalSettings) -> Result<Self, Error> {
        // A second engine of one process (tests) shares the first one's threads.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).build_global();
        let engine = Self {
            folder: settings.models.clone(),
            minilm: Arc::new(Queue::new(settings.queue)),
            smollm2: Arc::new(Queue::new(settings.queue)),
            minilm_loaded: Arc::default(),
            no_comparison_until: Mutex::default(),
            extracting: Semaphore::new(settings.threads.max(1)),
        };
        engine.spawn_minilm()?;
        engine.spawn_smollm2()?;
        Ok(engine)
    }

    fn spawn_minilm(&self) -> Result<(), Error> {
        let (queue, loaded) = (Arc::clone(&self.minilm), Arc::clone(&self.minilm_loaded));
        let (folder, here) = (self.folder.join(MINILM), self.has(MINILM));
        spawn(MINILM, move || {
            let mut model = here.then(|| Minilm::load(&folder).ok()).flatten();
            loaded.store(model.is_some(), Ordering::Release);
            while let Some(job) = queue.pop() {
                match ready(&mut model, || Minilm::load(&folder)) {
                    Ok(model) => {
                        loaded.store(true, Ordering::Release);
                        model.serve(job, &queue);
                    }
                    Err(error) => drop(job.reply.send(Err(error))),
                }
            }
        })
    }

    fn spawn_smollm2(&self) -> Result<(), Error> {
        let queue = Arc::clone(&self.smollm2);
        let folder = self.folder.join("smollm2");
        spawn(SMOLLM2, move || {
            let mut model = None;
            while let Some(job) = queue.pop() {
                match ready(&mut model, || Smollm2::load(&folder)) {
                    Ok(model) => model.serve(&job),
                    Err(error) => drop(job.events.blocking_send(Err(error))),
                }
            }
        })
    }

    fn has(&self, model: &str) -> bool {
        let all =
            |folder: &Path, files: &[&str]| files.iter().all(|file| folder.join(file).is_file());
        match model {
            EXTRACTIVE => true,
            MINILM => all(&self.folder.join("minilm"), &minilm::FILES),
            SMOLLM2 => all(&self.folder.join("smollm2"), &[smollm2::FILE]),
            _ => false,
        }
    }

    fn demand(&self, model: &str) -> Result<(), Error> {
        if self.has(model) {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(Error::NotInstalled(format!(
            "the files of local/{model} are not in {folder}: run `make models`, or set SKEIN_LOCAL__MODELS"
        )))
    }

    pub async fn generate(&self, model: &str, request: GenerateRequest) -> Result<Events, Error> {
        if model == EXTRACTIVE {
            let events = self.extract(request).await?;
            return Ok(Box::pin(stream::iter(events.into_iter().map(Ok))));
        }
        self.demand(model)?;
        // Few, so that a slow reader slows the model and not the memory.
        let (events, mut receiver) = mpsc::channel(8);
        self.smollm2.push(smollm2::Job { request, events }, false)?;
        let first = receiver.recv().await;
        let first =
            first.unwrap_or_else(|| Err(Error::Local("its thread has ended".to_owned())))?;
        let rest = stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        Ok(Box::pin(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest)))
    }

    async fn extract(&self, request: GenerateRequest) -> Result<Vec<Event>, Error> {
        let _turn = self.extracting.acquire().await;
        let request = Arc::new(request);
        let read = Arc::clone(&request);
        let search = compute(move || extractive::Search::new(read)).await?;
        let similarity = match search.shortlist() {
            Some((question, texts)) => self.similarity(question, &texts).await,
            None => Vec::new(),
        };
        compute(move || extractive::events(&request, &search.choose(&similarity))).await
    }

    /// Empty when the model is away, busy or slow: it only refines.
    async fn similarity(&self, question: &str, texts: &[(usize, &str)]) -> Vec<(usize, f32)> {
        let resting = (*self.rest()).is_some_and(|until| Instant::now() < until);
        if resting || !self.minilm_loaded.load(Ordering::Acquire) {
            return Vec::new();
        }
        let all = std::iter::once(question).chain(texts.iter().map(|(_, text)| *text));
        let inputs = all.map(|text| minilm::Input::Text(text.to_owned())).collect();
        let compared = tokio::time::timeout(QUICK, self.embed(inputs, true)).await;
        if compared.is_err() {
            *self.rest() = Some(Instant::now() + REST);
        }
        let Ok(Ok(output)) = compared else {
            return Vec::new();
        };
        let Some((question, vectors)) = output.vectors.split_first() else { return Vec::new() };
        let near = |vector: &Vec<f32>| vector.iter().zip(question).map(|(a, b)| a * b).sum();
        texts.iter().map(|(at, _)| *at).zip(vectors.iter().map(near)).collect()
    }

    fn rest(&self) -> MutexGuard<'_, Option<Instant>> {
        self.no_comparison_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn embed(
        &self,
        inputs: Vec<minilm::Input>,
        urgent: bool,
    ) -> Result<minilm::Output, Error> {
        self.demand(MINILM)?;
        let (reply, answer) = oneshot::channel();
        self.minilm.push(minilm::Job { inputs, reply }, urgent)?;
        answer.await.unwrap_or_else(|_| Err(Error::Local("its thread has ended".to_owned())))
    }

    pub async fn embed_request(
        &self,
        request: EmbedRequest,
    ) -> Result<(Vec<Embedding>, Usage), Error> {
        let fits = i32::try_from(minilm::DIMENSIONS).unwrap_or(i32::MAX);
        if request.dimensions.is_some_and(|wanted| wanted != fits) {
            return Err(Error::invalid(
                "dimensions",
                format!("local/minilm has {fits} and cannot shorten"),
            ));
        }
        let urgent = request.purpose() == EmbedPurpose::Query;
        let inputs = request.inputs.into_iter().map(|input| match input.input {
            Some(Input::Text(text)) => minilm::Input::Text(text),
            Some(Input::Tokens(tokens)) => minilm::Input::Tokens(tokens.ids),
            None => minilm::Input::Text(String::new()),
        });
        let output = self.embed(inputs.collect(), urgent).await?;
        let embeddings = output.vectors.into_iter().map(|values| Embedding { values }).collect();
        Ok((embeddings, Usage { input_uncached: output.tokens, ..Usage::default() }))
    }

    pub fn list(&self) -> Vec<Model> {
        let free = Price { input: Some(0), output: Some(0), ..Price::default() };
        let model = |name: &str, capability: Capability| Model {
            id: format!("{PROVIDER}/{name}"),
            provider: PROVIDER.to_owned(),
            capabilities: vec![capability.into()],
            price: Some(free.clone()),
            health: ModelHealth::Up.into(),
            ..Model::default()
        };
        let tokens = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let models = [
            model(EXTRACTIVE, Capability::Chat),
            Model {
                context_window: tokens(minilm::MAX_TOKENS),
                dimensions: i32::try_from(minilm::DIMENSIONS).unwrap_or(i32::MAX),
                ..model(MINILM, Capability::Embed)
            },
            Model {
                context_window: tokens(smollm2::MAX_PROMPT),
                max_output: smollm2::MAX_OUTPUT,
                ..model(SMOLLM2, Capability::Chat)
            },
        ];
        let here = |model: &Model| self.has(model.id.strip_prefix("local/").unwrap_or_default());
        models.into_iter().filter(here).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.minilm.close();
        self.smollm2.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| Error::Local(format!("start thread: {error}")))
}

/// Runs what takes long on a thread where nobody else waits.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Local(format!("compute an answer: {error}")))
}

fn ready<M>(
    model: &mut Option<M>,
    load: impl FnOnce() -> Result<M, Error>,
) -> Result<&mut M, Error> {
    match model {
        Some(model) => Ok(model),
        empty => Ok(empty.insert(load()?)),
    }
}
