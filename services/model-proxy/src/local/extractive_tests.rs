//! Questions on a page in either language; the quotes must hold the answer.

use super::*;
use skein_proto::model::v1::{ContentPart, Message};

const ENGLISH: &str = include_str!("fixtures/harbour.md");
const CHINESE: &str = include_str!("fixtures/harbour.zh.md");
/// Where the page begins in its (imagined) document.
const START: u64 = 1000;

fn request(question: &str, text: &str) -> GenerateRequest {
    let content =
        vec![ContentPart { part: Some(Part::Text(question.to_owned())), ..ContentPart::default() }];
    let half =
        text.match_indices("\n\n").map(|(at, _)| at).find(|at| *at >= text.len() / 2).unwrap_or(0);
    let passages = [(0, half), (half, text.len())].map(|(from, to)| Passage {
        document_id: "page".to_owned(),
        text: text[from..to].to_owned(),
        span: Some(Span { start: START + from as u64, end: START + to as u64 }),
        ..Passage::default()
    });
    GenerateRequest {
        messages: vec![Message { role: Role::User.into(), content, ..Message::default() }],
        passages: passages.to_vec(),
        ..GenerateRequest::default()
    }
}

fn citations(request: &GenerateRequest) -> (String, Vec<Citation>) {
    let (mut text, mut citations) = (String::new(), Vec::new());
    for event in events(request, &Search::new(Arc::new(request.clone())).choose(&[])) {
        if let Event::Delta(delta) = event {
            match delta.piece {
                Some(Piece::Text(piece)) => text.push_str(&piece),
                Some(Piece::Citation(citation)) => citations.push(citation),
                _ => {}
            }
        }
    }
    (text, citations)
}

fn right(text: &str, questions: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (question, answer) in questions {
        let request = request(question, text);
        let (said, citations) = citations(&request);
        for citation in &citations {
            let span = citation.span.unwrap();
            let from = usize::try_from(span.start - START).unwrap();
            let to = usize::try_from(span.end - START).unwrap();
            assert_eq!(&text[from..to], citation.quote);
            assert!(said.contains(&citation.quote));
        }
        if !citations.iter().any(|citation| citation.quote.contains(answer)) {
            wrong.push((*question, said));
        }
    }
    assert!(
        wrong.len() * 5 <= questions.len(),
        "{} of {} wrong: {wrong:#?}",
        wrong.len(),
        questions.len()
    );
}

#[test]
fn english_questions_find_their_sentences() {
    right(
        ENGLISH,
        &[
            ("Which port does the gateway listen on?", "8080"),
            ("How long does the service wait before it drains?", "two seconds"),
            ("What happens to a stream without a finish reason?", "STREAM_CUT"),
            ("Who may call the model proxy?", "router"),
            ("Where are API keys stored?", "hashed"),
            ("How many bytes may a request body have?", "32 MiB"),
            ("What command starts the whole mesh?", "make up"),
            ("Why are addresses never an identity?", "move"),
            ("What does exit code 5 mean?", "budget"),
            ("How are budgets counted?", "nano-dollars"),
        ],
    );
}

#[test]
fn chinese_questions_find_their_sentences() {
    right(
        CHINESE,
        &[
            ("网关监听哪个端口？", "8080"),
            ("服务在排空之前等待多久？", "两秒"),
            ("没有结束原因的流会怎样？", "STREAM_CUT"),
            ("谁可以调用模型代理？", "路由器"),
            ("API 密钥是怎么保存的？", "散列"),
            ("请求体最大可以多大？", "32 MiB"),
            ("用什么命令启动整个网格？", "make up"),
            ("为什么地址不能当作身份？", "移动"),
            ("退出码 5 表示什么？", "预算"),
            ("预算用什么单位计算？", "纳美元"),
        ],
    );
}

#[test]
fn without_a_match_it_says_so_and_quotes_nothing() {
    let (said, cited) = citations(&request("Who painted the Mona Lisa?", ENGLISH));
    assert_eq!((said.as_str(), cited.len()), ("None of the 2 passages found answers this.", 0));
    let (said, cited) = citations(&request("蒙娜丽莎由谁绘制？", CHINESE));
    assert_eq!((said.as_str(), cited.len()), ("找到的 2 个段落都没有回答这个问题。", 0));
}

#[test]
fn a_span_that_does_not_fit_its_text_is_not_claimed() {
    let mut request = request("Which port does the gateway listen on?", ENGLISH);
    request.passages[0].span = Some(Span { start: 0, end: 1 });
    request.passages[1].span = None;
    let (_, cited) = citations(&request);
    assert!(!cited.is_empty() && cited.iter().all(|citation| citation.span.is_none()));
}

#[test]
fn any_text_is_survived() {
    for text in ["\n\n", "😀\n\n😀", "|||\n\n```", &"word".repeat(100_000), "a\n\n\u{0}"] {
        let text = format!("{text}\n\n{text}");
        citations(&request("word 😀?", &text));
    }
}
