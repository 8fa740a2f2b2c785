//! What each vendor of this dialect does differently: the one table.
//!
//! Invariants:
//! - An address tells the vendor; only where it is one's own the name does, so
//!   that a server behind `OPENAI_BASE_URL` is not taken for OpenAI.
//! - What is not declared here is as OpenAI has it, or not looked at.
//!
//! To add a vendor: a row here, and one in `config/providers`.

use crate::config::ProviderSettings;

pub(super) struct Vendor {
    /// The provider's name in our configuration.
    name: &'static str,
    /// How its host ends.
    host: &'static str,
    /// How the limit of the answer's length is called.
    pub(super) max_tokens: &'static str,
    /// Whether usage has to be asked for, and may be: others refuse the field
    /// and send usage unasked.
    pub(super) stream_options: bool,
    /// Whether it knows messages of developers; elsewhere they are the system's.
    pub(super) developer: bool,
    /// The word for a tool that has to be called.
    pub(super) required: &'static str,
    pub(super) seed: &'static str,
    /// Whether an answer can be bound to a schema; where it cannot, any JSON is
    /// asked for and the schema told in words.
    pub(super) json_schema: bool,
    /// Whether ids of tool calls must be nine letters and digits.
    pub(super) short_ids: bool,
    /// What becomes of the reasoning in a message that comes back.
    pub(super) reasoning: Reasoning,
    pub(super) address: Address,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// It is refused or ignored there.
    Dropped,
    /// It has to come back, under this name.
    As(&'static str),
    /// Nobody knows what this server wants.
    AsGiven,
}

/// How the URL and the key of a request are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Plain,
    /// A deployment in the path and a dated version in the query, or the path
    /// `/openai/v1`; the key is a header of its own.
    Azure,
}

const OPENAI: Vendor = Vendor {
    name: "openai",
    host: "api.openai.com",
    max_tokens: "max_completion_tokens",
    stream_options: true,
    developer: true,
    required: "required",
    seed: "seed",
    json_schema: true,
    short_ids: false,
    reasoning: Reasoning::Dropped,
    address: Address::Plain,
};

/// Any other server: the words of 2023, which all of them know.
const COMPATIBLE: Vendor = Vendor {
    name: "",
    host: "",
    max_tokens: "max_tokens",
    developer: false,
    reasoning: Reasoning::AsGiven,
    ..OPENAI
};

static VENDORS: [Vendor; 13] = [
    OPENAI,
    COMPATIBLE,
    Vendor { name: "azure", host: ".azure.com", address: Address::Azure, ..OPENAI },
    Vendor {
        name: "groq",
        host: "api.groq.com",
        developer: false,
        reasoning: Reasoning::As("reasoning"),
        ..OPENAI
    },
    Vendor {
        name: "mistral",
        host: "api.mistral.ai",
        // A field that it does not know is an error there.
        stream_options: false,
        required: "any",
        seed: "random_seed",
        short_ids: true,
        reasoning: Reasoning::Dropped,
        ..COMPATIBLE
    },
    Vendor {
        name: "deepseek",
        host: "api.deepseek.com",
        json_schema: false,
        reasoning: Reasoning::As("reasoning_content"),
        ..COMPATIBLE
    },
    Vendor { name: "xai", host: "api.x.ai", developer: false, ..OPENAI },
    Vendor { name: "together", host: "api.together.xyz", ..COMPATIBLE },
    Vendor {
        name: "moonshot",
        host: "api.moonshot.ai",
        reasoning: Reasoning::As("reasoning_content"),
        ..COMPATIBLE
    },
    Vendor {
        name: "cerebras",
        host: "api.cerebras.ai",
        max_tokens: "max_completion_tokens",
        reasoning: Reasoning::As("reasoning"),
        ..COMPATIBLE
    },
    Vendor {
        name: "zai",
        host: "api.z.ai",
        json_schema: false,
        reasoning: Reasoning::As("reasoning_content"),
        ..COMPATIBLE
    },
    Vendor { name: "ollama", host: "", ..COMPATIBLE },
    Vendor { name: "vllm", host: "", ..COMPATIBLE },
];

pub(super) fn of(settings: &ProviderSettings, host: &str) -> &'static Vendor {
    let [openai, compatible, ..] = &VENDORS;
    let suits = |vendor: &&Vendor| {
        let host = host.strip_suffix(vendor.host).filter(|_| !vendor.host.is_empty());
        host.is_some_and(|before| before.is_empty() || vendor.host.starts_with('.'))
    };
    let named = |vendor: &&Vendor| *vendor.name == *settings.name && vendor.name != openai.name;
    let vendors = || VENDORS.iter();
    vendors().find(suits).or_else(|| vendors().find(named)).unwrap_or(compatible)
}
