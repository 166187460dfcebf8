//! Every field of every kind of message with values of every wrong type: the error is the one that the wire contract
//! has, and never anything else than an error.

use serde_json::{Value, json};

use super::{Report, exchange};
use crate::support::bayeux::{Client, MOUNT};
use crate::support::http::{Response, json_request};

/// The right answer to a message.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// `successful: true`.
    Accepted,
    /// Exactly this error.
    Error(String),
    /// An error with this code. How JavaScript writes the bad value is not part of the contract.
    Code(u16),
}

use Answer::{Accepted, Code, Error};

/// Values of every type, with how the wire contract writes them into an error; `None` where it leaves that open.
fn values() -> Vec<(Value, Option<&'static str>)> {
    vec![
        (json!(null), None),
        (json!(false), None),
        (json!(0), None),
        (json!(""), None),
        (json!(true), Some("true")),
        (json!(5), Some("5")),
        (json!(-1.5), Some("-1.5")),
        (json!(1e300), None),
        (json!("x"), Some("x")),
        (json!("__proto__"), Some("__proto__")),
        (json!("constructor"), Some("constructor")),
        (json!({}), None),
        (json!({"toString": 1}), None),
        (json!([["/a"]]), None),
        (json!([null]), None),
    ]
}

/// Whether JavaScript takes the value for false: the contract then calls the field missing.
fn is_falsy(value: &Value) -> bool {
    [json!(null), json!(false), json!(0), json!("")].contains(value)
}

fn missing(field: &str) -> Answer {
    Error(format!("402:{field}:Missing required parameter"))
}

/// `<code>:<value>:<text>`, or the code alone where the form of the value is open.
fn about(code: u16, written: Option<&str>, text: &str) -> Answer {
    written.map_or(Code(code), |value| Error(format!("{code}:{value}:{text}")))
}

/// The message with one field replaced, and the right answer to it.
fn rows(session: &str) -> Vec<(String, Value, Answer)> {
    let mut rows = Vec::new();
    for (value, written) in values() {
        let falsy = is_falsy(&value);
        let mut row = |kind: &str, field: &str, answer: Answer| {
            let mut message = message(kind, session);
            message[field] = value.clone();
            rows.push((format!("{kind} {field}={value}"), message, answer));
        };
        let client = if falsy { missing("clientId") } else { about(401, written, "Unknown client") };
        let types = |field| if falsy { missing(field) } else { about(301, written, "Connection types not supported") };
        let subscription = if falsy { missing("subscription") } else { about(405, written, "Invalid channel") };

        row("/meta/handshake", "version", if falsy { missing("version") } else { Accepted });
        row("/meta/handshake", "supportedConnectionTypes", types("supportedConnectionTypes"));
        row("/meta/handshake", "clientId", Accepted);
        row("/meta/handshake", "ext", Accepted);
        row("/meta/handshake", "advice", Accepted);
        row("/meta/connect", "clientId", client.clone());
        row("/meta/connect", "connectionType", types("connectionType"));
        row("/meta/connect", "advice", Accepted);
        row("/meta/connect", "ext", Accepted);
        row("/meta/subscribe", "clientId", client.clone());
        row("/meta/subscribe", "subscription", subscription.clone());
        row("/meta/unsubscribe", "clientId", client.clone());
        row("/meta/unsubscribe", "subscription", subscription);
        row("/meta/disconnect", "clientId", client);
        row("publish", "channel", if falsy { Code(405) } else { about(405, written, "Invalid channel") });
        row("publish", "clientId", Accepted);
        row("publish", "id", Accepted);
        row("publish", "data", Accepted);
        row("publish", "ext", Accepted);
        row("publish", "advice", Accepted);
        row("publish", "successful", Accepted);
        row("publish", "error", if falsy { Accepted } else { written.map_or(Code(0), |text| Error(text.into())) });
        row("publish", "subscription", Accepted);
        row("publish", "version", Accepted);
    }
    rows.extend(listed_rows(session));
    rows
}

/// Names that are special somewhere else, and channels at the edge of the grammar.
fn listed_rows(session: &str) -> Vec<(String, Value, Answer)> {
    let publish = |channel: &str| json!({"channel": channel, "data": 1});
    let mut rows: Vec<(String, Value, Answer)> = Vec::new();
    for name in ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__"] {
        let bad = Error(format!("405:{name}:Invalid channel"));
        rows.push((format!("publish {name}"), publish(name), bad));
        rows.push((format!("publish /{name}"), publish(&format!("/{name}")), Accepted));
        let forbidden = format!("/meta/{name}");
        rows.push((forbidden.clone(), publish(&forbidden), Error(format!("403:{forbidden}:Forbidden channel"))));
    }
    for channel in ["/meta", "/meta/subscribe/x", "/meta/*", "/meta/Handshake"] {
        rows.push((channel.into(), publish(channel), Error(format!("403:{channel}:Forbidden channel"))));
    }
    for channel in [
        "/",
        "//",
        "/a/",
        "/a b",
        "/a.b",
        "/a*",
        "/*",
        "/**",
        "/a/*/b",
        "/a/***",
        "/a\n",
        "a",
        "/ä",
        "/a%20b",
        "/meta/handshake/",
        "/meta//handshake",
    ] {
        rows.push((format!("publish {channel}"), publish(channel), Error(format!("405:{channel}:Invalid channel"))));
    }
    for subscription in [json!(["/ok", 5]), json!(["/ok", ["/b"]]), json!(["/ok", {"a": 1}]), json!(["/ok", "bad"])] {
        let mut message = message("/meta/subscribe", session);
        message["subscription"] = subscription;
        rows.push((format!("subscribe {}", message["subscription"]), message, Code(405)));
    }
    rows
}

/// A good message of each kind.
fn message(kind: &str, session: &str) -> Value {
    match kind {
        "/meta/handshake" => json!({"channel": kind, "version": "1.0", "supportedConnectionTypes": ["long-polling"]}),
        "/meta/connect" => json!({"channel": kind, "clientId": session, "connectionType": "long-polling"}),
        "/meta/subscribe" | "/meta/unsubscribe" => json!({"channel": kind, "clientId": session, "subscription": "/a"}),
        "/meta/disconnect" => json!({"channel": kind, "clientId": session}),
        _ => json!({"channel": "/a/b", "data": 1}),
    }
}

/// Sends every row, in a batch with a second message so that no connect is held.
pub async fn run(report: &mut Report) {
    let client = Client::connected(report.addr).await;
    for (name, message, answer) in rows(&client.id) {
        let marker = json!({"channel": "/marker", "data": 1, "id": "marker"});
        let batch = json!([message, marker]).to_string();
        let response = exchange(report.addr, &json_request(MOUNT, batch.as_bytes())).await;
        let reply = response.map_err(|unanswered| format!("{unanswered:?}")).and_then(reply_beside_marker);
        let outcome = reply.and_then(|reply| check(&answer, &reply));
        report.row(&format!("field: {name}"), outcome).await;
    }
}

/// The one reply that is not the second message's.
fn reply_beside_marker(response: Response) -> Result<Value, String> {
    let Ok(Value::Array(mut replies)) = serde_json::from_slice(&response.body) else {
        return Err(format!("{} {}", response.status, response.text()));
    };
    let at = replies.iter().position(|reply| reply["id"] == "marker" && reply["channel"] == "/marker");
    at.map(|at| replies.remove(at)).ok_or_else(|| format!("the second message has no reply: {replies:?}"))?;
    match replies.as_slice() {
        [reply] => Ok(reply.clone()),
        _ => Err(format!("expected one reply: {replies:?}")),
    }
}

fn check(answer: &Answer, reply: &Value) -> Result<(), String> {
    let error = reply["error"].as_str();
    let right = match answer {
        Accepted => reply["successful"] == true && error.is_none(),
        Error(expected) => reply["successful"] == false && error == Some(expected),
        // 0: any error at all.
        Code(0) => reply["successful"] == false && error.is_some(),
        Code(code) => reply["successful"] == false && error.is_some_and(|error| error.starts_with(&format!("{code}:"))),
    };
    if right { Ok(()) } else { Err(format!("expected {answer:?}, got {reply}")) }
}
