//! The command line. One file per sub-command; the only place where errors lose their types.

#[cfg(feature = "bench")]
mod bench;
mod check_config;
mod healthcheck;
mod logs;
#[cfg(feature = "client")]
mod publish;
#[cfg(feature = "client")]
mod remote;
mod serve;
#[cfg(feature = "client")]
mod subscribe;
#[cfg(feature = "otlp")]
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::node::Overrides;

/// Exit codes: 0 clean stop, 1 runtime failure, 2 bad usage or configuration.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Weft: a Bayeux publish/subscribe server. Faye's and CometD's clients connect unchanged.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (the default).
    Serve(serve::ServeArguments),
    /// Check the configuration and print what a node would run with.
    CheckConfig(check_config::CheckArguments),
    /// Ask a running node whether it is well: for containers.
    Healthcheck(healthcheck::HealthArguments),
    /// Subscribe, and print what comes, a line for each message; reconnects for ever.
    #[cfg(feature = "client")]
    Sub(Box<subscribe::SubscribeArguments>),
    /// Publish a message, or each line of standard input.
    #[cfg(feature = "client")]
    Pub(Box<publish::PublishArguments>),
    /// Measure a server under load, or compare several.
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchArguments>),
}

/// Flags that say what a node shall do.
#[derive(Debug, Clone, Args)]
struct NodeArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for clients; port 0 picks a free one [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address for metrics and health [default: 127.0.0.1:8001].
    #[arg(long, value_name = "ADDRESS")]
    internal_listen: Option<String>,
    /// Where Bayeux is spoken, and in which dialect (faye or cometd); may be repeated
    /// [default: /bayeux=faye and /cometd=cometd].
    #[arg(long = "mount", value_name = "PATH[=DIALECT]")]
    mounts: Vec<String>,
    /// Where sessions and messages are kept: memory or redis [default: memory, or redis with --redis-url].
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Keep sessions and messages in this Redis: redis://, rediss:// (TLS) or redis+unix://. A password is better given as
    /// WEFT_REDIS__URL, which others on this machine cannot read.
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// How long a connect is held: 45s, 500ms or plain seconds [default: 45s].
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// How long a node that is asked to stop takes to send its clients to the other nodes [default: 30s].
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// What to log: off, error, warn, info, debug, trace, or directives such as info,weft::session=debug [default: info].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Form of the log: auto, text or json [default: auto, which is text on a terminal].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl NodeArguments {
    fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            internal_listen: self.internal_listen.clone(),
            mounts: self.mounts.clone(),
            engine: self.engine.clone(),
            redis_url: self.redis_url.clone(),
            timeout: self.timeout.clone(),
            drain_timeout: self.drain_timeout.clone(),
            log_level: self.log_level.clone(),
            log_format: self.log_format.clone(),
        }
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => serve::run(&arguments.serve),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        Some(Command::CheckConfig(arguments)) => check_config::run(&arguments),
        Some(Command::Healthcheck(arguments)) => healthcheck::run(&arguments),
        #[cfg(feature = "client")]
        Some(Command::Sub(arguments)) => subscribe::run(&arguments),
        #[cfg(feature = "client")]
        Some(Command::Pub(arguments)) => publish::run(&arguments),
        #[cfg(feature = "bench")]
        Some(Command::Bench(arguments)) => bench::run(&arguments),
    }
}

/// Prints an error with its causes, for a person.
fn complain(error: &anyhow::Error) {
    eprintln!("weft: {error:#}");
}
