//! `weft sub` and `weft pub`, as they are used in a shell.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::node::{TestNode, node, node_with_extension};
use crate::support::proxy::Proxy;
use crate::support::soon;

/// A command under way.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

fn weft(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let (name, rest) = arguments.split_first().expect("a sub-command");
    command.arg(name).args(["--url", url]).args(rest).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("WEFT_URL").env_remove("WEFT_TOKEN");
    command
}

impl Running {
    /// Starts `weft sub` and waits until it is subscribed.
    async fn sub(url: &str, arguments: &[&str]) -> Self {
        let mut child = weft(url, &[&["sub"], arguments].concat()).spawn().expect("weft starts");
        let out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let err = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut running = Self { child, out, err };
        running.says("subscribed to").await;
        running
    }

    /// Waits for a line on standard error.
    async fn says(&mut self, text: &str) {
        loop {
            let line = soon(text, self.err.next_line()).await.expect("text");
            if line.expect("weft runs").contains(text) {
                return;
            }
        }
    }

    async fn line(&mut self) -> String {
        soon("a line", self.out.next_line()).await.expect("text").expect("weft runs")
    }

    async fn code(&mut self) -> i32 {
        soon("weft ends", self.child.wait()).await.expect("it can be waited for").code().expect("no signal")
    }
}

/// Runs a command to its end: exit code, standard output, standard error.
async fn run(url: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = weft(url, arguments).stdin(Stdio::piped()).spawn().expect("weft starts");
    let mut stdin = child.stdin.take().expect("piped");
    // One that ends early reads nothing of it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = soon("weft ends", child.wait_with_output()).await.expect("it can be waited for");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

async fn started() -> (TestNode, String) {
    let node = node(|_| {}).await;
    let url = format!("http://{}/bayeux", node.addr());
    (node, url)
}

#[tokio::test]
async fn lines_go_in_and_come_out_in_order() {
    let (_node, url) = started().await;
    for transport in ["websocket", "long-polling"] {
        let mut sub = Running::sub(&url, &["--transport", transport, "--count", "3001", "/lines/*"]).await;
        let input: String = (0..3_000).map(|number| format!("{{\"n\": {number}}}\n\n")).collect();
        let done = run(&url, &["pub", "--verbose", "--transport", transport, "/lines/a"], &input).await;
        assert_eq!(done, (0, String::new(), "weft: 3000 published to /lines/a\n".to_owned()));
        for number in 0..3_000 {
            let line: Value = serde_json::from_str(&sub.line().await).expect("JSON");
            assert_eq!(line, json!({"channel": "/lines/a", "data": {"n": number}}));
        }
        assert_eq!(run(&url, &["pub", "/lines/b", "[1]"], "").await, (0, String::new(), String::new()));
        assert_eq!(sub.line().await, r#"{"channel":"/lines/b","data":[1]}"#);
        assert_eq!(sub.code().await, 0, "enough");
    }
}

#[tokio::test]
async fn a_message_is_repeated() {
    let (_node, url) = started().await;
    let mut sub = Running::sub(&url, &["--raw", "--count", "3", "/a"]).await;
    let asked = tokio::time::Instant::now();
    let published = run(&url, &["pub", "-v", "--repeat", "3", "--repeat-delay", "200ms", "/a", "1"], "").await;
    assert_eq!(published, (0, String::new(), "weft: 3 published to /a\n".to_owned()));
    assert!(asked.elapsed() >= Duration::from_millis(400), "{:?}", asked.elapsed());
    for _ in 0..3 {
        assert_eq!(sub.line().await, "1");
    }
    assert_eq!(sub.code().await, 0);
}

#[tokio::test]
async fn raw_text_and_times() {
    let (_node, url) = started().await;
    let mut raw = Running::sub(&url, &["--raw", "/a", "/b"]).await;
    let mut timed = Running::sub(&url, &["-t", "/a"]).await;
    let mut both = Running::sub(&url, &["-rt", "/a"]).await;
    assert_eq!(run(&url, &["pub", "--text", "/a", "two words"], "").await.0, 0);
    assert_eq!(raw.line().await, "two words");
    let line: Value = serde_json::from_str(&timed.line().await).expect("JSON");
    assert_eq!((&line["channel"], &line["data"]), (&json!("/a"), &json!("two words")));
    let time = line["time"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    let line = both.line().await;
    let (time, text) = line.split_once(' ').expect("a time before the text");
    assert!(humantime::parse_rfc3339(time).is_ok() && text == "two words", "{line}");
    // Lines as they are, empty ones too.
    assert_eq!(run(&url, &["pub", "--text", "/b"], "x \"y\"\n\nz\n").await.0, 0);
    assert_eq!([raw.line().await, raw.line().await, raw.line().await], ["x \"y\"", "", "z"]);
}

#[tokio::test]
async fn how_they_end() {
    let (_node, url) = started().await;
    for signal in ["INT", "TERM"] {
        let mut sub = Running::sub(&url, &["/a"]).await;
        let id = sub.child.id().expect("running").to_string();
        let sent = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, signal, &id]).status().await;
        assert!(sent.expect("a shell").success());
        assert_eq!(sub.code().await, 0, "{signal}");
    }
    // Who reads has enough.
    let sub = Running::sub(&url, &["/a"]).await;
    let Running { mut out, mut child, err: _err } = sub;
    assert_eq!(run(&url, &["pub", "/a", "1"], "").await.0, 0);
    assert!(soon("a line", out.next_line()).await.expect("text").is_some());
    drop(out);
    assert_eq!(run(&url, &["pub", "/a", "2"], "").await.0, 0);
    assert_eq!(soon("weft ends", child.wait()).await.expect("waited for").code(), Some(0));
    let (code, _, err) = run(&url, &["sub", "--timeout", "300ms", "/a"], "").await;
    assert_eq!(code, 1);
    assert!(err.contains("--timeout"), "{err}");
}

#[tokio::test]
async fn wrong_calls_and_refusals() {
    let (_node, url) = started().await;
    for (arguments, input, code, text) in [
        (&["pub", "/a", "{no"][..], "", 2, "--text publishes it as it is"),
        (&["pub", "/a"], "1\n{no\n3\n", 2, "stopped: 1 published, the rest not sent: line 2 is not JSON"),
        (&["pub", "--repeat", "0", "/a", "1"], "", 2, "--repeat"),
        (&["pub", "--repeat", "2", "/a"], "1\n", 2, "required"),
        (&["pub", "a", "1"], "", 2, "no channel to publish to"),
        (&["pub", "/a/*", "1"], "", 2, "no channel to publish to"),
        (&["pub", "/meta/x", "1"], "", 1, "refused"),
        (&["sub", "a"], "", 2, "no channel"),
        (&["sub", "/meta/x"], "", 1, "cannot subscribe to /meta/x"),
        (&["sub"], "", 2, "CHANNEL"),
        (&["sub", "--count", "0", "/a"], "", 2, "--count"),
        (&["sub", "--replay", "some", "/a"], "", 2, "expected `all`, `new` or a position"),
        (&["sub", "--replay", "all", "/a"], "", 1, "Replay not allowed"),
        (&["sub", "--replay", "-2", "/a"], "", 1, "Replay not allowed"),
        (&["sub", "--header", "x", "/a"], "", 2, "expected \"Name: value\""),
        (&["sub", "--ca-file", "/nowhere", "/a"], "", 2, "cannot read /nowhere"),
    ] {
        let (exit, out, err) = run(&url, arguments, input).await;
        assert!(exit == code && err.contains(text), "{arguments:?}: {exit}, {err}");
        assert_eq!(out, "");
    }
    let (exit, _, err) = run("ftp://x", &["pub", "/a", "1"], "").await;
    assert!(exit == 2 && err.contains("ftp://x"), "{err}");
    let (exit, _, err) = run("http://127.0.0.1:1/bayeux", &["pub", "--timeout", "0.2", "/a", "1"], "").await;
    assert!(exit == 1 && err.contains("no connection to http://127.0.0.1:1/bayeux") && !err.contains("yet"), "{err}");
    // Who waits for longer is told.
    let (exit, _, err) = run("http://127.0.0.1:1/bayeux", &["pub", "--timeout", "1.2", "/a", "1"], "").await;
    assert!(exit == 1 && err.contains("no connection to http://127.0.0.1:1/bayeux yet; trying for 1s 200ms"), "{err}");
}

#[tokio::test]
async fn a_subscriber_waits_for_its_server_and_comes_back() {
    let (node, url) = started().await;
    let proxy = Proxy::start([]).await;
    let mut child = weft(&proxy.url(), &["sub", "/a"]).spawn().expect("weft starts");
    let out = BufReader::new(child.stdout.take().expect("piped")).lines();
    let err = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut sub = Running { child, out, err };
    sub.says("no connection to http://").await;
    proxy.set_targets([node.addr()]);
    sub.says("subscribed to /a").await;
    assert_eq!(run(&url, &["pub", "/a", "1"], "").await.0, 0);
    assert_eq!(sub.line().await, r#"{"channel":"/a","data":1}"#);
    proxy.set_targets([]);
    proxy.cut();
    sub.says("no connection to http://").await;
    assert_eq!(run(&url, &["pub", "/a", "2"], "").await.0, 0);
    proxy.set_targets([node.addr()]);
    assert_eq!(sub.line().await, r#"{"channel":"/a","data":2}"#);
    sub.says("connected again").await;
}

#[tokio::test]
async fn tokens_and_headers_are_sent() {
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, ready};
    use weft::{Message, RequestInfo, Verdict};

    struct Guard;
    impl weft::Extension for Guard {
        fn incoming<'a>(&'a self, message: &'a mut Message, request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
            let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
            if (header("authorization"), header("x-team")) != (Some("Bearer secret"), Some("a b")) {
                message.refuse("403::Forbidden");
            }
            ready(Verdict::Pass).boxed()
        }
    }
    let node = node_with_extension(Guard, |_| {}).await;
    let url = format!("http://{}/bayeux", node.addr());
    let (code, _, err) = run(&url, &["pub", "/a", "1"], "").await;
    assert!(code == 1 && err.contains("Forbidden"), "{err}");
    let mut command = weft(&url, &["pub", "-H", "X-Team: a b", "/a", "1"]);
    let mut child = command.env("WEFT_TOKEN", "secret").spawn().expect("weft starts");
    let mut err = String::new();
    soon("weft ends", child.stderr.take().expect("piped").read_to_string(&mut err)).await.expect("text");
    assert_eq!((soon("weft ends", child.wait()).await.expect("waited for").code(), err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_wrong_mount_and_a_server_that_is_away_are_named() {
    let (node, _url) = started().await;
    let wrong = format!("http://{}/wrong", node.addr());
    for arguments in [&["sub", "/a"][..], &["pub", "/a", "1"]] {
        let (exit, _, err) = run(&wrong, arguments, "").await;
        assert!(
            exit == 1 && err.contains(&format!("nothing speaks Bayeux at {wrong}")),
            "{arguments:?}: {exit}, {err}"
        );
    }
    let (exit, _, err) = run("http://127.0.0.1:1/bayeux", &["pub", "--timeout", "1", "/a", "1"], "").await;
    assert!(exit == 1 && err.contains("within 1s: Connection refused"), "{exit}, {err}");
}

/// Publishes until a message comes out.
async fn published(node: &TestNode, out: &mut Lines<BufReader<ChildStdout>>) {
    let url = format!("http://{}/bayeux", node.addr());
    let came = async {
        loop {
            run(&url, &["pub", "/a", "1"], "").await;
            if let Ok(line) = tokio::time::timeout(Duration::from_millis(200), out.next_line()).await {
                return line.expect("text").expect("weft runs");
            }
        }
    };
    soon("a message", came).await;
}

#[tokio::test]
async fn that_messages_may_be_missing_is_said_even_by_a_quiet_one() {
    let (first, second) = (node(|_| {}).await, node(|config| config.handshake_spread = Duration::ZERO).await);
    let proxy = Proxy::start([first.addr()]).await;
    let mut sub = weft(&proxy.url(), &["sub", "--quiet", "/a"]);
    let mut child = sub.spawn().expect("weft starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped")).lines();
    let err = BufReader::new(child.stderr.take().expect("piped")).lines();
    published(&first, &mut out).await;
    proxy.set_targets([second.addr()]);
    proxy.cut();
    published(&second, &mut out).await;
    let mut running = Running { child, out, err };
    let said = soon("a line", running.err.next_line()).await.expect("text").expect("weft runs");
    assert!(said.contains("messages may be missing"), "{said}");
}
