//! `RetrievalService`: each RPC parses, asks and answers.
//!
//! Invariants:
//! - the tenant is the call's, taken from its verified token;
//! - one bad document does not end a bulk stream, and results keep its order.

use crate::error::Error;
use crate::knowledge::Knowledge;
use crate::model::Place;
use crate::wire;
use futures_util::{StreamExt as _, stream::BoxStream};
use mesh::call::Call;
use mesh::error::{reason, to_status, unimplemented};
use skein_proto::retrieval::v1::{self as proto, retrieval_service_server::RetrievalService};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Documents of one bulk stream in work at a time.
const AT_ONCE: usize = 4;
const QUEUES: usize = 16;

pub struct Service {
    pub knowledge: Arc<Knowledge>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    async fn found(&self, place: &Place) -> Result<proto::Collection, Error> {
        let found = self.knowledge.store.collection(place).await?;
        let gone = || Error::NoCollection(place.collection.to_string());
        found.map(wire::collection).ok_or_else(gone)
    }

    async fn create(
        &self,
        tenant: &Arc<str>,
        request: proto::CreateCollectionRequest,
    ) -> Result<proto::Collection, Error> {
        let place = Place::new(Arc::clone(tenant), wire::name("name", request.name)?);
        let wanted = request.embedding_model;
        let fallback = &self.knowledge.limits.embedding_model;
        let model = if wanted.is_empty() { fallback } else { &wanted };
        let head = self.knowledge.store.create(&place, model).await?;
        if !wanted.is_empty() && head.model != wanted {
            let name = place.collection.to_string();
            return Err(Error::OtherSettings { name, stored: head.model, wanted });
        }
        self.found(&place).await
    }

    async fn list_documents(
        &self,
        tenant: &Arc<str>,
        request: proto::ListDocumentsRequest,
    ) -> Result<proto::ListDocumentsResponse, Error> {
        let place = self.existing(tenant, request.collection).await?;
        let limit = wire::count("page_size", request.page_size, 100)?;
        let after = wire::page(&request.page_token)?;
        let store = &self.knowledge.store;
        // One more than asked for tells whether there is another page.
        let mut page = store.documents(&place, &request.id_prefix, &after, limit + 1).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        let last = page.last().filter(|_| more).map(|last| wire::page_token(&last.id));
        Ok(proto::ListDocumentsResponse {
            documents: page.into_iter().map(wire::summary).collect(),
            next_page_token: last.unwrap_or_default(),
        })
    }

    /// The place of a collection that is there.
    async fn existing(&self, tenant: &Arc<str>, name: String) -> Result<Place, Error> {
        let place = Place::new(Arc::clone(tenant), wire::name("collection", name)?);
        let head = self.knowledge.store.head(&place).await?;
        head.map(|_| place.clone()).ok_or_else(|| Error::NoCollection(place.collection.to_string()))
    }

    async fn get_document(
        &self,
        tenant: &Arc<str>,
        request: proto::GetDocumentRequest,
    ) -> Result<proto::GetDocumentResponse, Error> {
        let place = self.existing(tenant, request.collection).await?;
        let id = wire::id("id", request.id)?;
        let found = self.knowledge.store.document(&place, &id).await?;
        let collection = place.collection.to_string();
        found.map(wire::stored).ok_or(Error::NoDocument { collection, id })
    }

    async fn delete_documents(
        &self,
        tenant: &Arc<str>,
        request: proto::DeleteDocumentsRequest,
    ) -> Result<proto::DeleteDocumentsResponse, Error> {
        let place = self.existing(tenant, request.collection).await?;
        let ids = wire::ids(request.ids)?;
        let (deleted, version) = self.knowledge.delete_documents(&place, ids).await?;
        Ok(proto::DeleteDocumentsResponse { deleted: wire::small(deleted), version })
    }
}

async fn put(
    knowledge: &Arc<Knowledge>,
    call: &Call,
    request: proto::PutDocumentRequest,
) -> Result<proto::PutDocumentResponse, Error> {
    let name = wire::name("collection", request.collection)?;
    let place = Place::new(Arc::clone(&call.tenant), name);
    let version = wire::version(request.version)?;
    let document = wire::document(request.document)?;
    let outcome = knowledge.put(call, &place, document, version).await;
    let label = match &outcome {
        Ok(put) if put.unchanged => "unchanged",
        Ok(_) => "stored",
        Err(_) => "failed",
    };
    metrics::counter!("skein_retrieval_documents_total", "outcome" => label).increment(1);
    outcome.map(wire::put)
}

async fn ingest(
    knowledge: Arc<Knowledge>,
    call: Call,
    order: Arc<[Mutex<()>; QUEUES]>,
    request: Result<proto::IngestDocumentsRequest, Status>,
) -> Result<proto::IngestDocumentsResponse, Status> {
    let proto::IngestDocumentsRequest { collection, document, version } = request?;
    let document_id = document.as_ref().map(|document| document.id.clone()).unwrap_or_default();
    // The same id twice in a stream: the later one wins, as it should.
    let mut hash = DefaultHasher::new();
    document_id.hash(&mut hash);
    let queue = usize::try_from(hash.finish() % QUEUES as u64).unwrap_or(0);
    let _turn = order[queue].lock().await;
    let request = proto::PutDocumentRequest { collection, document, version };
    Ok(match put(&knowledge, &call, request).await {
        Ok(done) => proto::IngestDocumentsResponse {
            document_id,
            done: Some(done),
            ..proto::IngestDocumentsResponse::default()
        },
        Err(error) => {
            let status = to_status(&error);
            proto::IngestDocumentsResponse {
                document_id,
                done: None,
                error_reason: reason(&status).unwrap_or_default(),
                error_message: status.message().to_owned(),
            }
        }
    })
}

fn answer<T>(outcome: Result<T, Error>) -> Answer<T> {
    outcome.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl RetrievalService for Service {
    type IngestDocumentsStream = BoxStream<'static, Result<proto::IngestDocumentsResponse, Status>>;
    type ExportStream = BoxStream<'static, Result<proto::ExportResponse, Status>>;

    async fn create_collection(
        &self,
        request: Request<proto::CreateCollectionRequest>,
    ) -> Answer<proto::CreateCollectionResponse> {
        let tenant = Call::of(&request)?.tenant;
        let created = self.create(&tenant, request.into_inner()).await;
        answer(created.map(|found| proto::CreateCollectionResponse { collection: Some(found) }))
    }

    async fn get_collection(
        &self,
        request: Request<proto::GetCollectionRequest>,
    ) -> Answer<proto::GetCollectionResponse> {
        let tenant = Call::of(&request)?.tenant;
        let name = wire::name("name", request.into_inner().name).map_err(|e| to_status(&e))?;
        let found = self.found(&Place::new(tenant, name)).await;
        answer(found.map(|found| proto::GetCollectionResponse { collection: Some(found) }))
    }

    async fn list_collections(
        &self,
        request: Request<proto::ListCollectionsRequest>,
    ) -> Answer<proto::ListCollectionsResponse> {
        let tenant = Call::of(&request)?.tenant;
        let found = self.knowledge.store.collections(&tenant).await;
        answer(found.map(|found| proto::ListCollectionsResponse {
            collections: found.into_iter().map(wire::collection).collect(),
        }))
    }

    async fn delete_collection(
        &self,
        request: Request<proto::DeleteCollectionRequest>,
    ) -> Answer<proto::DeleteCollectionResponse> {
        let tenant = Call::of(&request)?.tenant;
        let name = wire::name("name", request.into_inner().name).map_err(|e| to_status(&e))?;
        let existed = self.knowledge.delete_collection(&Place::new(tenant, name)).await;
        answer(existed.map(|existed| proto::DeleteCollectionResponse { existed }))
    }

    async fn put_document(
        &self,
        request: Request<proto::PutDocumentRequest>,
    ) -> Answer<proto::PutDocumentResponse> {
        let call = Call::of(&request)?;
        answer(put(&self.knowledge, &call, request.into_inner()).await)
    }

    async fn ingest_documents(
        &self,
        request: Request<Streaming<proto::IngestDocumentsRequest>>,
    ) -> Answer<Self::IngestDocumentsStream> {
        let call = Call::of(&request)?;
        let knowledge = Arc::clone(&self.knowledge);
        let order: Arc<[Mutex<()>; QUEUES]> = Arc::default();
        let results = request.into_inner().map(move |request| {
            ingest(Arc::clone(&knowledge), call.clone(), Arc::clone(&order), request)
        });
        Ok(Response::new(results.buffered(AT_ONCE).boxed()))
    }

    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Answer<proto::SearchResponse> {
        let call = Call::of(&request)?;
        let begun = Instant::now();
        let mut request = request.into_inner();
        let (explain, collection) = (request.explain, std::mem::take(&mut request.collection));
        let outcome = async {
            let place = Place::new(Arc::clone(&call.tenant), wire::name("collection", collection)?);
            self.knowledge.search(&call, &place, wire::search(request)?).await
        };
        let outcome = outcome.await;
        metrics::histogram!("skein_retrieval_search_seconds").record(begun.elapsed());
        answer(outcome.map(|found| wire::found(found, explain)))
    }

    async fn get_document(
        &self,
        request: Request<proto::GetDocumentRequest>,
    ) -> Answer<proto::GetDocumentResponse> {
        let tenant = Call::of(&request)?.tenant;
        answer(Self::get_document(self, &tenant, request.into_inner()).await)
    }

    async fn list_documents(
        &self,
        request: Request<proto::ListDocumentsRequest>,
    ) -> Answer<proto::ListDocumentsResponse> {
        let tenant = Call::of(&request)?.tenant;
        answer(Self::list_documents(self, &tenant, request.into_inner()).await)
    }

    async fn delete_documents(
        &self,
        request: Request<proto::DeleteDocumentsRequest>,
    ) -> Answer<proto::DeleteDocumentsResponse> {
        let tenant = Call::of(&request)?.tenant;
        answer(Self::delete_documents(self, &tenant, request.into_inner()).await)
    }

    async fn export(&self, _: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        Err(unimplemented("collections cannot be exported yet"))
    }

    async fn import(
        &self,
        _: Request<Streaming<proto::ImportRequest>>,
    ) -> Answer<proto::ImportResponse> {
        Err(unimplemented("collections cannot be imported yet"))
    }
}
