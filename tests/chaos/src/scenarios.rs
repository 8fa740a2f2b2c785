//! The scenarios; each takes its scale and gives its report.

pub mod dns;
pub mod growth;
pub mod ocean;
pub mod regions;
pub mod releases;
pub mod rotation;

use crate::scene::{Report, Scale};
use futures_util::future::BoxFuture;

pub type Scenario = fn(Scale) -> BoxFuture<'static, Report>;

/// By name, in the order in which they are run.
pub const ALL: [(&str, Scenario); 6] = [
    ("regions", |scale| Box::pin(regions::run(scale))),
    ("dns", |scale| Box::pin(dns::run(scale))),
    ("growth", |scale| Box::pin(growth::run(scale))),
    ("rotation", |scale| Box::pin(rotation::run(scale))),
    ("ocean", |scale| Box::pin(ocean::run(scale))),
    ("releases", |scale| Box::pin(releases::run(scale))),
];
