//! Which bytes of which document an answer rests on; pure.
//!
//! Invariants:
//! - the quote of every citation is exactly the bytes of its span in the stored
//!   document; one that is not is dropped, never shown;
//! - a marker that names no passage is text and nothing else.

use skein_proto::model::v1::{Citation, Passage, Span};

/// The citation as it may be shown: completed from its passage, or nothing.
pub fn checked(citation: &Citation, passages: &[Passage]) -> Option<Citation> {
    let passage = passages.get(usize::try_from(citation.passage).ok()?)?;
    let whole = span_of(passage)?;
    let span = citation.span.unwrap_or(whole);
    let start = usize::try_from(span.start.checked_sub(whole.start)?).ok()?;
    let end = usize::try_from(span.end.checked_sub(whole.start)?).ok()?;
    let quote = passage.text.get(start..end).filter(|quote| !quote.is_empty())?;
    if !citation.quote.is_empty() && citation.quote != quote {
        return None;
    }
    Some(Citation {
        passage: citation.passage,
        collection: passage.collection.clone(),
        document_id: passage.document_id.clone(),
        chunk_id: passage.chunk_id.clone(),
        title: passage.title.clone(),
        span: Some(span),
        quote: quote.to_owned(),
    })
}

/// For models that cite by writing `[1]`, `[2, 3]` or `【1】`: each passage once,
/// in the order of its first mention.
pub fn from_markers(answer: &str, passages: &[Passage]) -> Vec<Citation> {
    let mut seen = Vec::new();
    for piece in answer.split(['[', '【']).skip(1) {
        let Some(inside) =
            piece.split([']', '】']).next().filter(|inside| inside.len() < piece.len())
        else {
            continue;
        };
        for number in inside.split([',', '，', '、']) {
            let index = number.trim().parse::<u32>().ok().and_then(|number| number.checked_sub(1));
            seen.extend(index.filter(|index| !seen.contains(index)));
        }
    }
    let cite = |passage| checked(&Citation { passage, ..Citation::default() }, passages);
    seen.into_iter().filter_map(cite).collect()
}

/// Where a passage lies, if its text can be what lies there.
fn span_of(passage: &Passage) -> Option<Span> {
    let span = passage.span?;
    let length = u64::try_from(passage.text.len()).ok()?;
    (span.end.checked_sub(span.start)? == length).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(id: &str, start: u64, text: &str) -> Passage {
        Passage {
            document_id: id.to_owned(),
            text: text.to_owned(),
            span: Some(Span { start, end: start + text.len() as u64 }),
            ..Passage::default()
        }
    }

    fn ids(answer: &str) -> Vec<String> {
        let passages = [passage("a", 0, "one"), passage("b", 7, "two"), passage("c", 0, "雁")];
        from_markers(answer, &passages).into_iter().map(|citation| citation.document_id).collect()
    }

    #[test]
    fn markers_lead_to_passages() {
        for (answer, expected) in [
            ("Yes [2]. And [1][2].", vec!["b", "a"]),
            ("Both [1, 3].", vec!["a", "c"]),
            ("是的【3】。", vec!["c"]),
            ("[0] [4] [x] [] [-1] [1", vec![]),
            ("array[1]", vec!["a"]),
            ("", vec![]),
        ] {
            assert_eq!(ids(answer), expected, "{answer}");
        }
    }

    #[test]
    fn a_quote_is_the_bytes_of_its_span() {
        let passages = [passage("a", 100, "grey geese fly")];
        let part = |start, end, quote: &str| Citation {
            span: Some(Span { start, end }),
            quote: quote.to_owned(),
            ..Citation::default()
        };
        let cited = checked(&part(105, 110, ""), &passages).unwrap();
        assert_eq!((cited.quote.as_str(), cited.document_id.as_str()), ("geese", "a"));
        assert!(checked(&part(105, 110, "geese"), &passages).is_some());
        for wrong in
            [part(105, 110, "goose"), part(99, 110, ""), part(105, 200, ""), part(110, 105, "")]
        {
            assert_eq!(checked(&wrong, &passages), None);
        }
        let unknown = Citation { passage: 1, ..Citation::default() };
        assert_eq!(checked(&unknown, &passages), None);
        let lying = Passage { span: Some(Span { start: 0, end: 2 }), ..passage("a", 0, "long") };
        assert_eq!(from_markers("[1]", &[lying]), Vec::new());
    }
}
