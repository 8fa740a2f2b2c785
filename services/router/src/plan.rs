//! What one run will do: the agent's settings and the request's, merged; pure.
//!
//! Invariant: of two limits the stricter holds; a request can never widen its
//! agent's.

use crate::agents::{Agent, Limits};
use crate::store::text;
use skein_proto::agent::v1::{CreateRunRequest, RunLimits};
use skein_proto::model::v1::{
    GenerateRequest, Message, Passage, Price, Role, Sampling, content_part::Part,
};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Plan {
    pub model: String,
    pub collections: Vec<String>,
    pub limits: Limits,
    instructions: String,
    input: Vec<Message>,
}

impl Plan {
    pub fn new(agent: &Agent, request: &CreateRunRequest) -> Self {
        let chosen = |own: &String, agents: &String| {
            if own.is_empty() { agents.clone() } else { own.clone() }
        };
        let collections = if request.collections.is_empty() {
            agent.collections.clone()
        } else {
            request.collections.clone()
        };
        Self {
            model: chosen(&request.model, &agent.model),
            collections,
            limits: stricter(&agent.limits, request.limits.as_ref()),
            instructions: agent.instructions.clone(),
            input: request.input.clone(),
        }
    }

    /// What to search for: the text of the last thing the user said.
    pub fn query(&self) -> String {
        let user = |message: &&Message| message.role() == Role::User;
        let parts = self.input.iter().rfind(user).map(|message| message.content.iter());
        let texts = parts.into_iter().flatten().filter_map(|part| match &part.part {
            Some(Part::Text(text)) => Some(text.as_str()),
            Some(Part::Image(_) | Part::Audio(_)) | None => None,
        });
        texts.collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    /// The model call: instructions, what was said before, what is asked now.
    pub fn generate(&self, past: Vec<Message>, passages: Vec<Passage>) -> GenerateRequest {
        let mut messages = Vec::new();
        if !self.instructions.is_empty() {
            messages.push(text(Role::System, self.instructions.clone()));
        }
        messages.extend(past);
        messages.extend(self.input.iter().cloned());
        GenerateRequest {
            messages,
            passages,
            sampling: Some(Sampling {
                max_tokens: self.limits.max_output_tokens,
                ..Sampling::default()
            }),
            ..GenerateRequest::default()
        }
    }
}

fn stricter(agent: &Limits, run: Option<&RunLimits>) -> Limits {
    let Some(run) = run else { return agent.clone() };
    let asked = |limit: i64| (limit > 0).then_some(limit);
    let least = |one: Option<i64>, other: Option<i64>| one.into_iter().chain(other).min();
    let timeout = u64::try_from(run.timeout_ms).ok().filter(|millis| *millis > 0);
    Limits {
        timeout: timeout.map_or(agent.timeout, |ms| agent.timeout.min(Duration::from_millis(ms))),
        max_output_tokens: least(agent.max_output_tokens, asked(run.max_output_tokens)),
        max_nano_usd: least(agent.max_nano_usd, asked(run.max_nano_usd)),
        max_steps: if run.max_steps > 0 {
            agent.max_steps.min(run.max_steps)
        } else {
            agent.max_steps
        },
        top_k: if run.top_k > 0 { agent.top_k.min(run.top_k) } else { agent.top_k },
    }
}

/// How many tokens of output the rest of a budget pays for; `None` when there is
/// no budget or the price is not known.
pub fn affordable(limits: &Limits, spent: Option<i64>, price: Option<&Price>) -> Option<i64> {
    let left = i128::from(limits.max_nano_usd?) - i128::from(spent.unwrap_or(0));
    let per_million = i128::from(price?.output?);
    if per_million <= 0 {
        return None;
    }
    i64::try_from((left.max(0) * 1_000_000) / per_million).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::Agents;

    #[test]
    fn a_request_narrows_and_never_widens() {
        let text = "[agent.a.limits]\ntimeout = \"10s\"\nmax_output_tokens = 100\ntop_k = 5\nmax_steps = 2";
        let agents = Agents::parse("agents.toml", text).unwrap();
        let agent = agents.get("a").unwrap();
        let merged = |timeout_ms, tokens, top_k| {
            let limits = RunLimits {
                timeout_ms,
                max_output_tokens: tokens,
                top_k,
                max_nano_usd: 7,
                max_steps: 9,
            };
            stricter(&agent.limits, Some(&limits))
        };
        let narrow = merged(1_000, 10, 1);
        assert_eq!(
            (narrow.timeout, narrow.max_output_tokens, narrow.top_k),
            (Duration::from_secs(1), Some(10), 1)
        );
        let wide = merged(60_000, 1_000, 50);
        assert_eq!(wide, Limits { max_nano_usd: Some(7), ..agent.limits.clone() });
        assert_eq!(merged(0, 0, 0), Limits { max_nano_usd: Some(7), ..agent.limits.clone() });
        assert_eq!(stricter(&agent.limits, None), agent.limits);
    }

    #[test]
    fn the_query_is_what_the_user_said_last() {
        let agents = Agents::default();
        let input = vec![
            text(Role::User, "first".to_owned()),
            text(Role::Assistant, "answer".to_owned()),
            text(Role::User, " second ".to_owned()),
        ];
        let request = CreateRunRequest { input, ..CreateRunRequest::default() };
        assert_eq!(Plan::new(agents.get("").unwrap(), &request).query(), "second");
    }

    #[test]
    fn a_budget_bounds_the_output_when_the_price_is_known() {
        let limits = Limits {
            max_nano_usd: Some(1_000),
            ..Agents::default().get("").unwrap().limits.clone()
        };
        let price = Price { output: Some(10_000_000), ..Price::default() };
        assert_eq!(affordable(&limits, Some(400), Some(&price)), Some(60));
        assert_eq!(affordable(&limits, Some(4_000), Some(&price)), Some(0));
        assert_eq!(affordable(&limits, None, None), None);
    }
}
