//! What every recording of this dialect says, however it is cut.
//!
//! Each file of `MANIFEST.tsv` is replayed here or beside another translator,
//! or it is in [`NOT_SPOKEN`] with the reason.

use super::{Provider as _, golden};
use crate::{
    error::Failure,
    provider::{
        refused,
        replay::{Framing, decode, files, folder, prove, read, told},
    },
};
use mesh::error::ServiceError as _;
use skein_proto::model::v1::{EmbedInput, EmbedRequest};
use std::time::Duration;

/// Name, and what it tells: texts by choice (length and hash), calls, why each
/// choice ended, tokens (input: uncached + read + written, output, reasoning).
/// Each is there as it was sent or framed (`.sse.txt`), most as bare chunks
/// too (`.chunks.jsonl`).
const STREAMS: [(&str, &str); 15] = [
    ("openai-chat-raw-sse/length", "text[0] 2:25656e28 | Length, in 79+0+0 out 1 (0)"),
    ("openai-chat-raw-sse/logprobs", "text[0] 4:007d2962 | Stop, in 9+0+0 out 2 (0)"),
    (
        "openai-chat-raw-sse/n3_interleaved",
        "text[0] 53:499b0282 | text[1] 53:ef03ea8e | text[2] 53:d1b9c3df | Stop, Stop, Stop, \
         in 79+0+0 out 42 (0)",
    ),
    ("openai-chat-raw-sse/refusal_logprobs", "refusal[0] 45:7d3005da | Stop, in 79+0+0 out 12 (0)"),
    ("openai-chat-raw-sse/text", "text[0] 159:846b0d93 | Stop, in 14+0+0 out 30 (0)"),
    (
        "openai-chat-raw-sse/tool_call",
        "call[0.0] call_c91SqDXlYFuETYv8mUHzz6pp GetWeatherArgs \
         {\"city\":\"Edinburgh\",\"country\":\"UK\",\"units\":\"c\"} | ToolCalls, in 76+0+0 out 24 (0)",
    ),
    (
        "openai-chat/alibaba-tool-call",
        "call[0.0] call_eee11723464a4b9eb8cee71d weather {\"location\": \"San Francisco\"} | \
         ToolCalls, in 295+0+0 out 22 (0)",
    ),
    (
        "openai-chat/anthropic-fallback-tool-call",
        "text[0] 11:47d5859e | call[0.0] toolu_sanitized read_file {\"path\": \"a.txt\"} | \
         ToolCalls, no usage",
    ),
    ("openai-chat/azure-model-router.1", "text[0] 19:9ba188a0 | Stop, in 15+0+0 out 78 (64)"),
    (
        "openai-chat/deepseek-tool-call",
        "reasoning[0] 191:3e08aa3c | call[0.0] call_00_ioIn7yN9p1ZOMNpDLwd4MgAF weather \
         {\"location\": \"San Francisco\"} | ToolCalls, in 19+320+0 out 83 (39)",
    ),
    (
        "openai-chat/groq-tool-call",
        "call[0.0] tk85n1k4m weather {} | ToolCalls, in 210+0+0 out 15 (0)",
    ),
    (
        "openai-chat/mistral-incremental-tool-call",
        "call[0.0] chatcmpl-tool-9f149c74c42f265b webSearchTool \
         {\"query\": \"current Berlin weather\"} | ToolCalls, in 43+128+0 out 14 (0)",
    ),
    ("openai-chat/mistral-text", "text[0] 38:6f0aa18a | Stop, in 13+0+0 out 8 (0)"),
    (
        "openai-chat/mistral-tool-call",
        "call[0.0] gSIMJiOkT weather {\"location\": \"San Francisco\"} | ToolCalls, \
         in 124+0+0 out 22 (0)",
    ),
    ("openai-chat/openai-text", "text[0] 1730:e462181a | Stop, in 16+0+0 out 300 (0)"),
];

/// xAI counts its reasoning beside the completion: 26 + 227.
const XAI: (&str, &str) = (
    "openai-chat/xai-tool-call",
    "reasoning[0] 1069:9a08ccb5 | call[0.0] call_79382389 weather \
     {\"location\":\"San Francisco\"} | ToolCalls, in 1+306+0 out 253 (227)",
);

const ANSWERS: [(&str, &str); 3] = [
    ("openai-chat/openai-text.json", "text[0] 1844:4611f5b2 | Stop, in 16+0+0 out 363 (0)"),
    (
        "openai-chat/deepseek-tool-call.json",
        "reasoning[0] 242:e0146045 | call[0.0] call_00_9V0vrf86Pc9aelHCJMZqnJBo weather \
         {\"location\": \"San Francisco\"} | ToolCalls, in 19+320+0 out 92 (48)",
    ),
    (
        "openai-chat/groq-tool-call.json",
        "call[0.0] ax9fskhev weather {} | ToolCalls, in 218+0+0 out 15 (0)",
    ),
];

/// Name, status, what it means, and the parameter that it is about.
const ERRORS: [(&str, u16, Failure, Option<&str>); 4] = [
    (
        "openai-chat/reasoning-model-legacy-parameter-error.json",
        400,
        Failure::BadRequest,
        Some("max_tokens"),
    ),
    (
        "openai-other/gpt-image-response-format-error.json",
        400,
        Failure::BadRequest,
        Some("response_format"),
    ),
    ("openai-responses/openai-error.1.json", 429, Failure::Quota, None),
    (
        "google/google-429-retry-info.json",
        429,
        Failure::RateLimited { retry_after: Some(Duration::from_millis(34_400)) },
        None,
    ),
];

/// Beginnings of names, and why.
const NOT_SPOKEN: [(&str, &str); 5] = [
    ("openai-responses/", "the Responses API: chats go out as chat completions"),
    ("openai-other/openai-completion-text", "the legacy completions API"),
    ("google/google-t", "Gemini's own API: Google is spoken to in OpenAI's dialect"),
    ("rerank-embed/", "no provider of reranking is connected; Cohere and Voyage have own dialects"),
    ("openai-other/openai-image", "pictures: see the translator of images"),
];

/// Replayed beside the translator of that name.
const ELSEWHERE: [&str; 1] = ["anthropic/"];

#[test]
fn streams_say_what_is_written_down_wherever_they_are_cut() {
    if folder().is_none() {
        return;
    }
    let one = |(name, expected): (&str, &str)| {
        let sent = format!("{name}.sse.txt");
        let stream = read(&sent, Framing::Data);
        assert_eq!(told(&prove(name, &stream, golden::decoder)), expected, "{name}");
        let chunks = format!("{name}.chunks.jsonl");
        if !folder().unwrap().join(&chunks).exists() {
            return vec![sent];
        }
        let outcome = decode(golden::decoder(), [read(&chunks, Framing::Data).as_slice()]);
        assert_eq!(told(&outcome), expected, "{chunks}");
        vec![sent, chunks]
    };
    let mut names: Vec<String> = std::thread::scope(|scope| {
        let rows = STREAMS.into_iter().chain([XAI]);
        let threads: Vec<_> = rows.map(|row| scope.spawn(move || one(row))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    names.sort();
    let all = files(&["openai-chat", "openai-chat-raw-sse"]).into_iter();
    let all: Vec<_> = all.filter(|name| !name.ends_with(".json")).collect();
    assert_eq!(names, all, "a recording that no row is about");
}

#[test]
fn whole_answers_say_what_is_written_down() {
    let Some(folder) = folder() else { return };
    for (name, expected) in ANSWERS {
        let (mut decoder, mut events) = (golden::decoder(), Vec::new());
        let body = std::fs::read(folder.join(name)).unwrap();
        let outcome = decoder.whole(&body, &mut events);
        assert_eq!(told(&(events, outcome)), expected, "{name}");
    }
    let body = std::fs::read(folder.join("openai-other/openai-embedding.json")).unwrap();
    let inputs = vec![EmbedInput::default(); 2];
    let request = EmbedRequest { inputs, ..EmbedRequest::default() };
    let read = golden::provider("http://127.0.0.1:1").embedded(&request, &body).unwrap();
    let first: Vec<_> = read.embeddings.iter().map(|embedding| embedding.values[0]).collect();
    assert_eq!(first, [0.005_729_319_5, -0.037_104_916]);
    assert_eq!(read.usage.unwrap().input_uncached, 12);
}

#[test]
fn errors_mean_what_is_written_down() {
    let Some(folder) = folder() else { return };
    for (name, status, meant, about) in ERRORS {
        let body = std::fs::read(folder.join(name)).unwrap();
        let provider = golden::provider("http://127.0.0.1:1");
        let error = refused(&provider, status, &http::HeaderMap::new(), &body);
        assert_eq!((error.failure(), error.field()), (Some(meant), about), "{name}");
    }
}

#[test]
fn every_recording_is_replayed_or_has_a_reason() {
    let Some(folder) = folder() else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    for line in manifest.lines().skip(1) {
        let fields: Vec<_> = line.split('\t').collect();
        let name = format!("{}/{}", fields[0], fields[1]);
        let starts = |begin: &&str| name.starts_with(*begin);
        let known = STREAMS.iter().chain([&XAI]).any(|(stream, _)| starts(stream))
            || ANSWERS.iter().any(|(whole, _)| starts(whole))
            || ERRORS.iter().any(|(error, ..)| starts(error))
            || NOT_SPOKEN.iter().any(|(begin, _)| starts(begin))
            || ELSEWHERE.iter().any(starts)
            || name == "openai-other/openai-embedding.json";
        assert!(known, "{name} is replayed nowhere");
    }
}
