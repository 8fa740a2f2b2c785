//! The contract of the mesh, generated from `skein/<name>/v1/*.proto`.
//!
//! Invariants, held by the tests below:
//! - every RPC declares how far it may be repeated (`idempotency_level`);
//! - package and folder agree, so adding a file needs no list anywhere.

mod generated {
    #![allow(clippy::all, unreachable_pub, rustdoc::all)]
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub use generated::skein::{admin, agent, mesh, model, retrieval, tool};

/// The encoded `FileDescriptorSet`: what reflection serves and where the
/// channel reads which calls may be repeated.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    #[test]
    fn every_rpc_says_how_far_it_may_be_repeated() {
        let set = FileDescriptorSet::decode(super::DESCRIPTORS).unwrap();
        let mut silent = Vec::new();
        for file in set.file.iter().filter(|file| file.package().starts_with("skein.")) {
            for service in &file.service {
                for method in &service.method {
                    let declared =
                        method.options.as_ref().and_then(|options| options.idempotency_level);
                    if declared.is_none() {
                        silent.push(format!("{}.{}", service.name(), method.name()));
                    }
                }
            }
        }
        assert_eq!(silent, Vec::<String>::new());
    }

    #[test]
    fn a_package_lies_in_its_folder() {
        let set = FileDescriptorSet::decode(super::DESCRIPTORS).unwrap();
        for file in set.file.iter().filter(|file| file.package().starts_with("skein.")) {
            let folder = file.package().replace('.', "/");
            assert!(file.name().starts_with(&folder), "{} is not in {folder}", file.name());
        }
    }
}
