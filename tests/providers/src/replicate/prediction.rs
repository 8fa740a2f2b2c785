//! One prediction: what it will do, and how far it is at a moment.
//!
//! Invariants:
//! - What is seen depends on the moment alone: asking does not change it.
//! - A prediction that ended stays as it ended; success wins over a later cancel.

use super::catalog::Kind;
use crate::{images, reply::Say, words};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct Prediction {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) input: Value,
    pub(super) kind: Kind,
    pub(super) work: Work,
    pub(super) created: Duration,
    /// From `Cancel-After`.
    pub(super) deadline: Option<Duration>,
    pub(super) canceled: Option<Duration>,
}

/// What somebody wants made.
pub(super) struct Order<'a> {
    pub(super) model: &'a str,
    pub(super) input: &'a Value,
    pub(super) say: &'a Say,
    /// Where pictures are served.
    pub(super) origin: &'a str,
    pub(super) cancel_after: Option<Duration>,
}

/// What the model does with its input.
pub(super) struct Work {
    /// Between creation and start.
    boot: Duration,
    /// Between two pieces, and before the first.
    pace: Duration,
    pieces: Vec<String>,
    /// Words without end.
    endless: bool,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    Processing,
    Succeeded,
    Failed,
    Canceled,
    /// The deadline passed before it began.
    Aborted,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Aborted => "aborted",
        }
    }

    pub(super) fn is_final(self) -> bool {
        !matches!(self, Self::Starting | Self::Processing)
    }
}

/// How far a prediction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) pieces: usize,
    pub(super) started: Option<Duration>,
    pub(super) completed: Option<Duration>,
}

impl Work {
    /// `boot-<ms>` and `run-<ms>` at the end of a model's name set its times,
    /// `fails` its end.
    pub(super) fn new(order: &Order<'_>, kind: Kind) -> Self {
        let Order { model, input, say, origin, .. } = order;
        let name = model.rsplit('/').next().unwrap_or(model);
        let number = |prefix: &str| {
            let number = name.strip_prefix(prefix).and_then(|number| number.parse().ok());
            number.map(Duration::from_millis)
        };
        let prompt = prompt(input);
        let pieces = match kind {
            Kind::Chat => {
                let said = say.text.clone().unwrap_or_else(|| format!("You said: {prompt}"));
                said.split_inclusive(' ').map(str::to_owned).collect()
            }
            Kind::Image | Kind::Images => {
                let count = input["num_outputs"].as_u64().filter(|_| kind == Kind::Images);
                let count = usize::try_from(count.unwrap_or(1)).unwrap_or(1);
                let side =
                    |name: &str| input[name].as_u64().and_then(|side| u32::try_from(side).ok());
                let size = (side("width").unwrap_or(1024), side("height").unwrap_or(1024));
                let url = |at| format!("{origin}/_pictures/{}", images::name(&prompt, at, size));
                (0..count).map(url).collect::<Vec<String>>()
            }
        };
        let run = number("run-");
        let count = u32::try_from(pieces.len()).unwrap_or(1).max(1);
        let pace = run.map_or(Duration::from_millis(5), |run| run / count);
        let fails = name == "fails" || say.finish.as_deref() == Some("failed");
        Self {
            boot: number("boot-").unwrap_or(Duration::from_millis(5)),
            pace: say.endless.unwrap_or(pace),
            pieces,
            endless: say.endless.is_some(),
            error: fails.then(|| "CUDA out of memory".to_owned()),
        }
    }
}

fn prompt(input: &Value) -> String {
    match input["prompt"].as_str() {
        Some(prompt) => prompt.to_owned(),
        None => words::messages(input)
            .last()
            .map(|message| words::text(&message["content"]))
            .unwrap_or_default(),
    }
}

impl Prediction {
    fn start(&self) -> Duration {
        self.created + self.work.boot
    }

    /// When it ends if nobody stops it.
    fn end(&self) -> Option<Duration> {
        let count = u32::try_from(self.work.pieces.len()).unwrap_or(u32::MAX).max(1);
        (!self.work.endless).then(|| self.start() + self.work.pace * count)
    }

    /// Pieces made by `moment`; one that fails stops before its last.
    fn made(&self, moment: Duration) -> usize {
        let since = moment.saturating_sub(self.start()).as_nanos();
        let made = since / self.work.pace.as_nanos().max(1);
        let made = usize::try_from(made).unwrap_or(usize::MAX);
        let most = match (self.work.endless, &self.work.error) {
            (true, _) => usize::MAX,
            (false, None) => self.work.pieces.len(),
            (false, Some(_)) => self.work.pieces.len() - 1,
        };
        made.min(most)
    }

    pub(super) fn seen(&self, now: Duration) -> Seen {
        let (start, end) = (self.start(), self.end());
        let stop = [self.canceled, self.deadline].into_iter().flatten().min();
        let stop = stop.filter(|stop| end.is_none_or(|end| *stop < end) && *stop <= now);
        let until = stop.unwrap_or(now);
        let started = (until >= start).then_some(start);
        let (status, completed) = match (stop, end) {
            (Some(stop), _) if started.is_none() && self.canceled != Some(stop) => {
                (Status::Aborted, Some(stop))
            }
            (Some(stop), _) => (Status::Canceled, Some(stop)),
            (None, Some(end)) if now >= end && self.work.error.is_some() => {
                (Status::Failed, Some(end))
            }
            (None, Some(end)) if now >= end => (Status::Succeeded, Some(end)),
            (None, _) if started.is_some() => (Status::Processing, None),
            (None, _) => (Status::Starting, None),
        };
        Seen { status, pieces: self.made(until), started, completed }
    }

    /// The next moment at which more is to be seen; `None`: it has ended.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let seen = self.seen(now);
        if seen.status.is_final() {
            return None;
        }
        let piece = u32::try_from(seen.pieces).unwrap_or(u32::MAX).saturating_add(1);
        let candidates = [
            Some(self.start()),
            Some(self.start() + self.work.pace * piece),
            self.end(),
            self.deadline,
        ];
        candidates.into_iter().flatten().filter(|moment| *moment > now).min()
    }

    pub(super) fn piece(&self, at: usize) -> String {
        match self.work.pieces.get(at).filter(|_| !self.work.endless) {
            Some(piece) => piece.clone(),
            None => format!("word{at} "),
        }
    }

    pub(super) fn output(&self, seen: Seen) -> Value {
        let pieces = || (0..seen.pieces).map(|at| self.piece(at)).collect::<Vec<_>>();
        match self.kind {
            Kind::Chat if seen.pieces > 0 => json!(pieces()),
            Kind::Images if seen.status == Status::Succeeded => json!(pieces()),
            Kind::Image if seen.status == Status::Succeeded => json!(self.piece(0)),
            _ => Value::Null,
        }
    }

    pub(super) fn error(&self, seen: Seen) -> Option<&str> {
        self.work.error.as_deref().filter(|_| seen.status == Status::Failed)
    }

    /// Empty until it began: what never ran is not billed.
    pub(super) fn metrics(&self, seen: Seen) -> Value {
        let (Some(started), Some(completed)) = (seen.started, seen.completed) else {
            return json!({});
        };
        let seconds = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e6;
        let mut metrics = json!({
            "predict_time": seconds(completed - started),
            "total_time": seconds(completed - self.created),
        });
        match self.kind {
            Kind::Chat => {
                metrics["input_token_count"] = json!(words::count(&prompt(&self.input)));
                metrics["output_token_count"] = json!(seen.pieces);
            }
            Kind::Image | Kind::Images => metrics["image_count"] = json!(seen.pieces),
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(model: &str) -> Prediction {
        let input = json!({"prompt": "x"});
        let say = Say::default();
        let order = Order { model, input: &input, say: &say, origin: "", cancel_after: None };
        let work = Work::new(&order, Kind::Chat);
        Prediction {
            id: "p".into(),
            model: model.into(),
            input,
            kind: Kind::Chat,
            work,
            created: Duration::from_millis(100),
            deadline: None,
            canceled: None,
        }
    }

    fn at(prediction: &Prediction, ms: u64) -> (Status, usize) {
        let seen = prediction.seen(Duration::from_millis(ms));
        (seen.status, seen.pieces)
    }

    #[test]
    fn time_alone_moves_it() {
        // "You said: x": three pieces, 10 ms each, after 5 ms.
        let mut it = prediction("a/run-30");
        assert_eq!(at(&it, 104), (Status::Starting, 0));
        assert_eq!(at(&it, 105), (Status::Processing, 0));
        assert_eq!(at(&it, 126), (Status::Processing, 2));
        assert_eq!(at(&it, 135), (Status::Succeeded, 3));
        assert_eq!(it.next(Duration::from_millis(116)), Some(Duration::from_millis(125)));
        it.canceled = Some(Duration::from_millis(135));
        assert_eq!(at(&it, 200), (Status::Succeeded, 3));
        it.canceled = Some(Duration::from_millis(126));
        assert_eq!(at(&it, 120), (Status::Processing, 1));
        assert_eq!(at(&it, 200), (Status::Canceled, 2));
        assert_eq!(it.next(Duration::from_millis(200)), None);
    }

    #[test]
    fn a_deadline_aborts_what_has_not_begun_and_cancels_what_has() {
        let mut it = prediction("a/boot-50");
        it.deadline = Some(Duration::from_millis(120));
        assert_eq!(at(&it, 119), (Status::Starting, 0));
        assert_eq!(at(&it, 120), (Status::Aborted, 0));
        assert_eq!(it.metrics(it.seen(Duration::from_secs(1))), json!({}));
        it.deadline = Some(Duration::from_millis(155));
        assert_eq!(at(&it, 300), (Status::Canceled, 1));
        let failing = prediction("a/fails");
        assert_eq!(at(&failing, 300), (Status::Failed, 2));
    }
}
