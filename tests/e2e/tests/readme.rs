//! What the READMEs tell people to type, typed.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use e2e::{
    Mesh, models,
    readme::{self, Block, Terminal},
    skip, workspace,
};
use std::fs;

/// A block that a test runs.
struct Expected {
    /// What it holds and no other does.
    holds: &'static str,
    /// Words of what it prints, in either language.
    prints: &'static [&'static str],
    /// A word of the answer in English and in Chinese. How well it answers is
    /// not judged here: a busy machine compares words alone.
    answers: [&'static str; 2],
}

const EXPECTED: [Expected; 6] = [
    Expected {
        holds: "skein ingest",
        prints: &["0 failed", "NOT_SERVING", "x-skein-token", "skein-model-proxy"],
        answers: ["notice period", "通知期"],
    },
    Expected {
        holds: "curl -sS",
        prints: &["local/extractive", "[DONE]"],
        answers: ["API key", "API 密钥"],
    },
    Expected {
        holds: "from openai",
        prints: &["k = 60", "384 dimensions"],
        answers: ["reciprocal rank fusion", "倒数排名融合"],
    },
    Expected { holds: "import os, grpc", prints: &[], answers: ["en/", "zh/"] },
    Expected {
        holds: "grpcurl -plaintext",
        prints: &["skein.agent.v1.AgentService", "\"default\"", "RUN_STATUS_COMPLETED"],
        answers: ["headings", "标题"],
    },
    Expected { holds: "import OpenAI", prints: &[], answers: ["nano-dollars", "纳美元"] },
];

fn read(name: &str) -> Vec<Block> {
    readme::blocks(&fs::read_to_string(workspace().join(name)).unwrap())
}

/// Types every block of `file` that a test can; `language`: of its questions.
async fn every_block_answers(file: &'static str, language: usize) {
    if models().is_none() {
        return skip("no embedded models (`make models`), which the READMEs use");
    }
    let mesh = Mesh::start().await;
    let typed = move || {
        let (beyond, run): (Vec<_>, Vec<_>) =
            read(file).into_iter().partition(Block::is_beyond_tests);
        beyond.iter().for_each(|block| readme::not_run(file, block));
        assert_eq!(run.len(), EXPECTED.len(), "{file}: a block has come or gone");
        let terminal = Terminal::open(&mesh, &run[0]);
        for (block, expected) in run.iter().zip(&EXPECTED) {
            let Expected { holds, prints, answers } = expected;
            assert!(block.code.contains(holds), "{file}: {holds:?} is not in {}", block.code);
            let Some(said) = terminal.run(block) else { continue };
            for word in prints.iter().chain([&answers[language]]) {
                assert!(said.contains(word), "{file}: {}\nlacks {word:?}:\n{said}", block.code);
            }
        }
    };
    tokio::task::spawn_blocking(typed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_of_the_english_readme_answers() {
    every_block_answers("README.md", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_of_the_chinese_readme_answers() {
    every_block_answers("README.zh-CN.md", 1).await;
}

#[test]
fn both_readmes_hold_the_same_commands() {
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    let kinds = |blocks: &[Block]| blocks.iter().map(|b| b.language.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&english), kinds(&chinese));
    for (one, other) in english.iter().zip(&chinese) {
        let (one, other) = (one.commands(), other.commands());
        assert_eq!(one.len(), other.len(), "{one:#?}\n{other:#?}");
        for (one, other) in one.iter().zip(&other) {
            assert!(same_but_for_words(one, other), "{one}\n{other}");
        }
    }
}

/// Equal, or different only in one run of plain words, Chinese in `chinese`.
fn same_but_for_words(english: &str, chinese: &str) -> bool {
    if english == chinese {
        return true;
    }
    let (one, other): (Vec<_>, Vec<_>) = (english.chars().collect(), chinese.chars().collect());
    let start = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[start..], &other[start..]);
    let end = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[..one.len() - end], &other[..other.len() - end]);
    let plain = |c: &char| c.is_alphanumeric() || " ?？，".contains(*c);
    one.iter().all(plain) && other.iter().all(plain) && other.iter().any(|c| !c.is_ascii())
}

#[test]
fn a_flag_or_a_path_in_one_language_alone_is_a_difference() {
    assert!(same_but_for_words("ask \"What is it?\"", "ask \"这是什么？\""));
    assert!(!same_but_for_words("search --top-k 3 token", "search 令牌"));
    assert!(!same_but_for_words("ask it", "ask that"));
}
