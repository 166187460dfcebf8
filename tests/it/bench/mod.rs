//! The load generator: what it counts is what happened, on real nodes, and on scripted servers that lose, repeat and
//! swap messages. Every test runs the real binary.

mod faults;
mod scenarios;
mod scripted;
mod socketio;
mod storm;
mod usage;

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::within;

/// How long a measurement may take: the machine may be busy compiling.
const LONG: Duration = Duration::from_secs(60);

/// `weft bench` with these words.
fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("bench").args(words.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs it to its end.
async fn ended(words: &str) -> Output {
    let child = command(words).spawn().expect("weft starts");
    within(LONG, "weft bench ends", child.wait_with_output()).await.expect("weft can be waited for")
}

/// Runs it and reads its JSON, with the exit code.
async fn measured(words: &str) -> (Option<i32>, Value) {
    let output = ended(&format!("{words} --json -")).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code(), report)
}

/// Runs it; panics unless all went well. Gives the only round.
async fn clean(words: &str) -> Value {
    let (code, report) = measured(words).await;
    let round = round(&report).clone();
    assert_eq!(code, Some(0), "{round:#}");
    round
}

/// The first round of the first target.
fn round(report: &Value) -> &Value {
    &report["targets"][0]["rounds"][0]
}

/// The address of a node's Faye mount.
fn url(addr: SocketAddr) -> String {
    format!("http://{addr}/bayeux")
}

fn count(round: &Value, name: &str) -> u64 {
    round[name].as_u64().unwrap_or_else(|| panic!("{name} is a count: {round:#}"))
}

/// Panics unless every message arrived at each of `receivers` exactly once.
fn assert_complete(round: &Value, receivers: u64) {
    let published = count(round, "published");
    assert!(published > 0, "{round:#}");
    assert_eq!(count(round, "expected"), published * receivers, "{round:#}");
    assert_eq!(count(round, "delivered"), published * receivers, "{round:#}");
    for fault in ["lost", "duplicate", "refused", "unanswered", "unsent", "unexpected", "connection_failures"] {
        assert_eq!(count(round, fault), 0, "{fault}: {round:#}");
    }
}
