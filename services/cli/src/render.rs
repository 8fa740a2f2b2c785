//! How answers look: pure functions from what was said to text and JSON.
//!
//! Invariants:
//! - Money is exact: a price below a millionth of a dollar is not shown as
//!   nothing, and an unknown price is `unknown`, never zero.
//! - A span is shown in bytes of the document, half-open, as it is stored.

use serde_json::{Value, json};
use skein_proto::{
    agent::v1::{PathStep, Run},
    model::v1::{Citation, Span, Usage},
};

/// The text, or null where there is none.
pub(crate) fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// `bytes 10..42`
pub(crate) fn span(span: Option<&Span>) -> String {
    span.map(|span| format!("bytes {}..{}", span.start, span.end)).unwrap_or_default()
}

pub(crate) fn span_json(span: Option<&Span>) -> Value {
    span.map_or(Value::Null, |span| json!({ "start": span.start, "end": span.end }))
}

/// At most `limit` characters on one line.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(limit) {
        None => flat,
        Some(_) => flat.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Cells beyond this make no column wider.
const WIDEST: usize = 48;

/// Columns as wide as their widest usual cell, two spaces between.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).filter(|width| *width <= WIDEST).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// `12.3 ms`
pub(crate) fn millis(micros: u64) -> String {
    if micros < 100_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn nano_usd(usage: Option<&Usage>) -> Option<i64> {
    usage?.cost.as_ref()?.nano_usd
}

pub(crate) fn cost(usage: Option<&Usage>) -> String {
    let Some(nano) = nano_usd(usage) else { return "unknown".to_owned() };
    let (dollars, rest) = (nano / 1_000_000_000, (nano % 1_000_000_000).unsigned_abs());
    if rest % 1_000 == 0 {
        format!("${dollars}.{:06}", rest / 1_000)
    } else {
        format!("${dollars}.{rest:09}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "JSON has no integers of a billionth of a dollar")]
fn cost_json(usage: Option<&Usage>) -> Option<f64> {
    nano_usd(usage).map(|nano| nano as f64 / 1e9)
}

fn input_tokens(usage: &Usage) -> i64 {
    usage.input_uncached + usage.input_cache_read + usage.input_cache_write
}

/// What the answer rests on, how it came about, what it cost.
pub(crate) fn footer(run: &Run) -> String {
    let mut out = String::new();
    for shown in grouped(&run.citations) {
        let Citation { passage, document_id, title, collection, .. } = shown[0];
        let name = if title.is_empty() { document_id } else { title };
        out += &format!("[{}] {name} ({collection}/{document_id})\n", passage + 1);
        for citation in shown {
            let place = span(citation.span.as_ref());
            out += &format!("    {place}  “{}”\n", shorten(&citation.quote, 160));
        }
    }
    if !run.path.is_empty() {
        out += &format!("path    {}\n", path(&run.path));
    }
    let usage = run.usage.unwrap_or_default();
    let about = if usage.estimated { "about " } else { "" };
    let tokens = format!("{about}{} in, {} out", input_tokens(&usage), usage.output);
    let model = present(&run.model).map(|model| format!(" · {model}")).unwrap_or_default();
    out += &format!("tokens  {tokens} · cost {}{model}\n", cost(run.usage.as_ref()));
    out
}

/// The citations by passage, in the order of the answer. A whole passage is
/// left out where a part of it is quoted.
fn grouped(citations: &[Citation]) -> Vec<Vec<&Citation>> {
    let mut groups: Vec<Vec<&Citation>> = Vec::new();
    for citation in citations {
        if citations.iter().any(|other| holds(citation, other)) {
            continue;
        }
        match groups.iter_mut().find(|group| group[0].passage == citation.passage) {
            Some(group) => group.push(citation),
            None => groups.push(vec![citation]),
        }
    }
    groups
}

/// Whether `part` is a smaller piece of the same document's `whole`.
fn holds(whole: &Citation, part: &Citation) -> bool {
    let same = (&whole.collection, &whole.document_id) == (&part.collection, &part.document_id);
    match (&whole.span, &part.span) {
        (Some(outer), Some(inner)) if same && outer != inner => {
            outer.start <= inner.start && inner.end <= outer.end
        }
        _ => false,
    }
}

fn path(steps: &[PathStep]) -> String {
    let step = |step: &PathStep| {
        let what = present(&step.what).map(|what| format!(" {what}")).unwrap_or_default();
        let micros = u64::try_from(step.duration_us).unwrap_or_default();
        let PathStep { app, machine, region, .. } = step;
        format!("{app} {machine} {region}{what} {}", millis(micros))
    };
    steps.iter().map(step).collect::<Vec<_>>().join(" → ")
}

/// The one object of `skein ask --json`.
pub(crate) fn run_json(run: &Run) -> Value {
    let citation = |citation: &Citation| {
        json!({
            "number": citation.passage + 1,
            "collection": citation.collection,
            "document_id": citation.document_id,
            "chunk_id": citation.chunk_id,
            "title": citation.title,
            "span": span_json(citation.span.as_ref()),
            "quote": citation.quote,
        })
    };
    let step = |step: &PathStep| {
        json!({
            "app": step.app, "machine": step.machine, "region": step.region,
            "duration_us": step.duration_us, "what": step.what,
        })
    };
    let usage = run.usage.as_ref();
    let tokens = usage.map(|usage| {
        json!({
            "input_tokens": input_tokens(usage),
            "input_cache_read": usage.input_cache_read,
            "input_cache_write": usage.input_cache_write,
            "output_tokens": usage.output,
            "output_reasoning": usage.output_reasoning,
            "estimated": usage.estimated,
        })
    });
    json!({
        "answer": run.output,
        "citations": run.citations.iter().map(citation).collect::<Vec<_>>(),
        "usage": tokens,
        "cost_usd": cost_json(usage),
        "path": run.path.iter().map(step).collect::<Vec<_>>(),
        "model": run.model,
        "run_id": run.id,
        "thread_id": run.thread_id,
        "degraded": present(&run.degraded),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_proto::model::v1::Cost;

    fn priced(nano_usd: Option<i64>) -> Usage {
        Usage { cost: Some(Cost { nano_usd }), ..Usage::default() }
    }

    #[test]
    fn money_is_exact_and_unknown_is_not_zero() {
        assert_eq!(cost(Some(&priced(Some(0)))), "$0.000000");
        assert_eq!(cost(Some(&priced(Some(1_234_567_000)))), "$1.234567");
        assert_eq!(cost(Some(&priced(Some(42)))), "$0.000000042");
        assert_eq!(cost(Some(&priced(None))), "unknown");
        assert_eq!(cost(None), "unknown");
        assert_eq!(cost_json(None), None);
        assert_eq!(cost_json(Some(&priced(Some(500_000_000)))), Some(0.5));
    }

    #[test]
    fn short_text_is_one_line_cut_between_characters() {
        assert_eq!(shorten("a\n b", 10), "a b");
        assert_eq!(shorten("一二三四", 4), "一二三四");
        assert_eq!(shorten("一二三四五", 4), "一二三…");
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(millis(1_234), "1.2 ms");
        assert_eq!(millis(812_345), "812 ms");
        assert_eq!(duration(59_999), "59s");
        assert_eq!(duration(3_600_000), "1h 0m");
        assert_eq!(duration(90_000_000), "1d 1h");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a    b\nccc\n");
        let long = "x".repeat(WIDEST + 1);
        let rows = [vec![long.clone(), "b".to_owned()], vec!["c".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), format!("{long}  b\nc  d\n"));
    }

    #[test]
    fn a_passage_is_named_once_and_its_parts_stand_for_it() {
        let citation = |passage, start, end| Citation {
            passage,
            document_id: format!("d{passage}"),
            span: Some(Span { start, end }),
            ..Citation::default()
        };
        let all = [citation(1, 5, 9), citation(0, 0, 4), citation(1, 11, 12), citation(1, 0, 90)];
        let groups = grouped(&all);
        assert_eq!(groups, [vec![&all[0], &all[2]], vec![&all[1]]]);
        assert_eq!(grouped(&all[3..]), [[&all[3]]]);
    }
}
