//! Many connects at once, and all of them again after the server was restarted.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{clean, url, usage};
use crate::support::http::sample;
use crate::support::node::node;
use crate::support::redis::Redis;
use crate::support::within;

#[tokio::test]
async fn all_connect() {
    let node = node(|_| {}).await;
    let round = clean(&format!("storm --clients 50 --in-flight 7 --quiet --url {}", url(node.addr()))).await;
    let connects = &round["connects"];
    assert_eq!((&connects["count"], &connects["failed"], &connects["refused"]), (&50.into(), &0.into(), &0.into()));
    assert_eq!(connects["latency_us"]["count"], 50);
    for step in ["tcp", "upgrade", "handshake", "subscribe", "connect"] {
        assert_eq!(connects["steps_us"][step]["count"], 50, "{connects:#}");
    }
    let handshakes = sample(node.internal_addr(), r#"weft_messages_received_total{kind="handshake"}"#).await;
    assert_eq!(handshakes as u64, 50);
    node.stop().await;
}

#[tokio::test]
async fn some_are_refused() {
    let node = node(|config| config.limits.sessions = 30).await;
    let output = super::measured(&format!("storm --clients 50 --quiet --url {}", url(node.addr()))).await;
    let connects = &super::round(&output.1)["connects"];
    // The node itself has a session.
    assert_eq!((output.0, &connects["failed"]), (Some(1), &21.into()), "{connects:#}");
    node.stop().await;
}

/// A node on a given port, or on any.
fn start(listen: &str, directory: &tempfile::TempDir, redis: &str) -> Child {
    let ready = directory.path().join("ready.json");
    // Who waits must not see an old one.
    let _ = std::fs::remove_file(&ready);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .args(["--listen", listen, "--internal-listen", "127.0.0.1:0", "--redis-url", redis, "--ready-file"])
        .arg(ready);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("weft starts")
}

/// Where it listens for clients, and for who asks for its counters.
async fn ready(directory: &tempfile::TempDir) -> (String, SocketAddr) {
    let file = directory.path().join("ready.json");
    let ready: Value = crate::support::eventually(super::LONG, "weft writes its ready file", || {
        let text = std::fs::read(&file).ok();
        std::future::ready(text.and_then(|text| serde_json::from_slice(&text).ok()))
    })
    .await;
    let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
    (address("listen"), address("internal").parse().expect("an address"))
}

/// Sessions live in Redis: after a restart of the node nobody is refused.
#[tokio::test]
async fn all_come_back() {
    let redis = Redis::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut first = start("127.0.0.1:0", &directory, &redis.url());
    let (listen, _) = ready(&directory).await;
    let words = format!("storm --clients 40 --until-back --json - --url http://{listen}/bayeux");
    let mut bench = super::command(&words).spawn().expect("weft starts");
    usage::line(&mut bench, "waiting for a restart").await;
    first.kill().await.expect("the node can be killed");
    let _second = start(&listen, &directory, &redis.url());
    let (_, internal) = ready(&directory).await;
    let output = within(super::LONG, "weft bench ends", bench.wait_with_output()).await.expect("it ends");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let connects = &super::round(&report)["connects"];
    assert_eq!(output.status.code(), Some(0), "{connects:#}");
    assert_eq!((&connects["count"], &connects["refused"]), (&40.into(), &0.into()), "{connects:#}");
    assert_eq!(connects["latency_us"]["count"], 40, "only the first time");
    let (back, broke) = (&connects["back_seconds"], &connects["back_from_break_seconds"]);
    assert!(back.as_f64().is_some_and(|back| broke.as_f64().is_some_and(|broke| broke >= back)), "{connects:#}");
    let handshakes = sample(internal, r#"weft_messages_received_total{kind="handshake"}"#).await;
    assert_eq!(handshakes as u64, 0, "all came back with the session that they had");
}
