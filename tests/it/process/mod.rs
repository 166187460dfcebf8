//! The program as an operator sees it: flags, files, variables, signals, exit codes, logs, and the pages of a running
//! node. Every test runs the real binary.

mod check_config;
mod lines;
mod misuse;
mod pages;
mod serving;
mod signals;
mod talking;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::support::{eventually, soon, within};

/// How long a program may take to start: the machine may be busy compiling.
const START: Duration = Duration::from_secs(20);

/// `weft` with these arguments, and without variables of this process that would configure it.
fn weft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command that ends by itself.
async fn ended(mut command: Command) -> Output {
    let child = command.spawn().expect("weft starts");
    within(START, "weft ends by itself", child.wait_with_output()).await.expect("weft can be waited for")
}

/// What a command wrote to standard output; panics unless it succeeded.
async fn printed(command: Command) -> String {
    let output = ended(command).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A node that runs on free ports; killed when dropped.
struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    public: SocketAddr,
    internal: SocketAddr,
    ready_file: PathBuf,
    directory: tempfile::TempDir,
}

impl Running {
    /// Runs `weft` (no sub-command) with `arguments`, and waits until it serves.
    async fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), weft(arguments)).await
    }

    /// Runs `command` with its ready file in `directory`.
    async fn start_in(directory: tempfile::TempDir, mut command: Command) -> Self {
        let ready_file = directory.path().join("ready.json");
        let before = std::fs::read(&ready_file).ok();
        command.args(["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--ready-file"]).arg(&ready_file);
        let mut child = command.spawn().expect("weft starts");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let ready: Value = eventually(START, "weft writes its ready file", || {
            if let Some(status) = child.try_wait().expect("weft can be waited for") {
                panic!("weft ended before it served: {status}");
            }
            let written = std::fs::read(&ready_file).ok().filter(|content| Some(content) != before.as_ref());
            // Whoever sees the file sees all of it: half a document panics here.
            std::future::ready(written.map(|content| serde_json::from_slice(&content).expect("a complete ready file")))
        })
        .await;
        let address = |key: &str| ready[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let (public, internal) = (address("listen"), address("internal"));
        Self { child, log: BufReader::new(stderr).lines(), public, internal, ready_file, directory }
    }

    /// Sends a signal, `TERM` or `INT`.
    fn signal(&self, name: &str) {
        let id = self.child.id().expect("weft runs").to_string();
        // The shell's own `kill`: small systems have no other.
        let kill = std::process::Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &id]).status();
        assert!(kill.expect("a shell").success(), "the signal is sent");
    }

    /// Waits for the log's next line that contains `part`.
    async fn logs(&mut self, part: &str) -> String {
        soon(&format!("a log line with {part:?}"), async {
            loop {
                let line = self.log.next_line().await.expect("the log can be read").expect("the log goes on");
                if line.contains(part) {
                    return line;
                }
            }
        })
        .await
    }

    /// Waits for the end; gives the exit code and the rest of the log.
    async fn end(mut self) -> (Option<i32>, Vec<String>) {
        let mut lines = Vec::new();
        let end = async {
            while let Some(line) = self.log.next_line().await.expect("the log can be read") {
                lines.push(line);
            }
            self.child.wait().await.expect("weft can be waited for")
        };
        let status = within(START, "weft ends", end).await;
        (status.code(), lines)
    }

    /// Asks for the end and waits for it; gives the log.
    async fn stop(self) -> Vec<String> {
        self.signal("TERM");
        let (code, lines) = self.end().await;
        assert_eq!(code, Some(0), "a clean stop: {lines:?}");
        lines
    }
}
