//! Logging: text on a terminal, JSON otherwise, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::node::{LogFormat, LogSettings};

/// Starts logging for the process.
///
/// # Errors
/// When the level is not a level.
pub(super) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.level)?;
    let terminal = std::io::stderr().is_terminal();
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    if text {
        builder.finish().try_init()?
    } else {
        builder.json().flatten_event(true).finish().try_init()?
    }
    Ok(())
}
