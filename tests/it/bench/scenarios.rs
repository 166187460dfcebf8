//! Every scenario, small, against real nodes: counts are exact, nothing is lost.

use serde_json::Value;

use super::{assert_complete, clean, count, ended, measured, round, url};
use crate::support::http::sample;
use crate::support::node::{Process, node};
use crate::support::redis::Redis;

const BRIEF: &str = "--rate 200 --warm-up 200ms --duration 800ms --quiet";

#[tokio::test]
async fn fan_out() {
    let node = node(|_| {}).await;
    let round = clean(&format!("fan-out --clients 20 --publishers 2 {BRIEF} --url {}", url(node.addr()))).await;
    assert_complete(&round, 20);
    assert_eq!(count(&round, "published"), 200, "{round:#}");
    assert_eq!(count(&round, "out_of_order"), 0);
    assert_eq!(round["connects"]["count"], 22);
    let measured = round["latency_us"]["count"].as_u64().expect("a count");
    assert_eq!(measured, 160 * 20, "only what was due in the measured time");
    node.stop().await;
}

#[tokio::test]
async fn fan_out_over_channels_and_threads() {
    let node = node(|_| {}).await;
    let words = format!("fan-out --clients 12 --channels 3 --threads 2 --batch 5 {BRIEF} --url {}", url(node.addr()));
    let round = clean(&words).await;
    assert_complete(&round, 4);
    assert_eq!(count(&round, "out_of_order"), 0);
    // More channels than clients: each subscribes to several.
    let words = format!("fan-out --clients 2 --publishers 1 --channels 6 {BRIEF} --url {}", url(node.addr()));
    assert_complete(&clean(&words).await, 1);
    node.stop().await;
}

#[tokio::test]
async fn at_full_speed() {
    let node = node(|_| {}).await;
    let brief = "--rate max --warm-up 100ms --duration 500ms --quiet";
    let round = clean(&format!("fan-out --clients 10 {brief} --url {}", url(node.addr()))).await;
    assert_complete(&round, 10);
    assert_eq!(count(&round, "out_of_order"), 0);
    let words = format!("one-to-one --clients 10 --threads 2 --in-flight 3 {brief} --url {}", url(node.addr()));
    assert_complete(&clean(&words).await, 1);
    let words = format!("polling --clients 10 --channels 10 {brief} --url {}", url(node.addr()));
    assert_complete(&clean(&words).await, 1);
    let words = format!("fan-out --clients 2 --channels 4 --publishers 2 --batch 4 {brief} --url {}", url(node.addr()));
    assert_complete(&clean(&words).await, 1);
    node.stop().await;
}

#[tokio::test]
async fn many_to_many() {
    let node = node(|_| {}).await;
    let round = clean(&format!("many-to-many --clients 10 {BRIEF} --url {}", url(node.addr()))).await;
    assert_complete(&round, 10);
    assert_eq!(round["connects"]["count"], 10);
    node.stop().await;
}

#[tokio::test]
async fn one_to_one() {
    let node = node(|_| {}).await;
    let round = clean(&format!("one-to-one --clients 10 {BRIEF} --url {}", url(node.addr()))).await;
    assert_complete(&round, 1);
    assert_eq!(round["connects"]["count"], 20);
    assert_eq!(round["publish_latency_us"]["count"], 160);
    node.stop().await;
}

#[tokio::test]
async fn the_dialect_of_cometd() {
    let node = node(|_| {}).await;
    for scenario in ["fan-out", "polling"] {
        let words = format!("{scenario} --clients 5 {BRIEF} --url http://{}/cometd", node.addr());
        assert_complete(&clean(&words).await, 5);
    }
    node.stop().await;
}

/// Each request of a poll goes to a random node, and nothing is lost between them.
#[tokio::test]
async fn polling_at_two_nodes() {
    let redis = Redis::start().await;
    let arguments = ["--redis-url", &redis.url()];
    let (one, other) = tokio::join!(Process::start(&arguments), Process::start(&arguments));
    let urls = format!("--url {} --url {}", url(one.addr()), url(other.addr()));
    let round = clean(&format!("polling --clients 10 {BRIEF} {urls}")).await;
    assert_complete(&round, 10);
    assert_eq!(count(&round, "request_failures"), 0);
    let mut connects = Vec::new();
    for node in [&one, &other] {
        connects.push(sample(node.internal_addr(), r#"weft_messages_received_total{kind="connect"}"#).await);
    }
    let share = connects[0] / (connects[0] + connects[1]);
    assert!((0.3..0.7).contains(&share), "{connects:?}");
}

#[tokio::test]
async fn connections_at_two_nodes() {
    let (one, other) = tokio::join!(node(|_| {}), node(|_| {}));
    let urls = format!("--url {} --url {}", url(one.addr()), url(other.addr()));
    let round = clean(&format!("idle --clients 60 --duration 200ms --quiet {urls}")).await;
    assert_eq!(round["connects"]["count"], 60);
    for node in [one, other] {
        let accepted = sample(node.internal_addr(), "weft_connections_accepted_total").await;
        assert!((15..60).contains(&(accepted as u64)), "{accepted}");
        node.stop().await;
    }
}

#[tokio::test]
async fn mixed() {
    let node = node(|_| {}).await;
    let words = format!(
        "mixed --clients 10 --churn 40 --rate 200 --warm-up 200ms --duration 2s --quiet --url {}",
        url(node.addr())
    );
    let round = clean(&words).await;
    assert_complete(&round, 10);
    assert!(count(&round, "churned") > 40, "{round:#}");
    assert!(count(&round, "churn_delivered") > 0, "{round:#}");
    assert_eq!(count(&round, "churn_lost"), 0, "{round:#}");
    node.stop().await;
}

#[tokio::test]
async fn idle_by_long_polling() {
    let node = node(|_| {}).await;
    let words =
        format!("idle --transport long-polling --clients 20 --duration 300ms --quiet --url {}", url(node.addr()));
    let round = clean(&words).await;
    assert_eq!(round["connects"]["count"], 20);
    assert_eq!(round["published"], 0);
    node.stop().await;
}

/// A connect that is answered is followed by another, so that sessions live.
#[tokio::test]
async fn connects_go_on() {
    let node = node(|config| config.timeout = std::time::Duration::from_millis(300)).await;
    for transport in ["websocket", "long-polling"] {
        let words =
            format!("idle --transport {transport} --clients 5 --duration 1500ms --quiet --url {}", url(node.addr()));
        let before = sample(node.internal_addr(), r#"weft_messages_received_total{kind="connect"}"#).await;
        let round = clean(&words).await;
        assert_eq!(round["connects"]["refused"], 0, "{round:#}");
        let connects = sample(node.internal_addr(), r#"weft_messages_received_total{kind="connect"}"#).await - before;
        assert!(connects as u64 >= 5 * 5, "{connects}");
    }
    node.stop().await;
}

/// Figures of processes, several targets in turn, and all keys of the document.
#[tokio::test]
async fn targets_side_by_side() {
    let (one, other) = tokio::join!(Process::start(&[]), Process::start(&[]));
    let target =
        |name: &str, process: &Process| format!("name={name} url={} pid={}", url(process.addr()), process.id());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let page = directory.path().join("report.html");
    let mut command = super::command("fan-out --clients 5 --rounds 2 --seed 7 --json - --report");
    command.arg(&page).args(BRIEF.split(' ')).args([
        "--target",
        &target("one", &one),
        "--target",
        &target("two", &other),
    ]);
    let output = crate::support::within(super::LONG, "weft bench ends", command.output()).await.expect("weft ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(report["targets"].as_array().map(Vec::len), Some(2));
    for target in report["targets"].as_array().expect("targets") {
        assert_eq!(target["rounds"].as_array().map(Vec::len), Some(2));
        for round in target["rounds"].as_array().expect("rounds") {
            assert_complete(round, 5);
            assert!(round["server"]["cpu_us_per_delivery"].as_f64().is_some_and(|time| time > 0.0), "{round:#}");
        }
        assert!(target["median"]["latency_us"]["p99"].is_f64(), "{target:#}");
    }
    let ratio = &report["ratios"][0];
    assert_eq!((&ratio["target"], &ratio["to"]), (&"two".into(), &"one".into()));
    assert!(ratio["server_cpu_per_delivery"].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio:#}");
    assert_eq!(report["seed"], 7);

    let mut keys = Vec::new();
    key_paths("", &report, &mut keys);
    keys.sort();
    keys.dedup();
    let expected: Vec<_> = include_str!("keys.txt").lines().collect();
    assert_eq!(keys, expected, "whoever reads the document relies on its keys");

    let page = std::fs::read_to_string(page).expect("a page");
    for fetched in ["://", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(fetched), "the page fetches nothing: {fetched}");
    }
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme"));
}

/// The names of all leaves, with `[]` for members of lists.
fn key_paths(at: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| key_paths(&format!("{at}/{key}"), value, keys)),
        Value::Array(list) if !list.is_empty() => {
            list.iter().for_each(|value| key_paths(&format!("{at}[]"), value, keys))
        }
        _ => keys.push(at.to_owned()),
    }
}

#[tokio::test]
async fn the_table() {
    let node = node(|_| {}).await;
    let output = ended(&format!("fan-out --clients 5 {BRIEF} --url {}", url(node.addr()))).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line =
        |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("published ").ends_with(" 200") && line("delivered ").ends_with(" 1,000"), "{text}");
    assert!(line("lost").ends_with(" 0") && line("latency p50").ends_with('s'), "{text}");
    assert!(!text.contains('\x1b'), "no colours in a file");
    assert!(output.stderr.is_empty(), "--quiet: {}", String::from_utf8_lossy(&output.stderr));
    node.stop().await;
}

/// A node that goes away: what broke is told.
#[tokio::test]
async fn a_broken_server() {
    let process = Process::start(&[]).await;
    let words = format!(
        "fan-out --clients 5 --rate 100 --warm-up 0 --duration 30s --drain 1s --json - --url {}",
        url(process.addr())
    );
    let mut child = super::command(&words).spawn().expect("weft starts");
    super::usage::line(&mut child, "measuring").await;
    drop(process);
    super::usage::interrupt(&child);
    let output =
        crate::support::within(super::LONG, "weft bench ends", child.wait_with_output()).await.expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(round(&report)["connection_failures"], 6, "{report:#}");
}

#[tokio::test]
async fn sizes() {
    let node = node(|_| {}).await;
    for size in [64, 5_000, 100_000] {
        let words = format!(
            "fan-out --clients 3 --size {size} --rate 50 --warm-up 0 --duration 400ms --quiet --url {}",
            url(node.addr())
        );
        assert_complete(&clean(&words).await, 3);
    }
    let (code, _) = measured(&format!(
        "polling --clients 3 --size 100000 --rate 50 --warm-up 0 --duration 400ms --quiet --url {}",
        url(node.addr())
    ))
    .await;
    assert_eq!(code, Some(0));
    node.stop().await;
}
