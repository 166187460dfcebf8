//! Too much, too long, too slow: every bound answers clearly, or ends the connection.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use super::{Report, Unanswered, answer, exchange};
use crate::support::bayeux::{Client, MOUNT, Poster};
use crate::support::http::{Connection, Response, json_request, request};
use crate::support::soon;

/// The default bound of a body.
const MAX_BODY: usize = 1 << 20;
/// The default bound of a batch.
const MAX_MESSAGES: usize = 1000;

/// Tries every bound.
pub async fn run(report: &mut Report) {
    bodies(report).await;
    batches(report).await;
    channels(report).await;
    subscriptions(report).await;
    heads(report).await;
    slow_peers(report).await;
}

async fn bodies(report: &mut Report) {
    let body = |length: usize| {
        let head = r#"[{"channel":"/big","data":""#;
        let tail = r#""}]"#;
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len())).into_bytes()
    };
    let full = exchange(report.addr, &json_request(MOUNT, &body(MAX_BODY))).await;
    report.row("limit: body at the limit", has_status(&full, &[200])).await;
    let over = exchange(report.addr, &json_request(MOUNT, &body(MAX_BODY + 1))).await;
    report.row("limit: body over the limit", has_status(&over, &[413])).await;

    let head = format!("POST {MOUNT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let announced = exchange(report.addr, format!("{head}Content-Length: 1000000000000\r\n\r\n").as_bytes()).await;
    report.row("limit: announced body over the limit", has_status(&announced, &[413])).await;

    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body(MAX_BODY + 100_000).chunks(65_536) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let chunked = exchange(report.addr, &chunked).await;
    report.row("limit: chunked body over the limit", has_status(&chunked, &[413])).await;

    let form = format!("message={}", "%20".repeat(MAX_BODY / 2));
    let form = exchange(report.addr, &request("POST", MOUNT, &[], Some(form.as_bytes()))).await;
    report.row("limit: form over the limit", has_status(&form, &[413])).await;
}

async fn batches(report: &mut Report) {
    let batch = |count: usize| json!(vec![json!({"channel": "/batch", "data": 1}); count]).to_string().into_bytes();
    let full = exchange(report.addr, &json_request(MOUNT, &batch(MAX_MESSAGES))).await;
    let all = full.is_ok_and(|response| response.text().matches(r#""successful":true"#).count() == MAX_MESSAGES);
    report.row("limit: full batch", if all { Ok(()) } else { Err("not all are accepted".into()) }).await;

    let over = exchange(report.addr, &json_request(MOUNT, &batch(MAX_MESSAGES + 1))).await;
    let text = over.as_ref().map(Response::text).unwrap_or_default().to_ascii_lowercase();
    let clear = text.contains("too many") && !text.contains(r#""successful":true"#);
    report.row("limit: batch over the limit", if clear { Ok(()) } else { Err(format!("{over:?}")) }).await;
}

async fn channels(report: &mut Report) {
    let client = Client::connected(report.addr).await;
    for (name, channel) in [
        ("long channel", format!("/{}", "x".repeat(100_000))),
        ("deep channel", "/x".repeat(1000)),
        ("long pattern", format!("/{}/**", "x".repeat(100_000))),
        ("deep pattern", format!("{}/*", "/x".repeat(1000))),
    ] {
        let publish = json!({"channel": channel, "data": 1});
        let subscribe = json!({"channel": "/meta/subscribe", "clientId": client.id, "subscription": channel});
        for (kind, message) in [("publish to", publish), ("subscribe to", subscribe)] {
            let response = exchange(report.addr, &json_request(MOUNT, message.to_string().as_bytes())).await;
            let outcome = response.map_err(|unanswered| format!("{unanswered:?}")).and_then(|response| {
                let reply: Value = response.json();
                let error = reply[0]["error"].as_str().unwrap_or_default();
                if error.starts_with("405:") { Ok(()) } else { Err(format!("{:.200}", response.text())) }
            });
            report.row(&format!("limit: {kind} {name}"), outcome).await;
        }
    }
}

/// Subscribes beyond the default bound of 1000.
async fn subscriptions(report: &mut Report) {
    const MANY: usize = 2000;
    let client = Client::connected(report.addr).await;
    let mut poster = Poster::new(report.addr);
    let mut refused = None;
    for first in (0..MANY).step_by(100) {
        let channels: Vec<_> = (first..first + 100).map(|n| format!("/many/{n}")).collect();
        let message = json!({"channel": "/meta/subscribe", "clientId": client.id, "subscription": channels});
        let reply = soon("a subscribe reply", poster.post(&message)).await.remove(0);
        if reply["successful"] == false {
            refused = Some(reply["error"].as_str().unwrap_or_default().to_owned());
            break;
        }
    }
    let outcome = match refused {
        Some(error) if error.starts_with(|digit: char| digit.is_ascii_digit()) => Ok(()),
        Some(error) => Err(format!("the error does not say what is wrong: {error:?}")),
        None => Err(format!("{MANY} subscriptions of one session are accepted")),
    };
    report.row("limit: subscriptions", outcome).await;
}

async fn heads(report: &mut Report) {
    let long = "x".repeat(1 << 20);
    let many = "X: y\r\n".repeat(10_000);
    for (name, head) in [
        ("long header", format!("GET {MOUNT} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        ("long header name", format!("GET {MOUNT} HTTP/1.1\r\nHost: a\r\n{long}: x\r\n\r\n")),
        ("many headers", format!("GET {MOUNT} HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        ("long path", format!("GET {MOUNT}/{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("long query", format!("GET {MOUNT}?message={long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("long method", format!("{long} {MOUNT} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("long head without end", format!("GET {MOUNT} HTTP/1.1\r\nX: {long}")),
    ] {
        let response = exchange(report.addr, head.as_bytes()).await;
        let closed = response.as_ref().err() == Some(&Unanswered::Closed);
        let outcome = if closed { Ok(()) } else { has_status(&response, &[400, 414, 431]) };
        report.row(&format!("limit: {name}"), outcome).await;
    }
}

/// Peers that stop in the middle. The node is impatient in this test.
async fn slow_peers(report: &mut Report) {
    let post = format!("POST {MOUNT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    for (name, begun) in [
        ("nothing after the request line", format!("POST {MOUNT} HTTP/1.1\r\n")),
        ("headers without end", post.clone()),
        ("half a request line", "PO".to_owned()),
        ("body stops", format!("{post}Content-Length: 100\r\n\r\n[")),
        ("body never begins", format!("{post}Content-Length: 100\r\n\r\n")),
        ("chunk stops", format!("{post}Transfer-Encoding: chunked\r\n\r\na\r\n[")),
        ("chunks stop", format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n")),
    ] {
        let mut connection = Connection::open(report.addr).await;
        connection.send(begun.as_bytes()).await;
        let outcome = ended(&mut connection).await;
        report.row(&format!("limit: {name}"), outcome).await;
    }

    let outcome = headers_drip(report, &post).await;
    report.row("limit: headers drip", outcome).await;
}

/// A header line now and then, so that the connection is never idle: the time for the whole head is what counts.
async fn headers_drip(report: &Report, begun: &str) -> Result<(), String> {
    let mut connection = Connection::open(report.addr).await;
    connection.send(begun.as_bytes()).await;
    let mut pace = interval(Duration::from_millis(50));
    for _ in 0..60 {
        pace.tick().await;
        connection.send(b"X: y\r\n").await;
    }
    // The node has ended the connection long ago.
    timeout(Duration::from_millis(50), connection.answer()).await.map(drop).map_err(|_| "it may take for ever".into())
}

/// Whether the node ends the connection, or says that it has waited long enough.
async fn ended(connection: &mut Connection) -> Result<(), String> {
    match answer(connection).await {
        Ok(response) if [400, 408].contains(&response.status.as_u16()) => Ok(()),
        Err(Unanswered::Closed) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn has_status(response: &Result<Response, Unanswered>, expected: &[u16]) -> Result<(), String> {
    match response {
        Ok(response) if expected.contains(&response.status.as_u16()) => Ok(()),
        Ok(response) => Err(format!("expected {expected:?}, got {} {:.100}", response.status, response.text())),
        Err(unanswered) => Err(format!("expected {expected:?}, got {unanswered:?}")),
    }
}
