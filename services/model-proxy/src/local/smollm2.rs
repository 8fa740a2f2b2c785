//! `local/smollm2-135m`: SmolLM2-135M-Instruct, a real generator for trying
//! streams out. It is too small to be trusted with facts.
//!
//! Invariants:
//! - The prompt is taken whole or refused; special tokens in a caller's text
//!   are only text.
//! - Between two tokens (and every 64 of the prompt) it looks whether the
//!   caller is still there.

use crate::{error::Error, provider::Event};
use candle_core::{
    Device, Tensor,
    quantized::{gguf_file::Content, tokenizer::TokenizerFromGguf as _},
};
use candle_transformers::{generation::LogitsProcessor, models::quantized_llama::ModelWeights};
use skein_proto::model::v1::{
    Choice, Delta, FinishReason, Finished, GenerateRequest, Passage, Role, Usage,
    content_part::Part, delta::Piece,
};
use std::{fs::File, io::BufReader, path::Path};
use tokenizers::Tokenizer;
use tokio::sync::mpsc;

pub const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Of the 8192 that the model was made for; a longer prompt takes a minute.
pub const MAX_PROMPT: usize = 4096;
pub const MAX_OUTPUT: i64 = 2048;
const DEFAULT_OUTPUT: i64 = 256;
const PREFILL: usize = 64;
const SYSTEM: &str = "You are a helpful assistant. Answer briefly.";
const END: &str = "<|im_end|>";

pub struct Job {
    pub request: GenerateRequest,
    pub events: mpsc::Sender<Result<Event, Error>>,
}

pub struct Smollm2 {
    model: ModelWeights,
    tokenizer: Tokenizer,
    end: u32,
}

impl Smollm2 {
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let failed = |error: &dyn std::fmt::Display| {
            Error::Local(format!("load {}: {error}", path.display()))
        };
        let mut file = BufReader::new(File::open(&path).map_err(|error| failed(&error))?);
        let content = Content::read(&mut file).map_err(|error| failed(&error))?;
        let tokenizer = Tokenizer::from_gguf(&content).map_err(|error| failed(&error))?;
        let end = tokenizer.token_to_id(END).ok_or_else(|| failed(&"no end token"))?;
        let model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .map_err(|error| failed(&error))?;
        Ok(Self { model, tokenizer, end })
    }

    pub fn serve(&mut self, job: &Job) {
        self.model.clear_kv_cache();
        if let Err(error) = self.generate(job) {
            // A caller that has gone hears nothing, as it wished.
            let _ = job.events.blocking_send(Err(error));
        }
    }

    fn generate(&mut self, job: &Job) -> Result<(), Error> {
        let broken = |error: candle_core::Error| Error::Local(format!("generate: {error}"));
        let prompt = self.encode(&prompt(&job.request))?;
        let sampling = job.request.sampling.clone().unwrap_or_default();
        let limit = sampling.max_tokens.unwrap_or(DEFAULT_OUTPUT).min(MAX_OUTPUT);
        let seed = sampling.seed.unwrap_or_default().unsigned_abs();
        let mut choose = LogitsProcessor::new(seed, sampling.temperature, sampling.top_p);
        let mut position = 0;
        let mut logits = None;
        for piece in prompt.chunks(PREFILL) {
            if job.events.is_closed() {
                return Ok(());
            }
            logits = Some(self.step(piece, position).map_err(broken)?);
            position += piece.len();
        }
        let tokenizer = self.tokenizer.clone();
        let mut decoder = tokenizer.decode_stream(true);
        let mut text = Text { stops: sampling.stop, held: String::new() };
        let (mut output, mut reason) = (0, FinishReason::Length);
        while let Some(last) = logits.take().filter(|_| output < limit) {
            let token = choose.sample(&last).map_err(broken)?;
            output += 1;
            if token == self.end {
                reason = FinishReason::Stop;
                break;
            }
            let piece =
                decoder.step(token).map_err(|error| Error::Local(format!("decode: {error}")))?;
            let stopped = text.push(&piece.unwrap_or_default());
            if !send(job, text.ready(stopped)) {
                return Ok(());
            }
            if stopped {
                reason = FinishReason::Stop;
                break;
            }
            logits = Some(self.step(&[token], position).map_err(broken)?);
            position += 1;
        }
        if !send(job, text.held) {
            return Ok(());
        }
        let input = i64::try_from(prompt.len()).unwrap_or(i64::MAX);
        let usage = Usage { input_uncached: input, output, ..Usage::default() };
        let choices = vec![Choice { finish_reason: reason.into(), ..Choice::default() }];
        let finished = Finished { choices, usage: Some(usage), ..Finished::default() };
        let _ = job.events.blocking_send(Ok(Event::Finished(finished)));
        Ok(())
    }

    fn step(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Tensor> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        self.model.forward(&input, position)?.squeeze(0)
    }

    fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(prompt, false);
        let ids = encoding
            .map_err(|error| Error::Local(format!("tokenize: {error}")))?
            .get_ids()
            .to_vec();
        if ids.len() > MAX_PROMPT {
            let message = format!(
                "make {} tokens with the passages, more than the {MAX_PROMPT} that local/smollm2-135m takes",
                ids.len()
            );
            return Err(Error::invalid("messages", message));
        }
        Ok(ids)
    }
}

/// Whether the caller is still there.
fn send(job: &Job, text: String) -> bool {
    if text.is_empty() {
        return !job.events.is_closed();
    }
    let delta = Delta { piece: Some(Piece::Text(text)), ..Delta::default() };
    job.events.blocking_send(Ok(Event::Delta(delta))).is_ok()
}

/// Text on its way out; what may begin a stop sequence is held back.
struct Text {
    stops: Vec<String>,
    held: String,
}

impl Text {
    /// Whether a stop sequence has come; it and what follows is thrown away.
    fn push(&mut self, piece: &str) -> bool {
        self.held.push_str(piece);
        let stop = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = stop {
            self.held.truncate(at);
        }
        stop.is_some()
    }

    fn ready(&mut self, stopped: bool) -> String {
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let starts = self.held.char_indices().map(|(at, _)| at).find(begins);
        let rest = self.held.split_off(if stopped {
            self.held.len()
        } else {
            starts.unwrap_or(self.held.len())
        });
        std::mem::replace(&mut self.held, rest)
    }
}

fn prompt(request: &GenerateRequest) -> String {
    let mut prompt = String::new();
    let mut say = |role: &str, text: &str| {
        // Without its bar a marker of the template is mere text.
        let text = text.replace("<|", "< |");
        prompt.push_str(&format!("<|im_start|>{role}\n{text}{END}\n"));
    };
    let system = |message: &skein_proto::model::v1::Message| {
        matches!(message.role(), Role::System | Role::Developer)
    };
    if !request.messages.iter().any(system) {
        say("system", SYSTEM);
    }
    if !request.passages.is_empty() {
        say("system", &sources(&request.passages));
    }
    for message in &request.messages {
        let texts = message.content.iter().filter_map(|part| match &part.part {
            Some(Part::Text(text)) => Some(text.as_str()),
            _ => None,
        });
        let role = match message.role() {
            Role::Assistant => "assistant",
            Role::System | Role::Developer => "system",
            Role::User | Role::Tool | Role::Unspecified => "user",
        };
        say(role, &texts.collect::<Vec<_>>().join("\n"));
    }
    prompt.push_str("<|im_start|>assistant\n");
    prompt
}

fn sources(passages: &[Passage]) -> String {
    let numbered = passages.iter().enumerate();
    let texts: Vec<_> =
        numbered.map(|(at, passage)| format!("[{}] {}", at + 1, passage.text)).collect();
    format!("Answer from these sources and cite them like [1].\n{}", texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_sequence_is_found_across_pieces_and_never_shown() {
        let mut text = Text { stops: vec!["END".to_owned()], held: String::new() };
        let mut shown = String::new();
        for piece in ["one E", "N two E", "ND three"] {
            let stopped = text.push(piece);
            shown.push_str(&text.ready(stopped));
        }
        assert_eq!((shown.as_str(), text.held.as_str()), ("one EN two ", ""));
    }
}
