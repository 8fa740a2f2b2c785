//! See `decoder`.
#![no_main]

mod decoder;

use libfuzzer_sys::fuzz_target;
use model_proxy::provider::Provider;
use std::sync::{Arc, LazyLock};

static PROVIDER: LazyLock<Arc<dyn Provider>> = LazyLock::new(|| decoder::provider("anthropic"));

fuzz_target!(|data: &[u8]| decoder::feed(PROVIDER.as_ref(), data));
