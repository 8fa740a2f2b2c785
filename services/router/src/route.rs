//! From the name a caller wrote to the model that will answer; pure.
//!
//! Invariants:
//! - the same name and catalogue give the same decision, with the rule that made it;
//! - what cannot be called is refused here, naming what can.

use crate::error::Error;
use skein_proto::agent::v1::RouteDecision;
use skein_proto::model::v1::ListModelsResponse;
use std::collections::BTreeMap;

/// Providers whose list of models may be incomplete: any id of theirs is worth
/// asking for. Ours, which runs inside model-proxy, lists all it has.
fn is_open(provider: &str) -> bool {
    provider != "local"
}

pub fn resolve(
    name: &str,
    aliases: &BTreeMap<String, Vec<String>>,
    models: &ListModelsResponse,
) -> Result<RouteDecision, Error> {
    if let Some(candidates) = aliases.get(name) {
        let found = candidates.iter().find_map(|id| available(id, models).map(|model| (id, model)));
        let (id, region) = found.ok_or_else(|| unknown(name, aliases, models))?;
        let rest = candidates.iter().skip_while(|other| *other != id).skip(1);
        let fallbacks = rest.filter(|id| available(id, models).is_some()).cloned().collect();
        let decision = decided(id, region, "alias", format!("{name:?} stands for {id}"));
        return Ok(RouteDecision { fallbacks, ..decision });
    }
    if name.contains('/') {
        let region = available(name, models).ok_or_else(|| unknown(name, aliases, models))?;
        return Ok(decided(name, region, "named", "asked for by its full name".to_owned()));
    }
    // What every OpenAI client sends.
    let id = format!("openai/{name}");
    let region = available(&id, models).ok_or_else(|| unknown(name, aliases, models))?;
    Ok(decided(&id, region, "bare-name", "a name without a provider is OpenAI's".to_owned()))
}

/// The region a model can be called in, if it can be called at all.
fn available<'a>(id: &str, known: &'a ListModelsResponse) -> Option<&'a str> {
    let (provider, rest) = id.split_once('/')?;
    let exact = known.models.iter().find(|model| model.id == id).map(|model| &model.region);
    let open = || {
        let models = known.models.iter().map(|model| (&model.provider, &model.region));
        let providers = known.providers.iter().map(|provider| (&provider.name, &provider.region));
        let mut all = models.chain(providers).filter(|_| is_open(provider) && !rest.is_empty());
        all.find(|(name, _)| *name == provider).map(|(_, region)| region)
    };
    exact.or_else(open).map(String::as_str)
}

fn decided(model: &str, region: &str, rule: &str, reason: String) -> RouteDecision {
    RouteDecision {
        model: model.to_owned(),
        region: region.to_owned(),
        rule: rule.to_owned(),
        reason,
        ..RouteDecision::default()
    }
}

fn unknown(
    name: &str,
    aliases: &BTreeMap<String, Vec<String>>,
    known: &ListModelsResponse,
) -> Error {
    let ids = known.models.iter().map(|model| model.id.as_str());
    let known = aliases.keys().map(String::as_str).chain(ids).collect::<Vec<_>>().join(", ");
    let name: String = name.chars().take(200).collect();
    Error::ModelNotFound { name, known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::{Model, ModelProvider};

    fn models(ids: &[&str]) -> ListModelsResponse {
        let model = |id: &&str| Model {
            id: (*id).to_owned(),
            provider: id.split('/').next().unwrap().to_owned(),
            region: "iad".to_owned(),
            ..Model::default()
        };
        ListModelsResponse { models: ids.iter().map(model).collect(), providers: Vec::new() }
    }

    #[test]
    fn a_provider_that_lists_nothing_has_every_model() {
        let one = ModelProvider {
            name: "vllm".to_owned(),
            region: "iad".to_owned(),
            ..ModelProvider::default()
        };
        let known = ListModelsResponse { models: Vec::new(), providers: vec![one] };
        let region = |name: &str| resolve(name, &BTreeMap::new(), &known).map(|one| one.region);
        assert_eq!(region("vllm/any/thing").unwrap(), "iad");
        assert!(region("vllm/").is_err() && region("other/model").is_err());
    }

    fn resolved(name: &str, ids: &[&str]) -> Option<String> {
        let aliases = crate::agents::Agents::default().aliases;
        resolve(name, &aliases, &models(ids)).ok().map(|decision| decision.model)
    }

    const LOCAL: &[&str] = &["local/extractive", "local/minilm"];
    const BOTH: &[&str] = &["local/extractive", "openai/gpt-4.1"];

    #[test]
    fn names_lead_to_models() {
        for (name, ids, expected) in [
            ("default", LOCAL, Some("local/extractive")),
            ("default", BOTH, Some("openai/gpt-4o-mini")),
            ("local/minilm", LOCAL, Some("local/minilm")),
            ("local/nothing", LOCAL, None),
            ("openai/new-model", BOTH, Some("openai/new-model")),
            ("openai/", BOTH, None),
            ("gpt-4o-mini", BOTH, Some("openai/gpt-4o-mini")),
            ("gpt-4o-mini", LOCAL, None),
            ("default", &[], None),
            ("", LOCAL, None),
        ] {
            assert_eq!(resolved(name, ids).as_deref(), expected, "{name} among {ids:?}");
        }
    }

    #[test]
    fn a_refusal_names_what_exists_and_an_alias_its_fallbacks() {
        let aliases = crate::agents::Agents::default().aliases;
        let error = resolve("nope", &aliases, &models(LOCAL)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model \"nope\" does not exist; there are: default, local/extractive, local/minilm"
        );
        let decision = resolve("default", &aliases, &models(BOTH)).unwrap();
        assert_eq!(
            (decision.fallbacks, decision.rule.as_str()),
            (vec!["local/extractive".to_owned()], "alias")
        );
    }
}
