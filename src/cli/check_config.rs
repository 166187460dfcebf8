//! `weft check-config`: says whether the configuration is sound, and what it comes to.

use std::process::ExitCode;

use clap::Args;

use super::{MISUSED, NodeArguments, complain, complain_of_configuration};
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
                Ok(text) => print!("{text}"),
                Err(error) => complain(&anyhow::Error::new(error)),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain_of_configuration(error, arguments.node.config.as_deref());
            ExitCode::from(MISUSED)
        }
    }
}
