//! Exit codes, errors in words, and an end before its time.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::{command, ended, url};
use crate::support::node::node;
use crate::support::{soon, within};

/// Waits for a line with this part on standard error, and goes on reading so that nobody is blocked.
pub async fn line(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
    soon(&format!("a line with {part:?}"), async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            if line.contains(part) {
                return;
            }
        }
        panic!("weft bench ended");
    })
    .await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

/// Sends Ctrl-C.
pub fn interrupt(child: &Child) {
    let id = child.id().expect("weft runs").to_string();
    // The shell's own `kill`: small systems have no other.
    let kill = std::process::Command::new("sh").args(["-c", r#"kill -s INT "$0""#, &id]).status();
    assert!(kill.expect("a shell").success(), "the signal is sent");
}

#[tokio::test]
async fn misuse() {
    for (words, says) in [
        ("nonsense", "invalid value"),
        ("fan-out --url ftp://x", "http://"),
        ("fan-out --rate -1", "--rate"),
        ("fan-out --rate fast", "--rate"),
        ("fan-out --size 3", "--size"),
        ("fan-out --clients 0", "--clients"),
        ("fan-out --clients 500000", "files"),
        ("polling --rate max --clients 1000 --channels 1000 --in-flight 1000000", "--in-flight"),
        ("fan-out --clients 3 --channels 7", "multiple"),
        ("polling --transport websocket", "long-polling"),
        ("one-to-one --channels 3", "--channels"),
        ("fan-out --pid 4294967295", "process"),
        ("fan-out --until-back", "storm"),
        ("fan-out --target name=x", "url"),
        ("polling --target protocol=socket.io --url http://127.0.0.1:1/", "--target"),
        ("fan-out --rounds 0", "--rounds"),
    ] {
        let output = ended(words).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {stderr}");
        assert!(stderr.contains(says), "{words}: {stderr}");
        assert!(output.stdout.is_empty(), "{words}");
    }
}

#[tokio::test]
async fn nobody_answers() {
    // Taken and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for scenario in ["fan-out", "polling", "storm", "idle"] {
        let output = ended(&format!("{scenario} --clients 3 --quiet --url {}", url(free))).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{scenario}: {stderr}");
        assert!(stderr.contains("could not be reached"), "{scenario}: {stderr}");
    }
    // Somebody, but not for WebSockets.
    let node = node(|_| {}).await;
    let output = ended(&format!("fan-out --clients 3 --quiet --url http://{}/elsewhere", node.addr())).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("status 404"), "{stderr}");
    node.stop().await;
}

#[tokio::test]
async fn ended_early() {
    let node = node(|_| {}).await;
    let words =
        format!("fan-out --clients 5 --rate 100 --warm-up 0 --duration 10m --json - --url {}", url(node.addr()));
    let mut child = command(&words).spawn().expect("weft starts");
    line(&mut child, "measuring").await;
    interrupt(&child);
    let output = within(super::LONG, "weft bench ends", child.wait_with_output()).await.expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(report["interrupted"], true);
    let round = super::round(&report);
    assert!(round["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{round:#}");
    assert_eq!(round["connects"]["count"], 6);
    node.stop().await;
}
