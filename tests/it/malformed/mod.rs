//! More than two hundred bad requests and frames, each with its right answer. After every few of them a complete round
//! on a fresh session proves that the node serves on, and at the end no thread of the node has panicked.

mod fields;
mod http;
mod limits;
mod values;
mod websocket;

use std::net::SocketAddr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::support::bayeux::round;
use crate::support::http::{Connection, Response};
use crate::support::node::{impatient, node};

/// Rows between two health checks.
const GROUP: usize = 20;
/// How long a row waits. A row that waits in vain fails; the others are still tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// Panics anywhere in this process except in the tests' own code.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_answered_and_survived() {
    count_panics();
    let node = node(impatient).await;
    let mut report = Report { addr: node.addr(), rows: 0, failures: Vec::new() };

    values::run(&mut report).await;
    fields::run(&mut report).await;
    http::run(&mut report).await;
    limits::run(&mut report).await;
    websocket::run(&mut report).await;

    round(node.addr(), "all bad input").await;
    let failures = &report.failures;
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), report.rows, failures.join("\n"));
    assert!(report.rows >= 200, "only {} rows", report.rows);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics in the node, see above");
    println!("{} bad inputs", report.rows);
    node.stop().await;
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
enum Unanswered {
    /// The node closed the connection.
    Closed,
    /// Nothing came, or not all.
    Silent,
}

/// Sends bytes on a fresh connection and reads the answer. The node may answer and close before it has read all.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Result<Response, Unanswered> {
    let mut connection = Connection::open(addr).await;
    connection.send(bytes).await;
    answer(&mut connection).await
}

/// Reads an answer.
async fn answer(connection: &mut Connection) -> Result<Response, Unanswered> {
    match timeout(PATIENCE, connection.answer()).await {
        Ok(Ok(Some(response))) => Ok(response),
        Ok(_) => Err(Unanswered::Closed),
        Err(_) => Err(Unanswered::Silent),
    }
}

/// What became of the rows.
struct Report {
    addr: SocketAddr,
    rows: usize,
    failures: Vec<String>,
}

impl Report {
    /// Counts a row, and looks after the node now and then.
    async fn row(&mut self, name: &str, outcome: Result<(), String>) {
        self.rows += 1;
        if let Err(failure) = outcome {
            self.failures.push(format!("{name}: {failure}"));
        }
        if self.rows.is_multiple_of(GROUP) {
            round(self.addr, name).await;
        }
    }
}

/// Counts panics from now on. A panic inside a request is easily swallowed by the task that serves it.
fn count_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_tests = panic.location().is_some_and(|location| location.file().contains("tests/it/"));
            if !in_tests {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            shown(panic);
        }));
    });
}
