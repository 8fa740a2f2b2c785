//! Recorded streams are served as they were, however they are cut.

use crate::raw::{Ended, chat, message};
use providers::{Chunking, anthropic, openai, recordings};
use std::fs;

#[tokio::test]
async fn openai_s_are_served_byte_for_byte() {
    let fake = openai::start().await.unwrap();
    for file in recordings("openai-chat-raw-sse", ".sse.txt") {
        let bytes = fs::read(&file).unwrap();
        for chunking in
            [Chunking::Whole, Chunking::Seeded(7), Chunking::At(vec![1, bytes.len() / 2])]
        {
            fake.replay("m", bytes.clone(), chunking);
            let seen = chat(&fake.url, "m").await;
            assert!(seen.body == bytes && seen.ended == Ended::Clean, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn payloads_get_the_framing_of_their_provider() {
    let fake = anthropic::start().await.unwrap();
    for file in recordings("anthropic", ".chunks.jsonl") {
        let framed = file.to_string_lossy().replace(".chunks.jsonl", ".sse.txt");
        fake.replay("m", fs::read(&file).unwrap(), Chunking::Seeded(3));
        let seen = message(&fake.url, "m").await;
        assert!(
            seen.text().trim_end() == fs::read_to_string(&framed).unwrap().trim_end(),
            "{framed}"
        );
    }
    let fake = openai::start().await.unwrap();
    for file in recordings("openai-chat", ".chunks.jsonl") {
        let framed = file.to_string_lossy().replace(".chunks.jsonl", ".sse.txt");
        fake.replay("m", fs::read(&file).unwrap(), Chunking::Whole);
        let seen = chat(&fake.url, "m").await;
        assert!(
            seen.text().trim_end() == fs::read_to_string(&framed).unwrap().trim_end(),
            "{framed}"
        );
    }
}
