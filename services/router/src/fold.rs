//! What the events of a run add up to; pure.
//!
//! Invariants:
//! - a run is what its events say: the same events give the same run;
//! - costs add only when every part is known: unknown is never zero.

use skein_proto::agent::v1::run_event::Body;
use skein_proto::agent::v1::{Run, RunEvent, RunStatus, StatusChanged};
use skein_proto::model::v1::{Cost, Usage, delta::Piece};

pub fn new_run(id: &str, thread_id: String) -> Run {
    Run {
        id: id.to_owned(),
        thread_id,
        status: RunStatus::Queued.into(),
        attempt: 1,
        ..Run::default()
    }
}

pub const fn is_over(status: RunStatus) -> bool {
    matches!(status, RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled)
}

fn status(run: &mut Run, changed: &StatusChanged) {
    run.status = changed.status;
    run.error.clone_from(&changed.error);
    without(run, &changed.degraded);
    if let Some(path) = &changed.path {
        run.path.insert(0, path.clone());
    }
}

pub fn apply(run: &mut Run, event: &RunEvent) {
    match &event.body {
        Some(Body::Created(created)) => {
            run.agent.clone_from(&created.agent);
            run.created_at = event.at;
        }
        Some(Body::Status(changed)) => {
            status(run, changed);
            if is_over(changed.status()) {
                run.finished_at = event.at;
            }
        }
        Some(Body::Route(route)) => {
            if let Some(decision) = &route.decision {
                run.model.clone_from(&decision.model);
            }
        }
        Some(Body::Retrieved(retrieved)) => {
            without(run, &retrieved.degraded);
            run.path.extend(retrieved.path.clone());
        }
        Some(Body::ModelStarted(model)) => {
            if let Some(started) = &model.started {
                run.model.clone_from(&started.model);
                without(run, &started.degraded_reason);
            }
        }
        Some(Body::ModelDelta(model)) => {
            for delta in model.deltas.iter().filter(|delta| delta.choice == 0) {
                match &delta.piece {
                    Some(Piece::Text(text)) => run.output.push_str(text),
                    Some(Piece::Citation(citation)) => run.citations.push(citation.clone()),
                    Some(Piece::Refusal(_) | Piece::Reasoning(_) | Piece::ToolCall(_)) | None => {}
                }
            }
        }
        Some(Body::ModelDone(done)) => run.path.extend(done.path.clone()),
        Some(Body::Usage(added)) => {
            if let Some(usage) = &added.usage {
                run.usage = Some(run.usage.map_or(*usage, |sum| add(sum, *usage)));
            }
        }
        Some(Body::AttemptRestarted(restarted)) => {
            run.attempt = restarted.attempt;
            run.output.clear();
            run.citations.clear();
        }
        Some(
            Body::EffectPlanned(_)
            | Body::EffectStarted(_)
            | Body::EffectDone(_)
            | Body::EffectUnknown(_)
            | Body::InterruptRaised(_)
            | Body::InterruptAnswered(_),
        )
        | None => {}
    }
}

/// Adds what an answer had to do without.
fn without(run: &mut Run, reason: &str) {
    if reason.is_empty() || run.degraded.contains(reason) {
        return;
    }
    if !run.degraded.is_empty() {
        run.degraded.push_str("; ");
    }
    run.degraded.push_str(reason);
}

pub fn add(one: Usage, other: Usage) -> Usage {
    let cost = |usage: &Usage| usage.cost.and_then(|cost| cost.nano_usd);
    let sum = cost(&one).zip(cost(&other)).map(|(one, other)| one.saturating_add(other));
    let both = |count: fn(&Usage) -> i64| count(&one).saturating_add(count(&other));
    Usage {
        input_uncached: both(|usage| usage.input_uncached),
        input_cache_read: both(|usage| usage.input_cache_read),
        input_cache_write: both(|usage| usage.input_cache_write),
        input_cache_write_hour: both(|usage| usage.input_cache_write_hour),
        input_audio: both(|usage| usage.input_audio),
        input_image: both(|usage| usage.input_image),
        output: both(|usage| usage.output),
        output_reasoning: both(|usage| usage.output_reasoning),
        output_audio: both(|usage| usage.output_audio),
        output_image: both(|usage| usage.output_image),
        images: both(|usage| usage.images),
        estimated: one.estimated || other.estimated,
        cost: Some(Cost { nano_usd: sum }),
    }
}

/// The name of an event's body, as `StreamEventsRequest.kinds` spells it.
pub const fn kind(body: &Body) -> &'static str {
    match body {
        Body::Created(_) => "created",
        Body::Status(_) => "status",
        Body::Route(_) => "route",
        Body::Retrieved(_) => "retrieved",
        Body::ModelStarted(_) => "model_started",
        Body::ModelDelta(_) => "model_delta",
        Body::ModelDone(_) => "model_done",
        Body::EffectPlanned(_) => "effect_planned",
        Body::EffectStarted(_) => "effect_started",
        Body::EffectDone(_) => "effect_done",
        Body::EffectUnknown(_) => "effect_unknown",
        Body::InterruptRaised(_) => "interrupt_raised",
        Body::InterruptAnswered(_) => "interrupt_answered",
        Body::Usage(_) => "usage",
        Body::AttemptRestarted(_) => "attempt_restarted",
    }
}

pub const KINDS: [&str; 15] = [
    "created",
    "status",
    "route",
    "retrieved",
    "model_started",
    "model_delta",
    "model_done",
    "effect_planned",
    "effect_started",
    "effect_done",
    "effect_unknown",
    "interrupt_raised",
    "interrupt_answered",
    "usage",
    "attempt_restarted",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(output: i64, nano_usd: Option<i64>) -> Usage {
        Usage { output, cost: Some(Cost { nano_usd }), ..Usage::default() }
    }

    #[test]
    fn an_unknown_cost_makes_the_sum_unknown() {
        assert_eq!(add(usage(1, Some(5)), usage(2, Some(6))), usage(3, Some(11)));
        assert_eq!(add(usage(1, Some(5)), usage(2, None)), usage(3, None));
        let unpriced = Usage { cost: None, ..usage(2, None) };
        assert_eq!(add(usage(1, Some(5)), unpriced), usage(3, None));
    }

    #[test]
    fn a_reason_is_told_once() {
        let mut run = new_run("run_1", "thr_1".to_owned());
        for reason in ["no retrieval", "", "no retrieval", "lesser model"] {
            without(&mut run, reason);
        }
        assert_eq!(run.degraded, "no retrieval; lesser model");
    }
}
