//! Token counts for providers that never said, and for local sentences.
//!
//! Text is counted by a rule of thumb of today's vocabularies, four bytes of
//! Latin text a token, one and a half characters of Chinese; a [`Sample`] of it
//! is kept, so that a tokenizer can correct the rule where a count is needed.
//!
//! Invariants:
//! - An estimate is always marked as one (`Usage.estimated`), and more text
//!   never counts less.
//! - Of a text, however long, at most [`KEPT`] bytes are kept.

use skein_proto::model::v1::{
    EmbedInput, EmbedRequest, GenerateImageRequest, GenerateRequest, Image, Message,
    content_part::Part, embed_input::Input,
};

/// Bytes of a call's input, and of its output, that a tokenizer may read: a
/// thousand tokens, and no burden where thousands of streams are open. The rest
/// is taken to be like them.
pub const KEPT: usize = 4 << 10;
/// Tokens that the format spends on each message.
const PER_MESSAGE: i64 = 4;
/// And on a call of a tool: seven to thirty-four in what providers were recorded
/// to bill, thirteen in the middle.
pub const PER_CALL: i64 = 13;
/// A picture at low detail, and one of 1024 x 1024 at high, as OpenAI bills
/// them; what does not say is taken for the second.
const SMALL_IMAGE: i64 = 85;
const IMAGE: i64 = 765;
/// Ten tokens a second of speech, at 16,000 bytes a second.
const AUDIO_BYTES: usize = 1_600;

pub fn text(text: &str) -> i64 {
    let wide = text.chars().filter(|character| (*character as u32) >= 0x2E80).count();
    let narrow = text.chars().count() - wide;
    let count = |tokens: usize| i64::try_from(tokens).unwrap_or(i64::MAX);
    count(narrow.div_ceil(4)) + count((wide * 2).div_ceil(3))
}

/// A beginning of some text, and the size of all of it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    kept: String,
    /// What the rule makes of what is kept, and of what is not.
    known: i64,
    rest: i64,
    /// Tokens that are no text.
    other: i64,
}

impl Sample {
    /// With room for all that it may keep: a slow stream takes its memory when it
    /// begins, and no more with every token.
    pub fn of_stream() -> Self {
        Self { kept: String::with_capacity(KEPT), ..Self::default() }
    }

    pub fn push(&mut self, text: &str) {
        let tokens = self::text(text);
        if self.rest == 0 && self.kept.len() + text.len() <= KEPT {
            self.kept.push_str(text);
            self.known += tokens;
        } else if self.rest == 0 {
            let fits = text.floor_char_boundary(KEPT - self.kept.len());
            let (head, tail) = text.split_at(fits);
            self.kept.push_str(head);
            self.known += self::text(head);
            self.rest += self::text(tail).max(1);
        } else {
            self.rest += tokens;
        }
    }

    /// Tokens that are no text.
    pub fn add(&mut self, tokens: i64) {
        self.other += tokens;
    }

    pub fn kept(&self) -> &str {
        &self.kept
    }

    /// By the rule alone.
    pub fn rough(&self) -> i64 {
        self.known + self.rest + self.other
    }

    /// Where a tokenizer has counted what is kept.
    pub fn corrected(&self, counted: i64) -> i64 {
        let scaled = i128::from(self.rest) * i128::from(counted) / i128::from(self.known.max(1));
        counted + i64::try_from(scaled).unwrap_or(i64::MAX) + self.other
    }
}

pub fn request(request: &GenerateRequest) -> Sample {
    let mut sample = Sample::default();
    for message in &request.messages {
        self::message(message, &mut sample);
    }
    for passage in &request.passages {
        sample.add(PER_MESSAGE);
        sample.push(&passage.text);
    }
    for tool in &request.tools {
        sample.push(&tool.name);
        sample.push(&tool.description);
        sample.push(&tool.parameters_json);
    }
    sample
}

/// Of one input for an embedding, by the rule alone.
pub fn input(input: &EmbedInput) -> i64 {
    match &input.input {
        Some(Input::Text(words)) => text(words),
        Some(Input::Tokens(tokens)) => i64::try_from(tokens.ids.len()).unwrap_or(i64::MAX),
        None => 0,
    }
}

pub fn embed(request: &EmbedRequest) -> Sample {
    let mut sample = Sample::default();
    for input in &request.inputs {
        match &input.input {
            Some(Input::Text(text)) => sample.push(text),
            Some(Input::Tokens(tokens)) => {
                sample.add(i64::try_from(tokens.ids.len()).unwrap_or(i64::MAX));
            }
            None => {}
        }
    }
    sample
}

pub fn image(request: &GenerateImageRequest) -> Sample {
    let mut sample = Sample::default();
    sample.push(&request.prompt);
    sample
}

fn message(message: &Message, sample: &mut Sample) {
    sample.add(PER_MESSAGE);
    for part in &message.content {
        match &part.part {
            Some(Part::Text(words)) => sample.push(words),
            Some(Part::Image(image)) => sample.add(picture(image)),
            Some(Part::Audio(audio)) => {
                let tokens = audio.data.len() / AUDIO_BYTES;
                sample.add(i64::try_from(tokens).unwrap_or(i64::MAX));
            }
            None => {}
        }
    }
    for call in &message.tool_calls {
        sample.add(PER_CALL);
        sample.push(&call.name);
        sample.push(&call.arguments_json);
    }
}

fn picture(image: &Image) -> i64 {
    if image.detail == "low" { SMALL_IMAGE } else { IMAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The gateway listens on port 8080. 网关监听 8080 端口。";

    #[test]
    fn more_text_never_counts_less() {
        let (mut last, mut sample) = (0, Sample::default());
        for (end, _) in TEXT.char_indices() {
            let count = text(&TEXT[..end]);
            assert!(count >= last);
            last = count;
        }
        assert!((8..40).contains(&last), "{last}");
        for _ in 0..2_000 {
            let before = (sample.rough(), sample.corrected(900));
            sample.push(TEXT);
            let now = (sample.rough(), sample.corrected(900));
            assert!(now.0 > before.0 && (now.1 >= before.1 || sample.rest == 0));
        }
        assert!(sample.kept().len() <= KEPT && TEXT.len() * 2_000 > 4 * KEPT);
    }

    #[test]
    fn what_was_not_kept_is_taken_to_be_like_what_was() {
        let mut sample = Sample::default();
        for _ in 0..4 {
            sample.push(&"a".repeat(KEPT));
        }
        assert_eq!(sample.rough(), 4 * 1024);
        assert_eq!(sample.corrected(512), 4 * 512, "half of the rule, throughout");
        let mut short = Sample::default();
        short.push("honk");
        assert_eq!(short.corrected(3), 3);
    }
}
