//! Who shares a call with whom, and what each gets of it.

use super::*;
use skein_proto::model::v1::embed_input::Input;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{sync::Semaphore, task::JoinSet};

const MANY: Limits = Limits { inputs: 2048, tokens: 240_000 };

/// A provider: its calls, by their inputs; each answers when it gets a permit.
struct Provider {
    calls: Mutex<Vec<Vec<String>>>,
    permits: Semaphore,
    ended: AtomicUsize,
}

struct Ended(Arc<Provider>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// A vector tells its text: its length.
fn provider(permits: usize) -> (Arc<Provider>, Arc<Way>) {
    let (calls, permits) = (Mutex::default(), Semaphore::new(permits));
    let provider = Arc::new(Provider { calls, permits, ended: AtomicUsize::new(0) });
    let asked = Arc::clone(&provider);
    let ask: Ask = Arc::new(move |request: EmbedRequest, _| {
        let provider = Arc::clone(&asked);
        async move {
            let _ended = Ended(Arc::clone(&provider));
            let texts: Vec<_> = request.inputs.iter().map(text).collect();
            provider.calls.lock().unwrap().push(texts.clone());
            tokio::time::sleep(Duration::from_millis(10)).await;
            provider.permits.acquire().await.unwrap().forget();
            if texts.iter().any(|text| text.contains("poison")) {
                return Err(Error::provider("p", Failure::BadRequest, "poisoned"));
            }
            #[expect(clippy::cast_precision_loss, reason = "short texts")]
            let vector = |text: &String| Embedding { values: vec![text.len() as f32] };
            let usage = Usage { input_uncached: 1 + 3 * texts.len() as i64, ..Usage::default() };
            Ok((texts.iter().map(vector).collect(), Some(usage)))
        }
        .boxed()
    });
    (provider, Arc::new(Way { limits: MANY, ask }))
}

fn nobody() -> Arc<Upstream> {
    Arc::default()
}

fn text(input: &EmbedInput) -> String {
    match &input.input {
        Some(Input::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn request(texts: &[String]) -> EmbedRequest {
    let input = |text: &String| EmbedInput { input: Some(Input::Text(text.clone())) };
    EmbedRequest { inputs: texts.iter().map(input).collect(), ..EmbedRequest::default() }
}

impl Provider {
    fn calls(&self) -> Vec<Vec<String>> {
        self.calls.lock().unwrap().clone()
    }
}

fn lengths(answer: &Answer) -> Vec<f32> {
    answer.as_ref().unwrap().0.iter().map(|embedding| embedding.values[0]).collect()
}

/// Lets everybody who can go on go on, without the clock.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_callers_are_two_calls_and_each_gets_his_own() {
    let (provider, way) = provider(usize::MAX >> 4);
    let batches = Batches::new(Duration::from_millis(3));
    let mut callers = JoinSet::new();
    for caller in 0..100_usize {
        let (batches, way) = (Arc::clone(&batches), Arc::clone(&way));
        callers.spawn(async move {
            let texts: Vec<_> = (0..=caller % 3).map(|at| "x".repeat(1 + caller + at)).collect();
            let answer = batches.embed("p/m", request(&texts), &nobody(), &way).await;
            #[expect(clippy::cast_precision_loss, reason = "short texts")]
            let expected: Vec<_> = texts.iter().map(|text| text.len() as f32).collect();
            assert_eq!(lengths(&answer), expected);
            answer.unwrap().1.unwrap().input_uncached
        });
    }
    let tokens: i64 = callers.join_all().await.into_iter().sum();
    let calls = provider.calls();
    assert_eq!(calls.len(), 2, "the first, and everybody else");
    let counted: i64 = calls.iter().map(|call| 1 + 3 * call.len() as i64).sum();
    assert_eq!(tokens, counted, "shares sum to what was counted");
    assert!(batches.lock().is_empty(), "nothing is kept");
}

#[tokio::test(start_paused = true)]
async fn one_bad_input_is_one_callers_error() {
    let (provider, way) = provider(usize::MAX >> 4);
    let batches = Batches::new(Duration::from_millis(3));
    let caller = |text: String| {
        let (batches, way) = (Arc::clone(&batches), Arc::clone(&way));
        async move { batches.embed("p/m", request(&[text]), &nobody(), &way).await }
    };
    let texts = (0..33).map(|at| if at == 20 { "poison".to_owned() } else { format!("t{at}") });
    let answers = futures_util::future::join_all(texts.map(caller)).await;
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_eq!(lengths(answer), [if at < 10 { 2.0 } else { 3.0 }]),
            Err(error) => assert_eq!((at, error.failure()), (20, Some(Failure::BadRequest))),
        }
    }
    assert!(answers[20].is_err());
    // The first alone, 32 together, and two halves for each of five divisions.
    assert_eq!(provider.calls().len(), 1 + 1 + 2 * 5);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_only_his_own_and_the_last_one_ends_the_call() {
    let (provider, way) = provider(0);
    let batches = Batches::new(Duration::from_millis(3));
    let caller = |text: &str| {
        let (batches, way, texts) = (Arc::clone(&batches), Arc::clone(&way), [text.to_owned()]);
        tokio::spawn(async move { batches.embed("p/m", request(&texts), &nobody(), &way).await })
    };
    let first = caller("first");
    settle().await;
    let (early, stays, late) = (caller("early"), caller("stays"), caller("late"));
    settle().await;
    early.abort();
    settle().await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    settle().await;
    assert_eq!(provider.calls(), [vec!["first"], vec!["stays", "late"]]);
    late.abort();
    settle().await;
    assert_eq!(provider.ended.load(Ordering::SeqCst), 0, "somebody waits for both calls");
    provider.permits.add_permits(2);
    assert_eq!(lengths(&stays.await.unwrap()), [5.0]);
    assert_eq!(lengths(&first.await.unwrap()), [5.0]);

    let (one, two) = (caller("one"), caller("two"));
    settle().await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    settle().await;
    two.abort();
    one.abort();
    settle().await;
    assert_eq!(provider.calls().len(), 4);
    assert_eq!(provider.ended.load(Ordering::SeqCst), 4, "nobody is left to wait");
    assert!(batches.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_goes_in_another_call_and_the_order_is_kept() {
    let (provider, way) = provider(usize::MAX >> 4);
    let batches = Batches::new(Duration::from_millis(3));
    let with = |limits| Way { limits, ask: Arc::clone(&way.ask) };
    let few = with(Limits { inputs: 4, tokens: 1000 });
    let texts: Vec<_> = (1..=10).map(|length| "x".repeat(length)).collect();
    let answer = batches.embed("p/m", request(&texts), &nobody(), &few).await;
    assert_eq!(lengths(&answer), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    assert_eq!(answer.unwrap().1.unwrap().input_uncached, 3 + 3 * 10);
    let sizes: Vec<_> = provider.calls().iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
    let tokens = with(Limits { inputs: 100, tokens: 3 });
    let words = vec!["four".to_owned(); 7];
    batches.embed("p/m", request(&words), &nobody(), &tokens).await.unwrap();
    assert_eq!(provider.calls()[3..].iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn only_what_differs_in_nothing_else_is_gathered() {
    let (provider, way) = provider(usize::MAX >> 4);
    let batches = Batches::new(Duration::from_millis(3));
    let plain = request(&["a".to_owned()]);
    let shorter = EmbedRequest { dimensions: Some(8), ..plain.clone() };
    let question = EmbedRequest { purpose: 1, ..plain.clone() };
    let own = EmbedRequest { extra_json: r#"{"user":"u"}"#.into(), ..plain.clone() };
    let alike = ["p/m", "p/m", "p/m", "p/n"].map(|model| (model, plain.clone()));
    let all = [("p/m", shorter), ("p/m", question), ("p/m", own)].into_iter().chain(alike);
    let book = nobody();
    let asked = all.map(|(model, request)| batches.embed(model, request, &book, &way));
    try_join_all(asked).await.unwrap();
    // Three of their own, one alone and two gathered, and one of another model.
    assert_eq!(provider.calls().len(), 3 + 2 + 1);
}

#[test]
fn shares_are_exact_and_never_negative() {
    let usage = Usage { input_uncached: 1_000_003, output: 1, ..Usage::default() };
    let weights = [0, 7, 1, 0, 300, 12];
    let whole: i64 = weights.iter().sum();
    let (mut before, mut sum) = (0, 0);
    for weight in weights {
        let one = share(usage, before, before + weight, whole).input_uncached;
        assert!(one >= 0 && (weight > 0 || one == 0));
        (before, sum) = (before + weight, sum + one);
    }
    assert_eq!(sum, usage.input_uncached);
}

#[test]
fn what_is_too_much_together_may_do_alone() {
    for (failure, halved) in [
        (Failure::BadRequest, true),
        (Failure::TooLarge, true),
        (Failure::Unavailable, false),
        (Failure::Quota, false),
    ] {
        assert_eq!(of_an_input(&Error::provider("p", failure, "no")), halved, "{failure:?}");
    }
}
