//! `weft serve`: runs a node until a signal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logs::{self, Log};
use super::{FAILED, MISUSED, NodeArguments, complain};
use crate::node::{Config, Limits, Node, NodeError};

/// Files of a process that are not connections of clients: listeners, Redis, logs, the runtime's.
const OTHER_FILES: u64 = 64;

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    node: NodeArguments,
    /// Write the chosen addresses to this file, as JSON, once the node serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) fn run(arguments: &ServeArguments) -> ExitCode {
    let config = match Config::load(arguments.node.config.as_deref(), &arguments.node.overrides()) {
        Ok(config) => config,
        Err(error) => {
            complain(&anyhow::Error::new(error).context("bad configuration"));
            return ExitCode::from(MISUSED);
        }
    };
    let runtime = match runtime(config.workers) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&anyhow::Error::new(error).context("cannot start"));
            return ExitCode::from(FAILED);
        }
    };
    let context = runtime.enter();
    let log = match logs::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain(&error.context("bad configuration"));
            return ExitCode::from(MISUSED);
        }
    };
    drop(context);
    raise_file_limit(config.limits.connections);
    let served = runtime.block_on(serve(config, &log, arguments.ready_file.as_deref()));
    log.finish();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            if let Some(NodeError::Bind { key, source, .. }) = error.downcast_ref()
                && source.kind() == std::io::ErrorKind::AddrInUse
            {
                let flag = key.replace('_', "-");
                eprintln!(
                    "weft: another program has that port; --{flag} 127.0.0.1:PORT names another, port 0 takes a free one"
                );
            }
            let misused = matches!(error.downcast_ref(), Some(NodeError::Config(_)));
            ExitCode::from(if misused { MISUSED } else { FAILED })
        }
    }
}

/// One thread that serves needs no others to share its work with, which costs less.
fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    match workers {
        0 => Builder::new_multi_thread().enable_all().build(),
        1 => Builder::new_current_thread().enable_all().build(),
        more => Builder::new_multi_thread().worker_threads(more).enable_all().build(),
    }
}

async fn serve(config: Config, log: &Log, ready_file: Option<&Path>) -> anyhow::Result<()> {
    // Before the node serves, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let node = Node::builder(config).log(log.handle.clone()).start().await?;
    if let Some(path) = ready_file {
        write_ready_file(path, &node).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        // The terminal is closed.
        _ = hangup.recv() => "SIGHUP",
        never = log.report() => match never {},
    };
    tracing::info!(signal = name, "asked to stop");
    let stopped = async {
        node.drain().await;
        node.stop().await
    };
    tokio::select! {
        _ = stopped => {}
        // A second signal ends it at once.
        _ = terminate.recv() => tracing::warn!("second signal: stopping at once"),
        _ = interrupt.recv() => tracing::warn!("second signal: stopping at once"),
    }
    Ok(())
}

/// Written beside and renamed, so that who waits for the file never reads half of it.
fn write_ready_file(path: &Path, node: &Node) -> std::io::Result<()> {
    let ready = serde_json::json!({
        "listen": node.public_addr().to_string(),
        "internal": node.internal_addr().to_string(),
    });
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = std::fs::File::create(&temporary)?;
    writeln!(file, "{ready}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// Every connection is a file: as many as the system lets us have.
fn raise_file_limit(connections: usize) {
    let usual = Limits::default().connections;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit >= u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES) => {
            tracing::debug!(limit, "file limit");
        }
        // Nobody has asked for so many.
        Ok(limit) if connections == usual => {
            tracing::info!(
                limit,
                connections,
                "so many files may be open, so the node serves about as many connections; `ulimit -n` raises it"
            );
        }
        Ok(limit) => tracing::warn!(
            limit,
            connections,
            "the limit of open files is too low for `limits.connections`: raise it (ulimit -Hn, LimitNOFILE), or lower that"
        ),
        Err(error) => tracing::warn!(%error, "cannot raise the file limit"),
    }
}
