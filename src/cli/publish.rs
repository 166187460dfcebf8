//! `weft pub`: publishes one message, or each line of standard input.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::remote::{Misused, RemoteArguments, run as run_command};
use super::subscribe::duration;
use crate::client::{Acknowledgement, Client, ClientError};

/// Publishes that may wait for their acknowledgement.
const IN_FLIGHT: usize = 256;
/// Bytes of a line.
const MAX_LINE: usize = 64 << 20;
/// After this time somebody who waits is told why.
const SILENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Lines are published in their order, each once, and acknowledged by the server before the command \
                        ends.\n\n\
                        Exit codes: 0 when all was stored, 1 when the server refused or did not answer, 2 when it was \
                        called wrongly.\n\n\
                        Examples:\n  weft pub /chat/a '{\"text\":\"hello\"}'\n  weft pub --text /chat/a hello\n  \
                        tail -f access.log | weft pub --text /logs/web"
)]
pub(super) struct PublishArguments {
    #[command(flatten)]
    remote: RemoteArguments,
    /// Where to publish.
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// The message, as JSON; without it, each line of standard input is one.
    #[arg(value_name = "JSON")]
    message: Option<String>,
    /// What is given is text, not JSON.
    #[arg(long, short)]
    text: bool,
    /// Publish the message so many times.
    #[arg(long, value_name = "TIMES", default_value = "1", requires = "message", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Pause before each repetition: 1s, 500ms or plain seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "repeat")]
    repeat_delay: Option<Duration>,
    /// How long the server may take to store a message: 30s, 500ms or plain seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
    /// Say how many were published.
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(arguments: &PublishArguments) -> ExitCode {
    run_command(publish(arguments))
}

async fn publish(arguments: &PublishArguments) -> anyhow::Result<()> {
    let single = arguments.message.as_deref().map(|text| data(arguments, text)).transpose();
    let single = single.map_err(|error| Misused(format!("not JSON: {error}; --text publishes it as it is")))?;
    let builder = arguments.remote.builder()?.publish_timeout(arguments.timeout);
    let mut connecting = Box::pin(builder.connect_timeout(arguments.timeout).connect());
    let client = match tokio::time::timeout(SILENCE, &mut connecting).await {
        Ok(client) => client,
        Err(_) => {
            let timeout = humantime::format_duration(arguments.timeout);
            eprintln!("weft: no connection to {} yet; trying for {timeout}", arguments.remote.url());
            connecting.await
        }
    };
    let client = client.map_err(|error| match error {
        ClientError::TimedOut => {
            anyhow::anyhow!("no answer from {} within {:?}", arguments.remote.url(), arguments.timeout)
        }
        ClientError::Unreachable(reason) => {
            anyhow::anyhow!("no connection to {} within {:?}: {reason}", arguments.remote.url(), arguments.timeout)
        }
        ClientError::Refused(refusal) if refusal.code == 404 => arguments.remote.no_mount(),
        other => other.into(),
    })?;
    let outcome = match single {
        Some(message) => repeatedly(arguments, &client, &message).await.map_err(|error| wrong(arguments, error)),
        None => publish_lines(arguments, &client).await,
    };
    client.close().await;
    let count = outcome?;
    if arguments.verbose {
        eprintln!("weft: {count} published to {}", arguments.channel);
    }
    Ok(())
}

/// Publishes the message as often as it was asked for, each once the one before is stored; gives how often.
async fn repeatedly(arguments: &PublishArguments, client: &Client, message: &RawValue) -> Result<u64, ClientError> {
    for time in 0..arguments.repeat {
        if let Some(delay) = arguments.repeat_delay.filter(|_| time > 0) {
            tokio::time::sleep(delay).await;
        }
        client.publish_raw(&arguments.channel, message.to_owned()).await?;
    }
    Ok(arguments.repeat)
}

async fn publish_lines(arguments: &PublishArguments, client: &Client) -> anyhow::Result<u64> {
    if std::io::stdin().is_terminal() {
        eprintln!("weft: publishing each line that you type; end with Ctrl-D");
    }
    let mut lines = FramedRead::new(tokio::io::stdin(), LinesCodec::new_with_max_length(MAX_LINE));
    let mut pending: VecDeque<(u64, Acknowledgement)> = VecDeque::new();
    let (mut number, mut count) = (0, 0);
    let mut bad = None;
    loop {
        let line = tokio::select! {
            // A refusal is told at once, not when the input ends.
            Some(outcome) = next(&mut pending) => {
                outcome.map_err(|(number, error)| wrong(arguments, error).context(format!("line {number}")))?;
                count += 1;
                continue;
            }
            line = lines.next(), if pending.len() < IN_FLIGHT => line,
        };
        let Some(line) = line else { break };
        let line = line.with_context(|| format!("cannot read line {} of standard input", number + 1))?;
        number += 1;
        if line.trim().is_empty() && !arguments.text {
            continue;
        }
        match data(arguments, &line) {
            Ok(message) => {
                let place = client.enqueue(&arguments.channel, message).await;
                pending.push_back((number, place.map_err(|error| wrong(arguments, error))?));
            }
            Err(error) => {
                // Those before it are still seen through.
                bad = Some(Misused(format!("line {number} is not JSON: {error}; --text publishes lines as they are")));
                break;
            }
        }
    }
    while let Some(outcome) = next(&mut pending).await {
        outcome.map_err(|(number, error)| wrong(arguments, error).context(format!("line {number}")))?;
        count += 1;
    }
    bad.map_or(Ok(count), |bad| {
        Err(anyhow::Error::new(bad).context(format!("stopped: {count} published, the rest not sent")))
    })
}

/// The outcome of the oldest publish; `None` when there is none. Cancel-safe.
async fn next(pending: &mut VecDeque<(u64, Acknowledgement)>) -> Option<Result<(), (u64, ClientError)>> {
    let (number, acknowledgement) = pending.front_mut()?;
    let outcome = acknowledgement.await.map_err(|error| (*number, error));
    pending.pop_front();
    Some(outcome)
}

fn data(arguments: &PublishArguments, text: &str) -> serde_json::Result<Box<RawValue>> {
    if arguments.text { serde_json::value::to_raw_value(text) } else { serde_json::from_str(text.trim()) }
}

fn wrong(arguments: &PublishArguments, error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused(refusal) if refusal.code == 405 => {
            Misused(format!("{}: no channel to publish to; one is /chat/a", arguments.channel)).into()
        }
        other => other.into(),
    }
}
