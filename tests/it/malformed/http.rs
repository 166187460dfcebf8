//! Bad HTTP below and around Bayeux: request lines, headers, framing, methods, paths.

use super::{Report, Unanswered, answer, exchange};
use crate::support::bayeux::MOUNT;
use crate::support::http::{Connection, Response, request};
use crate::support::soon;

/// Headers of a JSON post.
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// Names and values.
type Headers = Vec<(&'static str, &'static str)>;

/// What may come back.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// This status.
    Status(u16),
    /// One of these.
    OneOf(&'static [u16]),
    /// A refusal: any 4xx or 5xx, or the connection closed without an answer.
    RefusedOrClosed,
}

use Answer::{OneOf, RefusedOrClosed, Status};

/// Name, bytes, answer to the first request in them.
fn rows() -> Vec<(String, Vec<u8>, Answer)> {
    let mut rows: Vec<(String, Vec<u8>, Answer)> = raw_rows()
        .into_iter()
        .map(|(name, bytes, answer)| (name.to_owned(), bytes.as_bytes().to_vec(), answer))
        .collect();
    for method in ["PUT", "DELETE", "PATCH", "BREW", "get", "PROPFIND"] {
        rows.push((format!("method {method}"), request(method, MOUNT, &JSON, Some(b"")), OneOf(&[400, 405])));
    }
    for (name, headers, body) in form_rows() {
        rows.push((name.to_owned(), request("POST", MOUNT, &headers, Some(body.as_bytes())), Status(400)));
    }
    for query in [
        "",
        "?message=",
        "?message=1",
        "?message=%7B",
        "?message=%FF",
        "?message=%",
        "?message=%5B%5D&jsonp=1a",
        "?message=%5B%5D&jsonp=a.b.",
        "?message=%5B%5D&jsonp=alert(1)",
        "?message=%5B%5D&jsonp=a%0Ab",
        "?message=%5B%5D&jsonp=%3Cscript%3E",
        "?jsonp=cb",
        "?&&=&",
    ] {
        rows.push((format!("GET {query}"), request("GET", &format!("{MOUNT}{query}"), &[], None), Status(400)));
    }
    for path in ["/bayeuxfoo", "/BAYEUX", "/b%61yeux", "/../bayeux", "/%00", "/bayeux%2F", "/%"] {
        rows.push((format!("GET {path}"), request("GET", path, &[], None), OneOf(&[400, 404])));
    }
    for name in ["x.js", "x.map", "__proto__.js", "..%2f..%2fCargo.toml.js"] {
        let path = format!("{MOUNT}/{name}");
        rows.push((format!("GET {path}"), request("GET", &path, &[], None), OneOf(&[400, 404])));
    }
    rows
}

fn raw_rows() -> Vec<(&'static str, &'static str, Answer)> {
    vec![
        ("GET //", "GET // HTTP/1.1\r\nHost: a\r\n\r\n", OneOf(&[400, 404])),
        ("many slashes", "GET ///////bayeux HTTP/1.1\r\nHost: a\r\n\r\n", OneOf(&[400, 404])),
        ("absolute form", "GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", RefusedOrClosed),
        (
            "absolute form, POST",
            "POST http://[/bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            RefusedOrClosed,
        ),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OneOf(&[200, 204, 400, 404])),
        ("CONNECT", "CONNECT example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n", RefusedOrClosed),
        ("no Host", "GET /bayeux HTTP/1.1\r\n\r\n", Status(400)),
        ("HTTP/1.0", "GET /bayeux HTTP/1.0\r\n\r\n", Status(400)),
        ("HTTP/0.9", "GET /bayeux\r\n\r\n", RefusedOrClosed),
        ("HTTP/2.0 in text", "GET /bayeux HTTP/2.0\r\nHost: a\r\n\r\n", RefusedOrClosed),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RefusedOrClosed),
        ("no version", "GET /bayeux \r\nHost: a\r\n\r\n", RefusedOrClosed),
        ("no path", "GET HTTP/1.1\r\nHost: a\r\n\r\n", RefusedOrClosed),
        ("garbage", "\u{1}\u{2}\u{3}\r\n\r\n", RefusedOrClosed),
        ("TLS hello", "\u{16}\u{3}\u{1}\u{0}\u{5}hello\r\n\r\n", RefusedOrClosed),
        ("space before colon", "GET /bayeux HTTP/1.1\r\nHost : a\r\n\r\n", RefusedOrClosed),
        ("no colon", "GET /bayeux HTTP/1.1\r\nHost a\r\n\r\n", RefusedOrClosed),
        ("NUL in header", "GET /bayeux HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", RefusedOrClosed),
        (
            "two lengths",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
            RefusedOrClosed,
        ),
        ("negative length", "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", RefusedOrClosed),
        ("length is no number", "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", RefusedOrClosed),
        (
            "length too big for 64 bits",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            RefusedOrClosed,
        ),
        ("unknown coding", "POST /bayeux HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", RefusedOrClosed),
        (
            "chunk size is no number",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n",
            RefusedOrClosed,
        ),
        (
            "negative chunk size",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n[]\r\n0\r\n\r\n",
            RefusedOrClosed,
        ),
        (
            "huge chunk size",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            RefusedOrClosed,
        ),
        (
            "no line end after chunk",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]0\r\n\r\n",
            RefusedOrClosed,
        ),
        (
            "length and chunked, cut short",
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            RefusedOrClosed,
        ),
    ]
}

/// Bodies that are no form with a message.
fn form_rows() -> Vec<(&'static str, Headers, &'static str)> {
    const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
    const TEXT: (&str, &str) = ("Content-Type", "text/plain");
    const ORIGIN: (&str, &str) = ("Origin", "http://app.example");
    vec![
        ("form without message", vec![FORM], "x=1"),
        ("form with empty message", vec![FORM], "message="),
        ("form with bad escape", vec![FORM], "message=%zz"),
        ("form with a number", vec![FORM], "message=1"),
        ("form with bad JSON", vec![FORM], "message=%7B"),
        ("JSON as text", vec![TEXT], "[]"),
        ("JSON without type, with Origin", vec![ORIGIN], "[]"),
        ("nothing without type", vec![], ""),
        ("multipart", vec![("Content-Type", "multipart/form-data; boundary=x")], "--x--\r\n"),
        ("bad JSON with Origin", vec![JSON[0], ORIGIN], "{"),
        ("type is not ASCII", vec![("Content-Type", "\u{fc}")], "[]"),
        ("type is a slash", vec![("Content-Type", "/")], "[]"),
    ]
}

/// Sends every row, and the few that look at more than a status.
pub async fn run(report: &mut Report) {
    for (name, bytes, expected) in rows() {
        let outcome = check(expected, exchange(report.addr, &bytes).await);
        report.row(&format!("http: {name}"), outcome).await;
    }
    head(report).await;
    refusals_can_be_read_across_origins(report).await;
    garbage_after_a_request(report).await;
    streams_of_nobody(report).await;
}

fn check(expected: Answer, response: Result<Response, Unanswered>) -> Result<(), String> {
    let status = response.as_ref().map(|response| response.status.as_u16());
    let right = match (expected, status) {
        (Status(expected), Ok(status)) => status == expected,
        (OneOf(expected), Ok(status)) => expected.contains(&status),
        (RefusedOrClosed, Ok(status)) => status >= 400,
        (RefusedOrClosed, Err(unanswered)) => *unanswered == Unanswered::Closed,
        (_, Err(_)) => false,
    };
    if right { Ok(()) } else { Err(format!("expected {expected:?}, got {response:?}")) }
}

/// The answer to HEAD announces a body that does not come.
async fn head(report: &mut Report) {
    let mut connection = Connection::open(report.addr).await;
    connection.send(&request("HEAD", MOUNT, &[], None)).await;
    let head = soon("a head", connection.head()).await;
    let refused = matches!(&head, Ok(Some((status, _))) if [400, 405].contains(&status.as_u16()));
    report.row("http: HEAD", if refused { Ok(()) } else { Err(format!("{head:?}")) }).await;
}

/// A page of another origin can see why it was refused.
async fn refusals_can_be_read_across_origins(report: &mut Report) {
    let mut connection = Connection::open(report.addr).await;
    let headers = [JSON[0], ("Origin", "http://app.example")];
    connection.send(&request("POST", MOUNT, &headers, Some(b"{"))).await;
    let response = connection.response().await;
    let allowed =
        response.headers.get("access-control-allow-origin").is_some_and(|value| value == "http://app.example");
    let outcome = if response.status == 400 && allowed { Ok(()) } else { Err(format!("{response:?}")) };
    report.row("http: CORS headers on 400", outcome).await;
}

/// The good request is answered, the garbage behind it is not taken for another.
async fn garbage_after_a_request(report: &mut Report) {
    for garbage in ["\u{0}\u{1}garbage\r\n\r\n", "[]", "POST\r\n\r\n"] {
        let mut connection = Connection::open(report.addr).await;
        let good = request("POST", MOUNT, &JSON, Some(b"[]"));
        connection.send(&[&good, garbage.as_bytes()].concat()).await;
        let first = check(Status(200), answer(&mut connection).await);
        connection.send(b"\r\n\r\n").await;
        let second = check(RefusedOrClosed, answer(&mut connection).await);
        report.row(&format!("http: {garbage:?} after a request"), first.and(second)).await;
    }
}

/// EventSource streams of sessions that do not exist: refused, or ended at once.
async fn streams_of_nobody(report: &mut Report) {
    for path in ["__proto__", "constructor", "toString", "", "nobody", "%00", "a/b/c", "%5B%5D", "x?y"] {
        let mut connection = Connection::open(report.addr).await;
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", "1-2-__proto__")];
        connection.send(&request("GET", &format!("{MOUNT}/{path}"), &headers, None)).await;
        let outcome = match answer(&mut connection).await {
            Err(Unanswered::Silent) => Err("the stream stays open".to_owned()),
            Ok(response) if response.text().contains("data:") => Err(format!("{response:?}")),
            _ => Ok(()),
        };
        report.row(&format!("http: event stream of {path:?}"), outcome).await;
    }
}
