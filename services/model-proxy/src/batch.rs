//! Embeddings asked for by several callers within a few milliseconds, in one
//! call.
//!
//! Invariants:
//! - Each caller gets the vectors of his own inputs in their order, and his
//!   share of the tokens; the shares sum to what the provider counted.
//! - A caller alone does not wait: who finds nothing under way goes at once, and
//!   only those who come meanwhile are gathered, for `embed.batch_wait`.
//! - A caller who leaves before the call takes his inputs with him; the call
//!   ends when nobody waits for it any more.
//! - What a provider refuses for its content or answers at too great a length is
//!   asked again in halves, so that one bad input is one caller's error.
//!
//! Only what differs in nothing but its inputs is gathered: same model, length,
//! purpose and fields of the caller's own. Callers of different tenants share
//! calls: embeddings have no memory, the provider sees one key of ours either
//! way, and vectors are told apart by their places.

use crate::{
    error::{Error, Failure},
    estimate,
    upstream::{Inside, Upstream},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, join, try_join_all},
};
use skein_proto::model::v1::{EmbedInput, EmbedRequest, Embedding, Usage};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// Vectors, and what they cost where that was said.
pub type Answer = Result<(Vec<Embedding>, Option<Usage>), Error>;
/// Makes one call, which is noted in the book of this one of its callers.
pub type Ask = Arc<dyn Fn(EmbedRequest, Arc<Upstream>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// How calls are made, and how large they may be.
pub struct Way {
    pub limits: Limits,
    pub ask: Ask,
}

/// The most that goes into one call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub inputs: usize,
    /// As estimated.
    pub tokens: i64,
}

pub struct Batches {
    wait: Duration,
    slots: Mutex<HashMap<Key, Slot>>,
}

/// What everything in one call has in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// `<provider>/<id>`.
    model: String,
    dimensions: Option<i32>,
    purpose: i32,
    extra_json: String,
}

#[derive(Default)]
struct Slot {
    /// Takes more callers.
    open: Option<Arc<Batch>>,
    /// Calls gathered or made.
    under_way: usize,
}

/// Runs while anybody holds it, whoever of them looks after it.
type Call = Shared<BoxFuture<'static, ()>>;

struct Batch {
    state: Mutex<State>,
    full: Notify,
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    results: BTreeMap<usize, Answer>,
    /// How many have come, gone ones too: the next one's number.
    next: usize,
    /// Weak, because the call holds the batch.
    call: Option<WeakShared<BoxFuture<'static, ()>>>,
}

struct Part {
    number: usize,
    inputs: Vec<EmbedInput>,
    tokens: i64,
    upstream: Arc<Upstream>,
}

impl Batches {
    /// With a `wait` of zero nothing is gathered.
    pub fn new(wait: Duration) -> Arc<Self> {
        Arc::new(Self { wait, slots: Mutex::default() })
    }

    /// `model` is its full name; a request that is larger than one call may be
    /// is made of several.
    pub async fn embed(
        self: &Arc<Self>,
        model: &str,
        request: EmbedRequest,
        upstream: &Arc<Upstream>,
        way: &Way,
    ) -> Answer {
        let key = Key {
            model: model.to_owned(),
            dimensions: request.dimensions,
            purpose: request.purpose,
            extra_json: request.extra_json.clone(),
        };
        let mut frame = request;
        let pieces = divide(std::mem::take(&mut frame.inputs), way.limits);
        let part = |inputs| Part::new(inputs, Arc::clone(upstream));
        let made = pieces.into_iter().map(|inputs| self.part(&key, &frame, part(inputs), way));
        let (mut embeddings, mut sum) = (Vec::new(), Some(Usage::default()));
        for (vectors, usage) in try_join_all(made).await? {
            embeddings.extend(vectors);
            sum = sum.zip(usage).map(|(sum, usage)| add(sum, usage));
        }
        Ok((embeddings, sum))
    }

    async fn part(
        self: &Arc<Self>,
        key: &Key,
        frame: &EmbedRequest,
        part: Part,
        way: &Way,
    ) -> Answer {
        let (batch, number, call) = self.join(key, frame, part, way);
        let _leaving = Leaving { batch: Arc::clone(&batch), number };
        call.await;
        let result = batch.lock().results.remove(&number);
        result.unwrap_or_else(|| Err(Error::Local("a call lost one of its callers".to_owned())))
    }

    /// Puts inputs into the call that is being gathered, or begins one.
    fn join(
        self: &Arc<Self>,
        key: &Key,
        frame: &EmbedRequest,
        mut part: Part,
        way: &Way,
    ) -> (Arc<Batch>, usize, Call) {
        let mut slots = self.lock();
        let slot = slots.entry(key.clone()).or_default();
        if let Some(batch) = slot.open.take() {
            match batch.add(part, way.limits) {
                Ok((number, call)) => {
                    slot.open = Some(Arc::clone(&batch));
                    return (batch, number, call);
                }
                Err(too_much) => part = too_much,
            }
            batch.full.notify_one();
        }
        // Whoever is alone has nobody to wait for.
        let alone = slot.under_way == 0 || self.wait.is_zero();
        slot.under_way += 1;
        let batch = Arc::new(Batch { state: Mutex::default(), full: Notify::new() });
        let under_way =
            UnderWay { batches: Arc::clone(self), key: key.clone(), batch: Arc::clone(&batch) };
        let wait = if alone { Duration::ZERO } else { self.wait };
        let call = run(under_way, wait, frame.clone(), Arc::clone(&way.ask)).boxed().shared();
        if !alone {
            slot.open = Some(Arc::clone(&batch));
        }
        let number = batch.begin(part, &call);
        (batch, number, call)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn new(inputs: Vec<EmbedInput>, upstream: Arc<Upstream>) -> Self {
        let tokens = inputs.iter().map(estimate::input).sum();
        Self { number: 0, inputs, tokens, upstream }
    }
}

impl Batch {
    fn begin(&self, part: Part, call: &Call) -> usize {
        let mut state = self.lock();
        state.call = call.downgrade();
        state.add(part)
    }

    /// Gives the part back if it does not fit, or if everybody has gone.
    fn add(&self, part: Part, limits: Limits) -> Result<(usize, Call), Part> {
        let mut state = self.lock();
        let inputs = state.parts.iter().map(|part| part.inputs.len()).sum::<usize>();
        let tokens = state.parts.iter().map(|part| part.tokens).sum::<i64>();
        let fits = inputs + part.inputs.len() <= limits.inputs
            && tokens.saturating_add(part.tokens) <= limits.tokens;
        match state.call.as_ref().filter(|_| fits).and_then(WeakShared::upgrade) {
            Some(call) => Ok((state.add(part), call)),
            None => Err(part),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, part: Part) -> usize {
        let number = self.next;
        self.next += 1;
        self.parts.push(Part { number, ..part });
        number
    }
}

/// One caller's wait: what he asked goes with him.
struct Leaving {
    batch: Arc<Batch>,
    number: usize,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.batch.lock().parts.retain(|part| part.number != self.number);
    }
}

/// A call from its first caller to its end.
struct UnderWay {
    batches: Arc<Batches>,
    key: Key,
    batch: Arc<Batch>,
}

impl UnderWay {
    /// Nobody comes after this.
    fn take(&self) -> Vec<Part> {
        if let Some(slot) = self.batches.lock().get_mut(&self.key) {
            slot.open.take_if(|open| Arc::ptr_eq(open, &self.batch));
        }
        std::mem::take(&mut self.batch.lock().parts)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut slots = self.batches.lock();
        let Some(slot) = slots.get_mut(&self.key) else { return };
        slot.open.take_if(|open| Arc::ptr_eq(open, &self.batch));
        slot.under_way -= 1;
        if slot.under_way == 0 {
            slots.remove(&self.key);
        }
    }
}

async fn run(under_way: UnderWay, wait: Duration, frame: EmbedRequest, ask: Ask) {
    if !wait.is_zero() {
        // Full, or time is up: either way it goes now.
        let _ = timeout(wait, under_way.batch.full.notified()).await;
    }
    let parts = under_way.take();
    if !parts.is_empty() {
        let results = answers(frame, parts, ask).await;
        under_way.batch.lock().results.extend(results);
    }
}

/// Makes the call, and smaller ones where one input spoils it for the others.
fn answers(
    frame: EmbedRequest,
    mut parts: Vec<Part>,
    ask: Ask,
) -> BoxFuture<'static, Vec<(usize, Answer)>> {
    let inputs = parts.iter().flat_map(|part| part.inputs.iter().cloned()).collect();
    let request = EmbedRequest { inputs, ..frame.clone() };
    async move {
        let Some((first, others)) = parts.split_first() else { return Vec::new() };
        let call = ask(request, Arc::clone(&first.upstream));
        // In the others' books the call is as long as for them it is.
        let inside: Vec<Inside> = others.iter().map(|part| part.upstream.enter(None)).collect();
        let answer = call.await;
        drop(inside);
        match answer {
            Ok((embeddings, usage)) => shares(parts, embeddings, usage),
            Err(error) if parts.len() > 1 && of_an_input(&error) => {
                let rest = parts.split_off(parts.len() / 2);
                let first = answers(frame.clone(), parts, Arc::clone(&ask));
                let (mut first, rest) = join(first, answers(frame, rest, ask)).await;
                first.extend(rest);
                first
            }
            Err(error) => parts.iter().map(|part| (part.number, Err(error.clone()))).collect(),
        }
    }
    .boxed()
}

/// Whether another caller's inputs may be the reason.
fn of_an_input(error: &Error) -> bool {
    let reasons = [
        Failure::BadRequest,
        Failure::ContextLength,
        Failure::ContentFilter,
        Failure::TooLarge, // together, perhaps, and not alone
    ];
    matches!(error, Error::Invalid { .. })
        || error.failure().is_some_and(|failure| reasons.contains(&failure))
}

fn shares(
    parts: Vec<Part>,
    embeddings: Vec<Embedding>,
    usage: Option<Usage>,
) -> Vec<(usize, Answer)> {
    let whole: i64 = parts.iter().map(|part| part.tokens).sum();
    let mut embeddings = embeddings.into_iter();
    let mut before = 0;
    let mut one = |part: Part| {
        let vectors = embeddings.by_ref().take(part.inputs.len()).collect();
        let after = before + part.tokens;
        let usage = usage.map(|usage| share(usage, before, after, whole));
        before = after;
        (part.number, Ok((vectors, usage)))
    };
    parts.into_iter().map(&mut one).collect()
}

/// Of `whole`, what lies between two places of it; shares that touch sum up.
fn share(usage: Usage, before: i64, after: i64, whole: i64) -> Usage {
    let part = |count: i64| {
        let up_to = |place: i64| i128::from(count) * i128::from(place) / i128::from(whole.max(1));
        i64::try_from(up_to(after) - up_to(before)).unwrap_or_default()
    };
    Usage {
        input_uncached: part(usage.input_uncached),
        input_cache_read: part(usage.input_cache_read),
        output: part(usage.output),
        ..usage
    }
}

fn add(sum: Usage, one: Usage) -> Usage {
    Usage {
        input_uncached: sum.input_uncached.saturating_add(one.input_uncached),
        input_cache_read: sum.input_cache_read.saturating_add(one.input_cache_read),
        output: sum.output.saturating_add(one.output),
        ..one
    }
}

/// Pieces that each fit into one call; an input is never divided.
fn divide(inputs: Vec<EmbedInput>, limits: Limits) -> Vec<Vec<EmbedInput>> {
    let (mut pieces, mut tokens) = (vec![Vec::new()], 0_i64);
    for input in inputs {
        let more = estimate::input(&input);
        let piece = pieces.last().map_or(0, Vec::len);
        if piece >= limits.inputs || (piece > 0 && tokens.saturating_add(more) > limits.tokens) {
            pieces.push(Vec::new());
            tokens = 0;
        }
        tokens = tokens.saturating_add(more);
        if let Some(piece) = pieces.last_mut() {
            piece.push(input);
        }
    }
    pieces
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
