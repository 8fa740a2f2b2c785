//! Documents in memory.
//!
//! Invariants:
//! - A document is unchanged if its text is; pages hold two documents.

use super::{Answers, Fake, unused};
use sha2::{Digest as _, Sha256};
use skein_proto::{
    model::v1::Span,
    retrieval::v1::{
        self as wire, DocumentSummary, Hit, ListDocumentsRequest, ListDocumentsResponse,
        PutDocumentRequest, PutDocumentResponse, SearchRequest, SearchResponse,
        retrieval_service_server::RetrievalService,
    },
};
use tonic::{Request, Response, Status, Streaming};

const PAGE: usize = 2;

#[tonic::async_trait]
impl RetrievalService for Fake {
    async fn put_document(
        &self,
        request: Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentResponse>, Status> {
        let request = request.into_inner();
        let document = request.document.unwrap_or_default();
        let wire::Document { id, title, text, metadata_json, .. } = document;
        let format = document.format;
        self.note(format!(
            "put {}/{id} {title:?} format={format} {metadata_json}",
            request.collection
        ));
        if text.contains("poison") {
            return Err(Status::invalid_argument("the text is poison"));
        }
        let before = self.documents.lock().unwrap().insert(id, text.clone());
        let unchanged = before.is_some_and(|before| before == text);
        Ok(Response::new(PutDocumentResponse { unchanged, ..PutDocumentResponse::default() }))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("list {:?} after {:?}", request.id_prefix, request.page_token));
        let documents = self.documents.lock().unwrap();
        if documents.is_empty() {
            return Err(Status::not_found("no such collection"));
        }
        let wanted = documents
            .iter()
            .filter(|(id, _)| id.starts_with(&request.id_prefix) && **id > request.page_token);
        let page: Vec<_> = wanted
            .take(PAGE)
            .map(|(id, text)| DocumentSummary {
                id: id.clone(),
                content_sha256: hex::encode(Sha256::digest(text)),
                ..DocumentSummary::default()
            })
            .collect();
        let next = page.last().filter(|_| page.len() == PAGE).map(|last| last.id.clone());
        Ok(Response::new(ListDocumentsResponse {
            documents: page,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        let request = request.into_inner();
        self.note(format!(
            "search {} {:?} top_k={} mode={:?}",
            request.collection,
            request.query,
            request.top_k,
            request.mode()
        ));
        let hit = Hit {
            document_id: "birds/geese.md".to_owned(),
            chunk_id: "c1".to_owned(),
            score: 0.75,
            text: "a flight of geese\nis a skein".to_owned(),
            span: Some(Span { start: 10, end: 38 }),
            title: "Geese".to_owned(),
            metadata_json: r#"{"lang":"en"}"#.to_owned(),
            ..Hit::default()
        };
        let degraded = if request.query == "dim" { "dense: no router" } else { "" };
        Ok(Response::new(SearchResponse {
            hits: vec![hit],
            degraded: degraded.to_owned(),
            ..SearchResponse::default()
        }))
    }

    async fn create_collection(
        &self,
        _: Request<wire::CreateCollectionRequest>,
    ) -> Result<Response<wire::CreateCollectionResponse>, Status> {
        Err(unused())
    }
    async fn get_collection(
        &self,
        _: Request<wire::GetCollectionRequest>,
    ) -> Result<Response<wire::GetCollectionResponse>, Status> {
        Err(unused())
    }
    async fn list_collections(
        &self,
        _: Request<wire::ListCollectionsRequest>,
    ) -> Result<Response<wire::ListCollectionsResponse>, Status> {
        Err(unused())
    }
    async fn delete_collection(
        &self,
        _: Request<wire::DeleteCollectionRequest>,
    ) -> Result<Response<wire::DeleteCollectionResponse>, Status> {
        Err(unused())
    }
    type IngestDocumentsStream = Answers<wire::IngestDocumentsResponse>;
    async fn ingest_documents(
        &self,
        _: Request<Streaming<wire::IngestDocumentsRequest>>,
    ) -> Result<Response<Self::IngestDocumentsStream>, Status> {
        Err(unused())
    }
    async fn get_document(
        &self,
        _: Request<wire::GetDocumentRequest>,
    ) -> Result<Response<wire::GetDocumentResponse>, Status> {
        Err(unused())
    }
    async fn delete_documents(
        &self,
        _: Request<wire::DeleteDocumentsRequest>,
    ) -> Result<Response<wire::DeleteDocumentsResponse>, Status> {
        Err(unused())
    }
    type ExportStream = Answers<wire::ExportResponse>;
    async fn export(
        &self,
        _: Request<wire::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Err(unused())
    }
    async fn import(
        &self,
        _: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<wire::ImportResponse>, Status> {
        Err(unused())
    }
}
