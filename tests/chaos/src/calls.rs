//! The calls of the load: short, idempotent, of every app.

use crate::record::Outcome;
use e2e::{KEY, Mesh, caller::Caller};
use skein_proto::{
    agent::v1::{CreateThreadRequest, GetThreadRequest},
    model::v1::{EmbedInput, EmbedRequest, ListModelsRequest, embed_input::Input},
    retrieval::v1::{CreateCollectionRequest, Document, Mode, PutDocumentRequest, SearchRequest},
};
use std::time::Duration;
use tonic::Status;

const COLLECTION: &str = "chaos";
/// Answered by the fake provider.
const EMBEDDER: &str = "openai/text-embedding-3-small";

/// Between two words of a [`Kind::Chat`], of which there are three.
const WORD: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `GET /v1/models`: gateway, router, model-proxy.
    HttpModels,
    /// The same over gRPC.
    ListModels,
    /// Gateway, router, model-proxy, provider.
    Embed,
    /// Gateway, retrieval.
    Search,
    /// Gateway, router, database.
    GetThread,
    /// A whole answer of some words, one in `WORD`; not idempotent.
    Chat,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::HttpModels, Self::ListModels, Self::Embed, Self::Search, Self::GetThread];
    /// What needs neither the one retrieval nor the one database.
    pub const REGIONAL: [Self; 3] = [Self::HttpModels, Self::ListModels, Self::Embed];
}

/// A caller near one region.
#[derive(Clone)]
pub struct Target {
    pub region: &'static str,
    deadline: Duration,
    pub caller: Caller,
    http: reqwest::Client,
    url: String,
    thread: String,
}

impl Target {
    /// Makes what the calls ask for; `deadline` is theirs.
    pub async fn new(mesh: &Mesh, region: &'static str, deadline: Duration) -> Self {
        let caller = mesh.caller(region, deadline).await;
        let create = CreateThreadRequest::default();
        let thread = caller.agents().create_thread(create).await.unwrap().into_inner().thread;
        let url = mesh.url.clone();
        let thread = thread.unwrap().id;
        Self { region, deadline, caller, http: e2e::client(), url, thread }
    }

    /// A document to be found; once per mesh.
    pub async fn furnish(&self) {
        let create = CreateCollectionRequest {
            name: COLLECTION.to_owned(),
            embedding_model: EMBEDDER.to_owned(),
        };
        self.caller.retrieval().create_collection(create).await.unwrap();
        let document = Document {
            id: "geese.md".to_owned(),
            text: "Geese fly in a skein.".to_owned(),
            ..Document::default()
        };
        let collection = COLLECTION.to_owned();
        let put = PutDocumentRequest { collection, document: Some(document), version: 0 };
        self.caller.retrieval().put_document(put).await.unwrap();
    }

    pub async fn call(&self, kind: Kind) -> Outcome {
        match kind {
            Kind::HttpModels => self.http(self.http.get(format!("{}/v1/models", self.url))).await,
            Kind::Chat => {
                let body = format!(
                    r#"{{"model":"openai/paced-{}","messages":[{{"role":"user","content":"hi"}}]}}"#,
                    WORD.as_millis()
                );
                let request = self.http.post(format!("{}/v1/chat/completions", self.url));
                self.http(request.header("content-type", "application/json").body(body)).await
            }
            Kind::ListModels => {
                let answer = self.caller.models().list_models(ListModelsRequest {}).await;
                judged(answer, |answer| !answer.models.is_empty())
            }
            Kind::Embed => judged(self.caller.models().embed(embed("geese")).await, |answer| {
                answer.embeddings.len() == 1
            }),
            Kind::Search => {
                let request = SearchRequest {
                    collection: COLLECTION.to_owned(),
                    query: "skein".to_owned(),
                    mode: Mode::Keyword.into(),
                    ..SearchRequest::default()
                };
                let answer = self.caller.retrieval().search(request).await;
                judged(answer, |answer| !answer.hits.is_empty())
            }
            Kind::GetThread => {
                let request = GetThreadRequest { id: self.thread.clone() };
                let answer = self.caller.agents().get_thread(request).await;
                judged(answer, |answer| answer.thread.is_some())
            }
        }
    }

    async fn http(&self, request: reqwest::RequestBuilder) -> Outcome {
        let request = request.bearer_auth(KEY).timeout(self.deadline);
        match request.header("fly-prefer-region", self.region).send().await {
            Ok(response) if response.status() == 200 => match response.text().await {
                Ok(text) if text.contains("\"data\"") || text.contains("You said: hi") => {
                    Outcome::Good
                }
                Ok(text) => Outcome::Failed(format!("200 with {text:.60}")),
                Err(error) => Outcome::Failed(format!("200, then {error}")),
            },
            Ok(response) => {
                let status = response.status();
                let text = response.text().await.unwrap_or_default();
                Outcome::Failed(format!("{status} {text:.160}"))
            }
            Err(error) => Outcome::Failed(format!("no answer: {error:?}")),
        }
    }
}

pub fn embed(text: &str) -> EmbedRequest {
    EmbedRequest {
        model: EMBEDDER.to_owned(),
        inputs: vec![EmbedInput { input: Some(Input::Text(text.to_owned())) }],
        ..EmbedRequest::default()
    }
}

fn judged<T>(
    answer: Result<tonic::Response<T>, Status>,
    whole: impl FnOnce(&T) -> bool,
) -> Outcome {
    match answer {
        Ok(answer) if whole(answer.get_ref()) => Outcome::Good,
        Ok(_) => Outcome::Failed("an answer without content".to_owned()),
        Err(status) => Outcome::Failed(format!("{:?} {:.160}", status.code(), status.message())),
    }
}
