//! The embedded models: no key, no account, no network.
//!
//! Invariants:
//! - Computing happens on threads of its own; a runtime thread never waits.
//! - A model whose files are not here is not listed; calling it says what to run.
//! - Nothing is cut silently: an input over a model's limit is an error.

pub mod engine;
pub mod extractive;
pub mod minilm;
pub mod queue;
pub mod sentences;
pub mod smollm2;
pub mod terms;

pub use engine::{EXTRACTIVE, Engine, MINILM, PROVIDER, SMOLLM2};

use crate::error::Error;
use skein_proto::model::v1::{
    GenerateRequest, content_part::Part, response_format::Format, tool_choice,
};

/// What no embedded model can do is refused, not ignored. Tools that need not
/// be called are simply not called.
pub fn check(request: &GenerateRequest) -> Result<(), Error> {
    let refuse =
        |field: &str, what: &str| Err(Error::invalid(field, format!("the embedded models {what}")));
    if request.sampling.as_ref().and_then(|sampling| sampling.n).is_some_and(|n| n > 1) {
        return refuse("sampling.n", "make one choice");
    }
    let choice = request.tool_choice.as_ref().and_then(|choice| choice.choice.as_ref());
    let required = tool_choice::Choice::Mode(tool_choice::Mode::Required.into());
    if matches!(choice, Some(tool_choice::Choice::Tool(_))) || choice == Some(&required) {
        return refuse("tool_choice", "call no tools");
    }
    let format = request.response_format.as_ref().and_then(|format| format.format.as_ref());
    if matches!(format, Some(Format::JsonObject(true) | Format::JsonSchema(_))) {
        return refuse("response_format", "answer in plain text only");
    }
    for (index, message) in request.messages.iter().enumerate() {
        if message
            .content
            .iter()
            .any(|part| matches!(part.part, Some(Part::Image(_) | Part::Audio(_))))
        {
            return refuse(&format!("messages[{index}].content"), "read text only");
        }
    }
    Ok(())
}
