//! Documents to the collection: what is there already, and what is sent.
//!
//! Invariants:
//! - A rate limit slows an upload down; it does not fail it.
//! - Putting a document is safe to repeat, so a broken connection is tried
//!   again.

use crate::{
    connect::{Gateway, QUICK, UPLOAD},
    errors::{self, Error},
    retry::{self, OnLimit},
};
use sha2::{Digest as _, Sha256};
use skein_proto::retrieval::v1::{Document, ListDocumentsRequest, PutDocumentRequest};
use std::collections::HashMap;
use tonic::{Code, Status};

const PAGE: i32 = 1000;

pub(super) enum Outcome {
    New,
    Changed,
    Unchanged,
    Failed(String),
}

pub(super) struct Uploader<'a> {
    gateway: &'a Gateway,
    collection: &'a str,
    /// SHA-256 of the text by document id.
    stored: HashMap<String, String>,
}

impl<'a> Uploader<'a> {
    /// Learns what the collection holds of the ids that begin with `id_prefix`.
    pub(super) async fn open(
        gateway: &'a Gateway,
        collection: &'a str,
        id_prefix: &str,
    ) -> Result<Self, Error> {
        let mut stored = HashMap::new();
        let mut message = ListDocumentsRequest {
            collection: collection.to_owned(),
            page_size: PAGE,
            page_token: String::new(),
            id_prefix: id_prefix.to_owned(),
        };
        loop {
            let page = retry::idempotent(OnLimit::Wait, async || {
                gateway.retrieval().list_documents(gateway.request(message.clone(), QUICK)).await
            });
            let page = match page.await {
                Ok(page) => page,
                // the first document makes the collection
                Err(status) if status.code() == Code::NotFound => break,
                Err(status) => {
                    let what = format!("list collection {collection}");
                    return Err(gateway.explain(&what, &status));
                }
            };
            stored.extend(page.documents.into_iter().map(|one| (one.id, one.content_sha256)));
            if page.next_page_token.is_empty() {
                break;
            }
            message.page_token = page.next_page_token;
        }
        Ok(Self { gateway, collection, stored })
    }

    /// Stores one document. `skip` if its text stands for all of it.
    pub(super) async fn put(
        &self,
        document: Document,
        skip: bool,
    ) -> Result<(String, Outcome), Error> {
        let id = document.id.clone();
        let before = self.stored.get(&id);
        if skip && before.is_some_and(|stored| *stored == sha256(&document.text)) {
            return Ok((id, Outcome::Unchanged));
        }
        let message = PutDocumentRequest {
            collection: self.collection.to_owned(),
            document: Some(document),
            version: 0,
        };
        let answer = retry::idempotent(OnLimit::Wait, async || {
            self.gateway
                .retrieval()
                .put_document(self.gateway.request(message.clone(), UPLOAD))
                .await
        });
        match answer.await {
            Ok(done) if done.unchanged => Ok((id, Outcome::Unchanged)),
            Ok(_) if before.is_some() => Ok((id, Outcome::Changed)),
            Ok(_) => Ok((id, Outcome::New)),
            Err(status) => {
                let error = self.gateway.explain(&format!("put {id}"), &status);
                if hits_all(&status, &error) {
                    return Err(error);
                }
                Ok((id, Outcome::Failed(status.message().to_owned())))
            }
        }
    }
}

/// Every other document would meet the same.
fn hits_all(status: &Status, error: &Error) -> bool {
    let of_the_caller = matches!(error.exit_code(), errors::NOT_ALLOWED | errors::LIMIT);
    let gone = error.exit_code() == errors::UNAVAILABLE && !errors::is_timeout(status);
    of_the_caller || gone
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}
