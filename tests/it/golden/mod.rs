//! Replays what was captured from Faye 1.4.3 and compares every answer: status, headers, body, frames.
//! Where Weft differs on purpose, `differences` says so and why; whatever is not listed there must be alike.

mod compare;
mod differences;
mod exchange;
mod extension;
mod pairs;
mod replay;
mod traffic;
mod unrecorded;

use std::time::Duration;

use crate::support::node::{Process, node, node_with_extensions};
use differences::Rules;
use replay::Servers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_pair() {
    let plain = node(|config| config.timeout = Duration::from_secs(45)).await;
    let extended = node_with_extensions(extension::First, extension::Second, |config| {
        config.timeout = Duration::from_secs(45);
    })
    .await;
    let brisk = Process::start(&["--mount", "/faye=faye", "--timeout", "1s"]).await;
    let servers = Servers { a: plain.addr(), b: brisk.addr(), c: extended.addr() };

    let rules = Rules::weft();
    let failures = replay::all(&servers, &rules).await;
    assert!(failures.is_empty(), "{} pairs differ:\n{}", failures.len(), failures.join("\n"));
}

/// A difference that no pair needs is either done with or not written down rightly.
#[test]
fn every_listed_difference_is_needed() {
    let rules = Rules::weft();
    for pair in pairs::load() {
        rules.exchange(&pair);
    }
    assert_eq!(rules.unused(), [""; 0], "listed differences that no pair needs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_client_over_long_polling() {
    let node = node(|config| config.timeout = Duration::from_secs(2)).await;
    traffic::long_polling(node.addr(), &Rules::weft()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_client_over_websocket() {
    let node = node(|config| config.timeout = Duration::from_secs(2)).await;
    traffic::websocket(node.addr(), &Rules::weft()).await;
}
