//! What `weft sub` and `weft pub` share: which server, how to reach it, and how a command ends.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{FAILED, MISUSED, complain};
use crate::client::{ClientBuilder, ClientError, Transport};

/// Where the server is, and how to reach it.
#[derive(Debug, Clone, Args)]
pub(super) struct RemoteArguments {
    /// A Bayeux mount: http, https, ws or wss.
    #[arg(long, short, env = "WEFT_URL", value_name = "URL", default_value = "http://127.0.0.1:8000/bayeux")]
    url: String,
    /// A header of each request; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Sent as `Authorization: Bearer TOKEN`, for a proxy or an extension: Weft by itself does not look at it. Better given as
    /// WEFT_TOKEN, which others on this machine cannot read.
    #[arg(long, env = "WEFT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificates (PEM) to trust beside those of the system.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Use only this [default: WebSocket, and long-polling where that is blocked].
    #[arg(long, value_enum, value_name = "TRANSPORT")]
    transport: Option<TransportArgument>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportArgument {
    Websocket,
    LongPolling,
}

impl RemoteArguments {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Nobody speaks Bayeux at the URL.
    pub(super) fn no_mount(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "nothing speaks Bayeux at {} (HTTP status 404): give the URL of a mount, such as http://HOST:8000/bayeux",
            self.url
        )
    }

    /// A client as these arguments want it.
    pub(super) fn builder(&self) -> anyhow::Result<ClientBuilder> {
        let mut builder = crate::Client::builder(&self.url);
        for header in &self.headers {
            let wrong = || Misused(format!("--header \"{header}\": expected \"Name: value\""));
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            builder = builder.header(name.trim(), value.trim());
        }
        if let Some(token) = &self.token {
            builder = builder.header("Authorization", &format!("Bearer {token}"));
        }
        if let Some(path) = &self.ca_file {
            let pem =
                std::fs::read(path).map_err(|error| Misused(format!("cannot read {}: {error}", path.display())))?;
            builder = builder.root_certificates(&pem);
        }
        Ok(match self.transport {
            None => builder,
            Some(TransportArgument::Websocket) => builder.transports(&[Transport::WebSocket]),
            Some(TransportArgument::LongPolling) => builder.transports(&[Transport::LongPolling]),
        })
    }
}

/// Bad usage, as opposed to a failure of the server or the way to it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misused(pub String);

/// Runs a command to its end.
pub(super) fn run(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&anyhow::Error::new(error).context("cannot start"));
            return ExitCode::from(FAILED);
        }
    };
    let outcome = runtime.block_on(command);
    // Reading standard input cannot be taken back: nobody waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            let misused = error.is::<Misused>()
                || matches!(
                    error.downcast_ref(),
                    Some(ClientError::Url(_) | ClientError::Header(_) | ClientError::Tls(_))
                );
            ExitCode::from(if misused { MISUSED } else { FAILED })
        }
    }
}

/// Whoever reads our output has enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
