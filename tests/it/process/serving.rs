//! Start: no sub-command is `serve`, the ready file, the log, and ports that are taken.

use std::io::Read;
use std::net::TcpListener;

use serde_json::Value;

use super::{Running, ended, text, weft};
use crate::support::bayeux::round;
use crate::support::http::get;

#[tokio::test]
async fn without_a_sub_command_it_serves() {
    let bare = Running::start(&[]).await;
    round(bare.public, "a start without a sub-command").await;
    bare.stop().await;

    let directory = tempfile::tempdir().expect("a temporary directory");
    let named = Running::start_in(directory, weft(&["serve"])).await;
    round(named.public, "`weft serve`").await;
    named.stop().await;
}

#[tokio::test]
async fn flags_before_and_after_serve_mean_the_same() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Running::start_in(directory, weft(&["--mount", "/bayeux", "--timeout", "2s"])).await;
    let status = get(node.public, "/status.json", &[]).await.json();
    assert_eq!(status["timeout_seconds"], 2.0, "{status}");
    let mounts = status["mounts"].as_array().expect("mounts");
    assert_eq!(mounts.len(), 1, "{status}");
    assert_eq!((&mounts[0]["path"], &mounts[0]["dialect"]), (&"/bayeux".into(), &"faye".into()), "{status}");
    node.stop().await;

    // A flag before the sub-command would be ignored silently: it is refused.
    let mixed = ended(weft(&["--timeout", "2s", "serve"])).await;
    assert_eq!(mixed.status.code(), Some(2), "{}", text(&mixed.stderr));
}

/// One worker is the thread that waits for signals, too.
#[tokio::test]
async fn as_many_threads_serve_as_were_asked_for() {
    for (workers, threads) in [("1", 0), ("2", 2), ("5", 5)] {
        let mut command = weft(&[]);
        command.env("WEFT_WORKERS", workers);
        let node = Running::start_in(tempfile::tempdir().expect("a temporary directory"), command).await;
        round(node.public, &format!("{workers} workers")).await;
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.child.id().expect("it runs"))).expect("it runs");
        let named = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        assert_eq!(named.filter(|name| name.trim() == "tokio-rt-worker").count(), threads, "{workers} workers");
        node.stop().await;
    }
}

#[tokio::test]
async fn the_ready_file_appears_at_once_and_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("ready.json");
    std::fs::write(&path, "of an earlier start").expect("the directory can be written");
    let mut earlier = std::fs::File::open(&path).expect("just written");

    let node = Running::start_in(directory, weft(&[])).await;

    // Replaced, not overwritten: who had the old file open reads the old text to its end.
    let mut content = String::new();
    earlier.read_to_string(&mut content).expect("the file can be read");
    assert_eq!(content, "of an earlier start");
    let names: Vec<_> = std::fs::read_dir(node.directory.path()).expect("the directory can be read").collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    let ready: Value = serde_json::from_slice(&std::fs::read(&node.ready_file).expect("it is there")).expect("JSON");
    let keys: Vec<_> = ready.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["internal", "listen"]);
    assert_ne!(node.public.port(), 0);
    assert_ne!(node.public, node.internal);
    node.stop().await;
}

#[tokio::test]
async fn logs_are_json_lines_without_a_terminal() {
    let node = Running::start(&[]).await;
    let (public, internal) = (node.public.to_string(), node.internal.to_string());
    let lines = node.stop().await;
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "`{key}` of {line}");
        }
    }
    let serving = lines.iter().find(|line| line["message"] == "serving").expect("it says that it serves");
    assert_eq!((&serving["listen"], &serving["internal"]), (&public.into(), &internal.into()), "{serving}");
    assert!(lines.iter().any(|line| line["signal"] == "SIGTERM"), "it says why it stops: {lines:?}");
}

#[tokio::test]
async fn logs_are_text_when_asked() {
    let node = Running::start(&["--log-format", "text", "--log-level", "debug"]).await;
    round(node.public, "a start").await;
    let lines = node.stop().await;
    assert!(lines.iter().any(|line| line.contains("serving")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("DEBUG")), "the level counts: {lines:?}");
    for line in &lines {
        assert!(serde_json::from_str::<Value>(line).is_err(), "not JSON: {line}");
        assert!(!line.contains('\u{1b}'), "no colours without a terminal: {line:?}");
    }
}

#[tokio::test]
async fn a_quiet_level_is_quiet() {
    let node = Running::start(&["--log-level", "error"]).await;
    assert_eq!(node.stop().await, [""; 0]);
}

#[tokio::test]
async fn a_taken_port_is_a_failure_that_says_which() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for (flag, other) in [("--listen", "--internal-listen"), ("--internal-listen", "--listen")] {
        let output = ended(weft(&[flag, &address, other, "127.0.0.1:0"])).await;
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flag}: {complaint}");
        assert!(complaint.contains(&address) && complaint.contains("in use"), "{flag}: {complaint}");
        assert!(complaint.contains(&format!("{flag} 127.0.0.1:PORT")), "{flag}: {complaint}");
        assert!(!complaint.contains("panicked"), "{flag}: {complaint}");
    }
}

#[tokio::test]
async fn a_ready_file_that_cannot_be_written_is_a_failure() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("missing").join("ready.json");
    let path = path.to_str().expect("UTF-8");
    let free = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--ready-file", path];
    let output = ended(weft(&free)).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(path), "{}", text(&output.stderr));
}
