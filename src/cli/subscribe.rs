//! `weft sub`: prints what is published, one line a message.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::remote::{Misused, RemoteArguments, run as run_command};
use crate::client::{Client, ClientError, Event, Events, Received, Replay, Subscription};

/// As good as no limit, and still a time that can be added to now.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Lines are JSON: {\"channel\":\"/chat/a\",\"data\":...}. What happens to the connection goes to \
                        standard error.\n\n\
                        Exit codes: 0 when it was told to stop or has --count messages, 1 when the server refused, \
                        nothing speaks Bayeux at the URL or --timeout passed, 2 when it was called wrongly.\n\n\
                        Examples:\n  weft sub '/chat/*'\n  weft sub --raw --count 1 /build/done && make deploy\n  \
                        weft sub --replay all /news/today | jq .data.title"
)]
pub(super) struct SubscribeArguments {
    #[command(flatten)]
    remote: RemoteArguments,
    /// Channels and patterns: /chat/a, /chat/* (one more segment), /chat/** (any number).
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// End after so many messages.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the data alone; a text without its quotes.
    #[arg(long, short)]
    raw: bool,
    /// Print when each message came, in UTC.
    #[arg(long, short)]
    timestamps: bool,
    /// Begin with what the server has kept: all of it, or what follows a position.
    #[arg(long, value_name = "all|new|POSITION", value_parser = replay, allow_hyphen_values = true)]
    replay: Option<Replay>,
    /// Fail when it takes longer than this: 30s, 500ms or plain seconds [default: no limit].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Say nothing about the connection; that messages may be missing is said all the same.
    #[arg(long, short)]
    quiet: bool,
}

fn replay(text: &str) -> Result<Replay, String> {
    match text {
        "all" | "-2" => Ok(Replay::All),
        "new" | "-1" => Ok(Replay::New),
        number => number.parse().map(Replay::After).map_err(|_| "expected `all`, `new` or a position".to_owned()),
    }
}

/// As in the configuration: `45s`, `500ms` or plain seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    parsed.filter(|duration| !duration.is_zero()).ok_or_else(|| "expected a duration such as 30s or 500ms".to_owned())
}

pub(super) fn run(arguments: &SubscribeArguments) -> ExitCode {
    run_command(subscribe(arguments))
}

async fn subscribe(arguments: &SubscribeArguments) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Until told to stop, whatever happens: how long a server is away is not ours to judge.
    let client = arguments.remote.builder()?.publish_timeout(FOREVER).start()?;
    let mut events = client.events();
    let limit = async {
        match arguments.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = print(arguments, &client) => outcome,
        outcome = tell(&mut events, arguments) => outcome,
        () = limit => Err(anyhow::anyhow!("not done within --timeout, at {}", arguments.remote.url())),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    client.close().await;
    outcome
}

/// Prints messages until there are enough.
async fn print(arguments: &SubscribeArguments, client: &Client) -> anyhow::Result<()> {
    let mut messages: SelectAll<Subscription> = SelectAll::new();
    for channel in &arguments.channels {
        let subscription = match arguments.replay {
            Some(replay) => client.replay(channel, replay).await,
            None => client.subscribe(channel).await,
        };
        messages.push(subscription.map_err(|error| match error {
            ClientError::Refused(refusal) if refusal.code == 405 => anyhow::Error::new(Misused(format!(
                "{channel}: no channel; one is /chat/a, a pattern /chat/* or /chat/**"
            ))),
            other => anyhow::Error::new(other).context(format!("cannot subscribe to {channel}")),
        })?);
    }
    if !arguments.quiet {
        eprintln!("weft: subscribed to {} at {}", arguments.channels.join(", "), arguments.remote.url());
    }
    let mut left = arguments.count;
    while let Some(message) = messages.next().await {
        // One at a time and flushed: who reads a pipe wants it now.
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line(arguments, &message))?;
        out.flush()?;
        if let Some(left) = &mut left {
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the server has ended the subscriptions")
}

fn line(arguments: &SubscribeArguments, message: &Received) -> String {
    let now = || humantime::format_rfc3339_millis(SystemTime::now());
    if arguments.raw {
        let data = message.data::<String>().unwrap_or_else(|_| message.raw().get().to_owned());
        return if arguments.timestamps { format!("{} {data}", now()) } else { data };
    }
    let (channel, data) = (json!(message.channel()), message.raw());
    let time = if arguments.timestamps { format!("\"time\":\"{}\",", now()) } else { String::new() };
    let replayed = if message.is_replay() { ",\"replay\":true" } else { "" };
    format!("{{{time}\"channel\":{channel},\"data\":{data}{replayed}}}")
}

/// Tells what happens to the connection, until it ends for good.
async fn tell(events: &mut Events, arguments: &SubscribeArguments) -> anyhow::Result<()> {
    let (mut away, mut ever) = (false, false);
    while let Some(event) = events.next().await {
        // That is not about the connection.
        let loss = matches!(event, Event::Gap { .. } | Event::Unsubscribed { .. });
        let text = match event {
            Event::Retry { reason, .. } if !ever && reason == "HTTP status 404" => {
                return Err(arguments.remote.no_mount());
            }
            Event::Retry { reason, attempt, pause } if attempt > 0 || !pause.is_zero() => {
                away = true;
                let (url, pause) = (arguments.remote.url(), pause.as_secs_f64());
                Some(format!("no connection to {url} ({reason}); next attempt in {pause:.1} s"))
            }
            Event::Connected { transport, .. } | Event::Resumed { transport } => {
                let again = std::mem::take(&mut away) && ever;
                ever = true;
                again.then(|| format!("connected again by {}", transport.as_str()))
            }
            Event::Gap { channels } if channels.is_empty() => Some("messages may be missing".to_owned()),
            Event::Gap { channels } => Some(format!("messages may be missing on {}", channels.join(", "))),
            Event::Unsubscribed { channel, refusal } => Some(format!("{channel} was taken away: {refusal}")),
            Event::Stopped { .. } => break,
            _ => None,
        };
        if let Some(text) = text.filter(|_| !arguments.quiet || loss) {
            eprintln!("weft: {text}");
        }
    }
    // What ended it is told by the subscriptions.
    std::future::pending().await
}
