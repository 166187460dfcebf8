//! `weft healthcheck`: asks a running node how it is, for containers that have neither a shell nor curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::{FAILED, MISUSED, complain};
use crate::node::{Config, Overrides};

/// For the whole of it: a node that lives answers at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer; a longer one is cut off.
const ANSWER: u64 = 64 * 1024;

#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 when the node is well, 1 when it is not or does not answer, 2 for bad usage.")]
pub(super) struct HealthArguments {
    /// Configuration file (TOML) of the node, for its internal address.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// The node's address for metrics and health [default: as the node's own: 127.0.0.1:8001].
    #[arg(long, value_name = "ADDRESS")]
    internal_listen: Option<String>,
    /// Ask whether the node is ready for clients, and not only whether it lives.
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(arguments: &HealthArguments) -> ExitCode {
    let overrides = Overrides { internal_listen: arguments.internal_listen.clone(), ..Overrides::default() };
    let config = match Config::load(arguments.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(error) => {
            complain(&anyhow::Error::new(error).context("bad configuration"));
            return ExitCode::from(MISUSED);
        }
    };
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    // A connection to the unspecified address, as in containers, goes to this machine.
    match ask(config.internal_listen, path) {
        Ok((200, _)) => ExitCode::SUCCESS,
        Ok((status, said)) => {
            complain(&anyhow::anyhow!("{path} answers {status}: {}", said.trim()));
            ExitCode::from(FAILED)
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// The status and the body of `path`.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut node = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("no node answers at {address} (`internal_listen`)"))?;
    node.set_read_timeout(Some(PATIENCE))?;
    node.set_write_timeout(Some(PATIENCE))?;
    write!(node, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    node.take(ANSWER).read_to_end(&mut answer).with_context(|| format!("{address} does not answer"))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("what listens at {address} does not speak HTTP"))?;
    Ok((status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
}
