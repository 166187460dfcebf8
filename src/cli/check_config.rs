//! `weft check-config`: says whether the configuration is sound, and what it comes to.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, MISUSED, NodeArguments, complain};
use crate::node::Config;

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    node: NodeArguments,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    match Config::load(arguments.node.config.as_deref(), &arguments.node.overrides()) {
        Ok(config) => match print(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::from(FAILED)
            }
        },
        Err(error) => {
            complain(&anyhow::Error::new(error).context("bad configuration"));
            ExitCode::from(MISUSED)
        }
    }
}

fn print(config: &Config) -> anyhow::Result<()> {
    let text = toml::to_string(config)?;
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        // Whoever reads it may have read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}
