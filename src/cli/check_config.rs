//! `weft check-config`: says whether the configuration is sound, and what it comes to.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Args;

use super::{MISUSED, NodeArguments, complain};
use crate::node::Config;

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    node: NodeArguments,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    match Config::load(arguments.node.config.as_deref(), &arguments.node.overrides()) {
        Ok(config) => {
            match toml::to_string(&config) {
                Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
                    // Whoever reads it may have read enough.
                    Err(error) if error.kind() != ErrorKind::BrokenPipe => complain(&anyhow::Error::new(error)),
                    _ => {}
                },
                Err(error) => complain(&anyhow::Error::new(error)),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&anyhow::Error::new(error).context("bad configuration"));
            ExitCode::from(MISUSED)
        }
    }
}
