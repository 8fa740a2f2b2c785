//! Retrieval over real sockets and a real file, with a router beside it that
//! embeds by hashing words and can be switched off.
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod mesh_of_two;

use mesh::error::{field, reason};
use mesh_of_two::{Mesh, document};
use skein_proto::retrieval::v1::{
    CreateCollectionRequest, DeleteCollectionRequest, DeleteDocumentsRequest, ExportRequest,
    Format, GetCollectionRequest, GetDocumentRequest, IngestDocumentsRequest,
    ListCollectionsRequest, ListDocumentsRequest, Mode, PutDocumentRequest, SearchRequest,
};
use std::sync::Arc;
use tonic::Code;

const TEXT: &str = "# Geese\n\nGeese fly in a skein.\n\n## Food\n\nThey eat grass and grain.\n";

#[tokio::test]
async fn a_document_is_found_by_words_and_by_meaning_and_its_spans_are_its_bytes() {
    let mesh = Mesh::start().await;
    let mut put = document("docs", "geese.md", TEXT);
    put.document.as_mut().unwrap().format = Format::Markdown.into();
    let done = mesh.put("acme", put).await.unwrap();
    assert_eq!((done.chunks, done.embedded, done.unchanged), (2, 2, false));
    for mode in [Mode::Keyword, Mode::Dense, Mode::Hybrid] {
        let found = mesh.search("acme", "docs", "what grain do geese eat", mode).await.unwrap();
        assert_eq!(found.degraded, "", "{mode:?}");
        let hit = &found.hits[0];
        assert_eq!((hit.document_id.as_str(), hit.heading.as_str()), ("geese.md", "Geese > Food"));
        let span = hit.span.unwrap();
        let bytes = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
        assert_eq!(hit.text, TEXT[bytes]);
        let arms: Vec<_> = hit.arms.iter().map(|arm| arm.name.as_str()).collect();
        match mode {
            Mode::Keyword => assert_eq!(arms, ["keyword"]),
            Mode::Dense => assert_eq!(arms, ["dense"]),
            _ => assert_eq!(arms, ["keyword", "dense"]),
        }
        assert!(!found.plan.is_empty());
    }
}

#[tokio::test]
async fn a_document_is_replaced_whole_and_only_what_changed_is_embedded() {
    let mesh = Mesh::start().await;
    let text = |last: &str| format!("# A\n\nfirst part\n\n# B\n\nsecond part\n\n# C\n\n{last}\n");
    let put = |text: &str, version| {
        let mut put = document("docs", "a", text);
        put.document.as_mut().unwrap().format = Format::Markdown.into();
        PutDocumentRequest { version, ..put }
    };
    mesh.put("acme", put(&text("oldword"), 2)).await.unwrap();
    assert_eq!(mesh.router.embedded(), 3);
    let again = mesh.put("acme", put(&text("oldword"), 2)).await.unwrap();
    assert!(again.unchanged && again.version == 1 && again.embedded == 3);
    let next = mesh.put("acme", put(&text("newword"), 3)).await.unwrap();
    assert_eq!((next.version, next.chunks, next.embedded), (2, 3, 3));
    assert_eq!(mesh.router.embedded(), 4);
    let hits = |query: &'static str| mesh.search("acme", "docs", query, Mode::Keyword);
    assert!(hits("oldword").await.unwrap().hits.is_empty());
    assert_eq!(hits("newword").await.unwrap().hits.len(), 1);
    let stale = mesh.put("acme", put(&text("stale"), 2)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert_eq!(reason(&stale).as_deref(), Some("STALE_VERSION"));
    assert!(hits("stale").await.unwrap().hits.is_empty());
    let shorter = mesh.put("acme", put("# A\n\nfirst part\n", 0)).await.unwrap();
    assert_eq!(shorter.chunks, 1);
    assert!(hits("newword second").await.unwrap().hits.is_empty());
}

#[tokio::test]
async fn without_models_documents_are_found_by_words_and_vectors_follow() {
    let mesh = Mesh::start().await;
    mesh.router.switch(false);
    let done = mesh.put("acme", document("docs", "a", "the quick brown fox")).await.unwrap();
    assert_eq!((done.chunks, done.embedded), (1, 0));
    let found = mesh.search("acme", "docs", "brown fox", Mode::Hybrid).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    assert!(found.degraded.starts_with("dense: "), "{}", found.degraded);
    let refused = mesh.search("acme", "docs", "brown fox", Mode::Dense).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(mesh.collection("acme", "docs").await.pending_chunks, 1);
    mesh.router.switch(true);
    mesh.embedded("acme", "docs").await;
    let found = mesh.search("acme", "docs", "brown fox", Mode::Dense).await.unwrap();
    assert_eq!(found.hits.len(), 1);
}

#[tokio::test]
async fn what_is_pending_outlives_a_restart() {
    let mesh = Mesh::start().await;
    mesh.router.switch(false);
    mesh.put("acme", document("docs", "a", "the quick brown fox")).await.unwrap();
    let mesh = mesh.restart().await;
    assert_eq!(mesh.collection("acme", "docs").await.pending_chunks, 1);
    mesh.router.switch(true);
    mesh.embedded("acme", "docs").await;
    assert_eq!(mesh.search("acme", "docs", "fox", Mode::Dense).await.unwrap().hits.len(), 1);
}

#[tokio::test]
async fn a_text_the_model_refuses_is_left_to_keyword_search() {
    let mesh = Mesh::start().await;
    let text = format!("good {}\n\nunembeddable {}", "word ".repeat(300), "word ".repeat(300));
    mesh.put("acme", document("docs", "a", &text)).await.unwrap();
    mesh.embedded("acme", "docs").await;
    let found = mesh.search("acme", "docs", "unembeddable", Mode::Keyword).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    let dense = mesh.search("acme", "docs", "good word", Mode::Dense).await.unwrap();
    assert!(!dense.hits.is_empty());
    assert!(dense.hits.iter().all(|hit| !hit.text.contains("unembeddable")));
}

#[tokio::test]
async fn a_bulk_stream_answers_each_document_in_order() {
    let mesh = Mesh::start().await;
    let requests = (0..40).map(|at| {
        let id = if at == 7 { "../etc".to_owned() } else { format!("doc-{at:02}") };
        let put = document("docs", &id, &format!("number{at} text"));
        let PutDocumentRequest { collection, document, version } = put;
        IngestDocumentsRequest { collection, document, version }
    });
    let results = mesh.ingest("acme", requests.collect()).await;
    assert_eq!(results.len(), 40);
    for (at, result) in results.iter().enumerate() {
        if at == 7 {
            assert_eq!(result.error_reason, "INVALID_ARGUMENT");
            assert!(result.error_message.starts_with("document.id: "));
        } else {
            assert_eq!(result.document_id, format!("doc-{at:02}"));
            assert_eq!(result.done.as_ref().unwrap().embedded, 1);
        }
    }
    let found = mesh.search("acme", "docs", "number23", Mode::Keyword).await.unwrap();
    assert_eq!(found.hits[0].document_id, "doc-23");
}

#[tokio::test]
async fn collections_and_documents_are_listed_read_and_deleted() {
    let mesh = Mesh::start().await;
    let mut client = mesh.client();
    for id in ["a/1", "a/2", "b/1"] {
        mesh.put("acme", document("docs", id, &format!("text of {id}"))).await.unwrap();
    }
    let page = |page_token: String, prefix: &str| ListDocumentsRequest {
        collection: "docs".to_owned(),
        page_size: 2,
        page_token,
        id_prefix: prefix.to_owned(),
    };
    let call = Mesh::call("acme");
    let first = client.list_documents(call.request(page(String::new(), ""))).await.unwrap();
    let first = first.into_inner();
    let ids: Vec<_> = first.documents.iter().map(|document| document.id.as_str()).collect();
    assert_eq!(ids, ["a/1", "a/2"]);
    let next = page(first.next_page_token, "");
    let next = client.list_documents(call.request(next)).await.unwrap().into_inner();
    assert_eq!((next.documents.len(), next.next_page_token.as_str()), (1, ""));
    let of_b = client.list_documents(call.request(page(String::new(), "b/"))).await.unwrap();
    assert_eq!(of_b.into_inner().documents[0].id, "b/1");

    let get = GetDocumentRequest { collection: "docs".to_owned(), id: "a/1".to_owned() };
    let got = client.get_document(call.request(get.clone())).await.unwrap().into_inner();
    assert_eq!(got.document.unwrap().text, "text of a/1");
    assert_eq!(got.content_sha256.len(), 64);

    let ids = vec!["a/1".to_owned(), "never".to_owned()];
    let delete = DeleteDocumentsRequest { collection: "docs".to_owned(), ids };
    let deleted = client.delete_documents(call.request(delete)).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.version), (1, 4));
    let gone = client.get_document(call.request(get)).await.unwrap_err();
    assert_eq!(reason(&gone).as_deref(), Some("DOCUMENT_NOT_FOUND"));
    let found = mesh.search("acme", "docs", "text", Mode::Hybrid).await.unwrap();
    assert_eq!((found.hits.len(), found.version), (2, 4));

    let named = DeleteCollectionRequest { name: "docs".to_owned() };
    let existed = client.delete_collection(call.request(named.clone())).await.unwrap();
    assert!(existed.into_inner().existed);
    let existed = client.delete_collection(call.request(named)).await.unwrap();
    assert!(!existed.into_inner().existed);
    let gone = mesh.search("acme", "docs", "text", Mode::Keyword).await.unwrap_err();
    assert_eq!(reason(&gone).as_deref(), Some("COLLECTION_NOT_FOUND"));
    mesh.put("acme", document("docs", "new", "another text")).await.unwrap();
    let found = mesh.search("acme", "docs", "text", Mode::Keyword).await.unwrap();
    assert_eq!(found.hits.len(), 1);
}

#[tokio::test]
async fn no_rpc_crosses_from_one_tenant_to_another() {
    let mesh = Mesh::start().await;
    let mut client = mesh.client();
    mesh.put("acme", document("docs", "secret", "the launch code")).await.unwrap();
    let other = Mesh::call("other");
    let name = || "docs".to_owned();
    let missing = [
        client.get_collection(other.request(GetCollectionRequest { name: name() })).await.err(),
        mesh.search("other", "docs", "launch code", Mode::Hybrid).await.err(),
        client
            .get_document(
                other.request(GetDocumentRequest { collection: name(), id: "secret".to_owned() }),
            )
            .await
            .err(),
        client
            .list_documents(other.request(ListDocumentsRequest {
                collection: name(),
                ..ListDocumentsRequest::default()
            }))
            .await
            .err(),
        client
            .delete_documents(other.request(DeleteDocumentsRequest {
                collection: name(),
                ids: vec!["secret".to_owned()],
            }))
            .await
            .err(),
    ];
    for status in missing {
        assert_eq!(reason(&status.unwrap()).as_deref(), Some("COLLECTION_NOT_FOUND"));
    }
    let listed = client.list_collections(other.request(ListCollectionsRequest {})).await.unwrap();
    assert!(listed.into_inner().collections.is_empty());
    let delete = DeleteCollectionRequest { name: name() };
    let deleted = client.delete_collection(other.request(delete)).await.unwrap();
    assert!(!deleted.into_inner().existed);
    // The same names are another collection and another document.
    let twin = mesh.put("other", document("docs", "secret", "the launch code")).await.unwrap();
    assert_eq!((twin.duplicate_of.as_str(), twin.unchanged), ("", false));
    let found = mesh.search("other", "docs", "launch", Mode::Hybrid).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    let create = CreateCollectionRequest { name: name(), embedding_model: "x/y".to_owned() };
    let taken = client.create_collection(Mesh::call("acme").request(create)).await.unwrap_err();
    assert_eq!(reason(&taken).as_deref(), Some("COLLECTION_EXISTS"));
    let found = mesh.search("acme", "docs", "launch", Mode::Hybrid).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    assert_eq!(mesh.router.tenants(), ["acme", "other"]);
}

#[tokio::test]
async fn vectors_of_another_kind_are_refused_naming_both() {
    let mesh = Mesh::start().await;
    mesh.put("acme", document("docs", "a", "one text")).await.unwrap();
    let search = SearchRequest { embedding: vec![1.0, 2.0], ..mesh_of_two::search("docs", "x") };
    let call = Mesh::call("acme");
    let refused = mesh.client().search(call.request(search)).await.unwrap_err();
    assert_eq!(field(&refused).as_deref(), Some("embedding"));
    mesh.router.change_model();
    let refused = mesh.put("acme", document("docs", "b", "two texts")).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("EMBEDDING_MISMATCH"));
    assert!(refused.message().contains("fake/first") && refused.message().contains("fake/second"));
}

#[tokio::test]
async fn a_write_is_visible_to_whoever_knows_its_version() {
    let mesh = Mesh::start().await;
    let done = mesh.put("acme", document("docs", "a", "one text")).await.unwrap();
    let call = Mesh::call("acme");
    let at = |min_version| SearchRequest { min_version, ..mesh_of_two::search("docs", "text") };
    let found = mesh.client().search(call.request(at(done.version))).await.unwrap();
    assert_eq!(found.into_inner().hits.len(), 1);
    let ahead = mesh.client().search(call.request(at(done.version + 1))).await.unwrap_err();
    assert_eq!(reason(&ahead).as_deref(), Some("VERSION_NOT_VISIBLE"));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let mesh = Mesh::start().await;
    let call = Mesh::call("acme");
    let export = ExportRequest { collection: "docs".to_owned() };
    let status = mesh.client().export(call.request(export)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let mut pdf = document("docs", "a", "%PDF-1.7");
    pdf.document.as_mut().unwrap().format = Format::Pdf.into();
    let status = mesh.put("acme", pdf).await.unwrap_err();
    assert_eq!(field(&status).as_deref(), Some("document.format"));
}

#[tokio::test]
async fn a_process_that_dies_in_mid_write_leaves_the_old_document_or_the_new() {
    let mut mesh = Mesh::start().await;
    let text = |word: &str| format!("# {word}\n\n{word} text\n\n").repeat(30);
    mesh.put("acme", document("docs", "a", &text("old"))).await.unwrap();
    for _ in 0..3 {
        let call = Mesh::call("acme");
        let mut client = mesh.client();
        let put = document("docs", "a", &text("new"));
        let writing = tokio::spawn(async move { client.put_document(call.request(put)).await });
        tokio::task::yield_now().await;
        mesh = mesh.abort().await;
        let _ = writing.await;
        let old = mesh.search("acme", "docs", "old", Mode::Keyword).await.unwrap().hits.len();
        let new = mesh.search("acme", "docs", "new", Mode::Keyword).await.unwrap().hits.len();
        assert!(old == 0 || new == 0, "{old} {new}");
        assert!(old + new > 0);
        mesh.put("acme", document("docs", "a", &text("old"))).await.unwrap();
    }
}

#[tokio::test]
async fn writers_and_readers_side_by_side_lose_nothing() {
    let mesh = Arc::new(Mesh::start().await);
    let writers = (0..8).map(|writer| {
        let mesh = Arc::clone(&mesh);
        tokio::spawn(async move {
            for round in 0..6 {
                let (id, word) = (format!("doc-{writer}"), format!("word{writer}x{round}"));
                let done = mesh.put("acme", document("docs", &id, &word)).await.unwrap();
                let found = mesh.search("acme", "docs", &word, Mode::Keyword).await.unwrap();
                assert_eq!(found.hits.len(), 1, "{word} is not there after its write");
                assert!(found.version >= done.version);
                let last = format!("word{writer}x{}", round - 1);
                let old = mesh.search("acme", "docs", &last, Mode::Keyword).await.unwrap();
                assert!(old.hits.is_empty(), "{last} is still there");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let collection = mesh.collection("acme", "docs").await;
    assert_eq!((collection.documents, collection.chunks), (8, 8));
}

#[tokio::test]
async fn a_word_of_a_million_letters_is_stored_and_found() {
    let mesh = Mesh::start().await;
    mesh.router.switch(false);
    let text = format!("{} needle", "x".repeat(1_000_000));
    let done = mesh.put("acme", document("docs", "long", &text)).await.unwrap();
    assert!(done.chunks > 4000);
    let found = mesh.search("acme", "docs", "needle", Mode::Keyword).await.unwrap();
    assert!(found.hits[0].text.ends_with("needle"));
}
