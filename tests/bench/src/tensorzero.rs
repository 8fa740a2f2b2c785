//! TensorZero's gateway beside ours, when its wheel is installed.
//!
//! The wheel carries the whole gateway as a library and opens its HTTP port
//! from Python; requests never touch Python. It runs without its database, so
//! it stores nothing; that is its cheapest form.

use crate::{Failure, call::Target, child::Child};
use std::{fs, net::SocketAddr, path::Path};
use tokio::process::Command;

pub(crate) const MEANING: &str =
    "TensorZero 2026.6.0, one hop, its gateway in a Python process, no database";
pub(crate) const HOW: &str = "python3 -m venv target/bench/tensorzero && \
    target/bench/tensorzero/bin/pip install tensorzero==2026.6.0";

const START: &str = "import sys, tensorzero
gateway = tensorzero.tensorzero._start_http_gateway(config_file=sys.argv[1], \
clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print(gateway.base_url, flush=True)
sys.stdin.read()
";

/// `None` when the wheel is not there.
pub(crate) async fn start(
    venv: &Path,
    root: &Path,
    provider: SocketAddr,
) -> Result<Option<(Child, Target)>, Failure> {
    let python = venv.join("bin/python");
    if !python.exists() {
        return Ok(None);
    }
    let config = root.join("tensorzero.toml");
    fs::write(
        &config,
        format!(
            "[gateway]\nobservability.enabled = false\n\
             [models.instant]\nrouting = [\"bench\"]\n[models.instant.providers.bench]\n\
             type = \"openai\"\nmodel_name = \"instant\"\n\
             api_base = \"http://{provider}/v1/\"\napi_key_location = \"none\"\n"
        ),
    )?;
    let mut command = Command::new(python);
    command.arg("-c").arg(START).arg(&config).env("RUST_LOG", "error");
    let child = Child::start(command).await?;
    let url = child.said.strip_prefix("http://").ok_or("TensorZero told no address")?;
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let target = Target {
        addr: host.replace("0.0.0.0", "127.0.0.1").parse()?,
        path: format!("/{}/chat/completions", path.trim_matches('/')),
        key: "none".to_owned(),
        model: "tensorzero::model_name::instant".to_owned(),
    };
    Ok(Some((child, target)))
}
