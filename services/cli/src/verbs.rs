//! What the command can do, one file a verb.
//!
//! Invariants:
//! - Only verbs that talk to a gateway look for one.

mod ask;
mod chat;
mod config;
mod ingest;
mod keys;
mod mesh_keys;
mod search;
mod status;
mod token;

use crate::{
    access::Access,
    args::{Args, Sources, Verb},
    connect::Gateway,
    errors::Error,
    terminal::Terminal,
};

pub(crate) async fn run(
    args: Args,
    sources: &Sources,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let json = args.json;
    match args.verb {
        Verb::MeshKeys(wanted) => return mesh_keys::run(&wanted, json, terminal),
        Verb::Token(wanted) => return token::run(&wanted, json, terminal),
        _ => {}
    }
    let here = std::env::current_dir().unwrap_or_default();
    let access = Access::find(sources, &here)?;
    if matches!(args.verb, Verb::Config) {
        return config::run(access, json, terminal).await;
    }
    let gateway = Gateway::connect(access).await?;
    match args.verb {
        Verb::Ask(wanted) => ask::run(&gateway, &wanted, json, terminal).await,
        Verb::Chat(wanted) => chat::run(&gateway, wanted, json, terminal).await,
        Verb::Ingest(wanted) => ingest::run(&gateway, &wanted, json, terminal).await,
        Verb::Search(wanted) => search::run(&gateway, wanted, json, terminal).await,
        Verb::Status => status::run(&gateway, json, terminal).await,
        Verb::Keys(wanted) => keys::run(&gateway, wanted, json, terminal).await,
        Verb::Config | Verb::MeshKeys(_) | Verb::Token(_) => Ok(()),
    }
}
