//! Replicate's routes.
//!
//! Invariants:
//! - A page of the list is stable: its cursor counts from the newest.

use super::{Replicate, catalog, errors, prediction::Order, webhooks, webhooks::Wanted};
use crate::{
    answer::Answer,
    images,
    reply::{Failure, Say},
    server::{Asked, sent},
    step::{Live, Step},
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{any, get, post},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

type Ours = State<Replicate>;

/// A page of the list of predictions.
const PAGE: usize = 100;

pub(super) fn all(state: Replicate) -> Router {
    Router::new()
        .route("/v1/predictions", post(create).get(list))
        .route("/v1/models/{owner}/{name}/predictions", post(create))
        .route("/v1/deployments/{owner}/{name}/predictions", post(create))
        .route("/v1/predictions/{id}", get(show))
        .route("/v1/predictions/{id}/cancel", post(cancel))
        .route("/v1/streams/{owner}/{name}/{id}", get(stream))
        // Any method: a search is a QUERY.
        .route("/v1/models", any(catalog_route))
        .route("/v1/models/{owner}/{name}", get(catalog_route))
        .route("/v1/models/{owner}/{name}/versions", get(catalog_route))
        .route("/v1/models/{owner}/{name}/versions/{id}", get(catalog_route))
        .route("/v1/deployments/{owner}/{name}", get(catalog_route))
        .route("/v1/account", get(catalog_route))
        .route("/v1/hardware", get(catalog_route))
        .route("/v1/webhooks/default/secret", get(catalog_route))
        .route("/v1/files", post(upload).get(catalog_route))
        .route("/v1/files/{id}", get(file).delete(delete_file))
        .route("/_pictures/{name}", get(picture))
        .fallback(catalog_route)
        .with_state(state)
}

fn not_found() -> Answer {
    errors::failure(Failure::Status(404))
}

/// `wait` or `wait=n`, in seconds.
fn wait(asked: &Asked) -> Option<Duration> {
    let prefer = asked.headers.get("prefer")?.to_str().ok()?;
    let seconds = prefer.strip_prefix("wait")?.trim_start_matches('=').parse().unwrap_or(60);
    Some(Duration::from_secs(seconds.clamp(1, 60)))
}

fn cancel_after(asked: &Asked) -> Option<Duration> {
    parse_duration(asked.headers.get("cancel-after")?.to_str().ok()?)
}

/// `30s`, `1m`, `1h30m`, `500ms`; a bare number is seconds.
fn parse_duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
        let (number, rest) = text.split_at(digits);
        let unit = rest.find(|one: char| one.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = number.parse().ok()?;
        total += match &rest[..unit] {
            "ms" => Duration::from_millis(number),
            "" | "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3_600),
            _ => return None,
        };
        text = &rest[unit..];
    }
    Some(total)
}

async fn create(State(state): Ours, asked: Asked) -> Response {
    let server = Arc::clone(&state.server);
    asked.answer(&server, async |asked, say| created(&state, asked, say).await).await
}

async fn created(state: &Replicate, asked: &Asked, say: &Say) -> Answer {
    let input = &asked.request["input"];
    if asked.model.is_empty() || !input.is_object() {
        return errors::failure(Failure::Status(422));
    }
    let (store, origin) = (&state.store, state.server.origin());
    let cancel_after = cancel_after(asked);
    let id = store.create(&Order { model: &asked.model, input, say, origin, cancel_after });
    if let Some(wanted) = Wanted::of(&asked.request) {
        let (Replicate { server, store, webhooks, .. }, id) = (state.clone(), id.clone());
        let tell = async move { webhooks.tell(&store, &id, &wanted, server.origin()).await };
        state.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(tell);
    }
    if let Some(patience) = wait(asked) {
        store.ended(&id, patience).await;
    }
    store.json(&id, origin).map_or_else(not_found, |body| Answer::json(201, &body))
}

async fn show(State(state): Ours, Path(id): Path<String>, asked: Asked) -> Response {
    let found = async |_: &_, _: &_| {
        let found = state.store.json(&id, state.server.origin());
        found.map_or_else(not_found, |body| Answer::json(200, &body))
    };
    asked.answer(&state.server, found).await
}

async fn cancel(State(state): Ours, Path(id): Path<String>, asked: Asked) -> Response {
    let canceled = async |_: &_, _: &_| match state.store.cancel(&id) {
        true => {
            let body = state.store.json(&id, state.server.origin());
            Answer::json(200, &body.unwrap_or_default())
        }
        false => not_found(),
    };
    asked.answer(&state.server, canceled).await
}

/// The newest first, page by page.
async fn list(State(state): Ours, asked: Asked) -> Response {
    let page = async |asked: &Asked, _: &_| {
        let origin = state.server.origin();
        let from = asked.query.strip_prefix("cursor=").and_then(|from| from.parse().ok());
        let from: usize = from.unwrap_or(0);
        let ids = state.store.ids();
        let page: Vec<Value> = ids
            .iter()
            .rev()
            .skip(from)
            .take(PAGE)
            .filter_map(|id| state.store.json(id, origin))
            .collect();
        let cursor = |at: usize| format!("{origin}/v1/predictions?cursor={at}");
        let next = (from + PAGE < ids.len()).then(|| cursor(from + PAGE));
        let previous = (from > 0).then(|| cursor(from.saturating_sub(PAGE)));
        Answer::json(200, &json!({"next": next, "previous": previous, "results": page}))
    };
    asked.answer(&state.server, page).await
}

async fn stream(
    State(state): Ours,
    Path((_, _, id)): Path<(String, String, String)>,
    asked: Asked,
) -> Response {
    let events = async |asked: &Asked, _: &_| {
        if state.store.status(&id).is_none() {
            return not_found();
        }
        let last = asked.headers.get("last-event-id").and_then(|last| last.to_str().ok());
        Answer::events(vec![Step::Live(Live::new(state.store.events(&id, last)))])
    };
    asked.answer(&state.server, events).await
}

/// What does not change: models, versions, the account.
async fn catalog_route(State(state): Ours, asked: Asked) -> Response {
    let read = async |asked: &Asked, _: &_| {
        let origin = state.server.origin();
        let page =
            |results: Vec<Value>| json!({"next": null, "previous": null, "results": results});
        let parts: Vec<&str> = asked.path.split('/').skip(2).collect();
        let body = match parts[..] {
            ["models"] => page(catalog::known(origin)),
            ["models", _, _] => catalog::model(&asked.model, origin),
            ["models", _, _, "versions"] => page(vec![catalog::version(&asked.model)]),
            ["models", _, _, "versions", id] if catalog::version_of(&asked.model) == id => {
                catalog::version(&asked.model)
            }
            ["deployments", _, _] => catalog::deployment(&asked.model),
            ["account"] => json!({"type": "user", "username": "fake", "name": "Fake",
                "github_url": null}),
            ["hardware"] => json!([{"name": "Nvidia L40S GPU", "sku": "gpu-l40s"}]),
            ["webhooks", "default", "secret"] => webhooks::secret(),
            ["files"] => page(state.files.list(origin)),
            _ => return not_found(),
        };
        Answer::json(200, &body)
    };
    asked.answer(&state.server, read).await
}

async fn upload(State(state): Ours, asked: Asked) -> Response {
    let made = async |asked: &Asked, _: &_| {
        let kind = asked.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default();
        match state.files.create(kind, &asked.body, state.server.origin()) {
            Some(file) => Answer::json(201, &file),
            None => errors::refused(400, "the form has no part 'content'"),
        }
    };
    asked.answer(&state.server, made).await
}

/// The file's facts; its bytes for who wants other than JSON.
async fn file(State(state): Ours, Path(id): Path<String>, asked: Asked) -> Response {
    let read = async |asked: &Asked, _: &_| {
        if asked.query == "download" {
            let content = state.files.content(&id);
            return content
                .map_or_else(not_found, |(kind, bytes)| Answer::whole(200, &kind, bytes));
        }
        let found = state.files.get(&id, state.server.origin());
        found.map_or_else(not_found, |body| Answer::json(200, &body))
    };
    asked.answer(&state.server, read).await
}

async fn delete_file(State(state): Ours, Path(id): Path<String>, asked: Asked) -> Response {
    let deleted = async |_: &_, _: &_| match state.files.delete(&id) {
        true => Answer::whole(204, "application/json", ""),
        false => not_found(),
    };
    asked.answer(&state.server, deleted).await
}

/// Open to all, as on the real one's delivery host.
async fn picture(State(state): Ours, Path(name): Path<String>) -> Response {
    sent(match images::named(&name) {
        Some(png) => Answer::whole(200, "image/png", png),
        None => state.server.dialect.refused(404, "no such picture"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_said_in_units() {
        let ms = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(ms("1m"), Some(60_000));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("5"), Some(5_000));
        assert_eq!((ms("soon"), ms("5x")), (None, None));
    }
}
