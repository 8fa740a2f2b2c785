//! HTML as the text a reader sees, with headings in Markdown's form.
//!
//! What is stored, cut and cited is this text: spans refer to it.
//!
//! Invariants:
//! - scripts, styles and other unseen elements leave nothing behind;
//! - blocks are apart by a blank line, blanks inside them are one space, except
//!   in preformatted text;
//! - any bytes parse; nesting costs no stack, and what is nested beyond any page
//!   is refused: the parser's time grows with the square of the depth.

use scraper::{Html, Node};

/// Far above what people write.
const DEEPEST: usize = 1000;

#[derive(Debug, thiserror::Error)]
#[error("elements are nested more than {DEEPEST} deep")]
pub struct TooDeep;

pub fn to_text(source: &str) -> Result<String, TooDeep> {
    if depth(source) > DEEPEST {
        return Err(TooDeep);
    }
    let html = Html::parse_document(source);
    let mut page = Page::default();
    let mut node = html.tree.root();
    loop {
        if page.open(node.value())
            && let Some(child) = node.first_child()
        {
            node = child;
            continue;
        }
        page.close(node.value());
        loop {
            if let Some(next) = node.next_sibling() {
                node = next;
                break;
            }
            let Some(parent) = node.parent() else { return Ok(page.finish()) };
            page.close(parent.value());
            node = parent;
        }
    }
}

/// How deep the parser's stack may get: start tags without their end tags, but
/// for elements that the next one of their kind ends.
fn depth(source: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for tag in source.split('<').skip(1) {
        let closes = tag.starts_with('/');
        let name: String = tag
            .chars()
            .skip(usize::from(closes))
            .take_while(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .take(16)
            .collect();
        if name.is_empty() || ends_by_itself(&name) {
            continue;
        }
        open = if closes { open.saturating_sub(1) } else { open + 1 };
        deepest = deepest.max(open);
    }
    deepest
}

fn ends_by_itself(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "br"
            | "col"
            | "embed"
            | "hr"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "param"
            | "source"
            | "track"
            | "wbr"
            | "p"
            | "li"
            | "dt"
            | "dd"
            | "tr"
            | "td"
            | "th"
            | "thead"
            | "tbody"
            | "tfoot"
            | "option"
            | "optgroup"
            | "rt"
            | "rp"
    )
}

#[derive(Default)]
struct Page {
    text: String,
    /// Something to put before the next word: a blank, or the start of a block.
    pending: Pending,
    /// `# ` or `- `, to put before the next word.
    mark: &'static str,
    preformatted: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    #[default]
    Nothing,
    Blank,
    Line,
    Block,
}

impl Page {
    /// Whether to go on to the children.
    fn open(&mut self, node: &Node) -> bool {
        match node {
            Node::Text(text) => self.write(text),
            Node::Element(element) => {
                let name = element.name();
                if is_unseen(name) {
                    return false;
                }
                self.apart(name);
                if name == "pre" {
                    self.preformatted += 1;
                }
                let mark = mark(name);
                if !mark.is_empty() {
                    self.mark = mark;
                }
            }
            _ => {}
        }
        true
    }

    fn close(&mut self, node: &Node) {
        if let Node::Element(element) = node {
            self.apart(element.name());
            if element.name() == "pre" {
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            if !mark(element.name()).is_empty() {
                self.mark = ""; // of an element without a word
            }
        }
    }

    fn apart(&mut self, name: &str) {
        let distance = match name {
            "br" | "li" | "tr" | "dt" | "dd" | "option" => Pending::Line,
            "td" | "th" => Pending::Blank,
            _ if is_block(name) => Pending::Block,
            _ => return,
        };
        self.pending = self.pending.max(distance);
    }

    fn write(&mut self, text: &str) {
        if self.preformatted > 0 {
            if !text.trim().is_empty() {
                self.begin();
            }
            self.text.push_str(text);
            return;
        }
        if text.starts_with(char::is_whitespace) {
            self.pending = self.pending.max(Pending::Blank);
        }
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            self.begin();
            self.text.push_str(word);
            if words.peek().is_some() || text.ends_with(char::is_whitespace) {
                self.pending = Pending::Blank;
            }
        }
    }

    fn begin(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str(match self.pending {
                Pending::Nothing => "",
                Pending::Blank => " ",
                Pending::Line => "\n",
                Pending::Block => "\n\n",
            });
        }
        self.pending = Pending::Nothing;
        self.text.push_str(std::mem::take(&mut self.mark));
    }

    fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

fn is_unseen(name: &str) -> bool {
    matches!(
        name,
        "script"
            | "style"
            | "head"
            | "noscript"
            | "template"
            | "svg"
            | "math"
            | "iframe"
            | "object"
            | "canvas"
            | "audio"
            | "video"
    )
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "div"
            | "dl"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hr"
            | "main"
            | "nav"
            | "ol"
            | "p"
            | "pre"
            | "section"
            | "table"
            | "ul"
    )
}

fn mark(name: &str) -> &'static str {
    match name {
        "h1" => "# ",
        "h2" => "## ",
        "h3" => "### ",
        "h4" => "#### ",
        "h5" => "##### ",
        "h6" => "###### ",
        "li" => "- ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::to_text;

    #[test]
    fn a_page_becomes_what_its_reader_sees() {
        let page = "<!doctype html><html><head><title>T</title><style>b{}</style></head><body>\
            <h1>Guide</h1><script>alert(1)</script><p>One <b>two</b>\n three.</p><ul><li>a<li>b</ul>\
            <pre>x\n  y</pre><p>4 &lt; 5 &amp; 天</p>";
        assert_eq!(
            to_text(page).unwrap(),
            "# Guide\n\nOne two three.\n\n- a\n- b\n\nx\n  y\n\n4 < 5 & 天"
        );
    }

    #[test]
    fn words_across_inline_elements_stay_whole() {
        assert_eq!(to_text("<p>re<em>try</em>, now</p>").unwrap(), "retry, now");
    }

    #[test]
    fn broken_and_deep_pages_are_read() {
        assert_eq!(to_text("").unwrap(), "");
        assert_eq!(to_text("just text").unwrap(), "just text");
        assert_eq!(to_text("<p>open <b>bold").unwrap(), "open bold");
        assert_eq!(to_text(&format!("{}x", "<div>".repeat(900))).unwrap(), "x");
        assert!(to_text(&"<div>".repeat(1_000_000)).is_err());
        let list = to_text(&"<li>a".repeat(5000)).unwrap();
        assert_eq!(list.lines().count(), 5000);
    }
}
