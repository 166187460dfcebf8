//! The two extensions that server C of the records ran, told from their effects. Both see every message, the first
//! before the second, in both directions.
//!
//! * incoming, first: `ext.deny` is a text: refuse with it; `ext.drop` is `"in"`: drop the message, no reply.
//! * incoming, both: `data.tagIn` is true: append the own name, `a` or `b`, to the array `data.taggedBy`.
//! * incoming, second: `data.wantUa` is true: put the request's `User-Agent` into `data.ua`.
//! * outgoing, first: set `ext.hello` of a handshake reply, failed or not; second: set `ext.authenticated` of it.
//! * outgoing, both: drop whatever carries `data.dropOut`.

use futures_util::future::BoxFuture;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use weft::{Extension, Message, RequestInfo, Verdict};

/// The extension that was added first.
pub struct First;

/// The extension that was added second.
pub struct Second;

impl Extension for First {
    fn incoming<'a>(&'a self, message: &'a mut Message, _: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let ext = parsed(message.ext.as_deref());
            if let Some(error) = ext["deny"].as_str() {
                message.refuse(error);
            }
            if ext["drop"] == "in" {
                return Verdict::Drop;
            }
            tag(message, "a");
            Verdict::Pass
        })
    }

    fn outgoing<'a>(&'a self, message: &'a mut Message, _: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        Box::pin(async move { outgoing(message, "hello", json!("world")) })
    }

    fn wants_outgoing(&self) -> bool {
        true
    }
}

impl Extension for Second {
    fn incoming<'a>(&'a self, message: &'a mut Message, request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            tag(message, "b");
            let mut data = parsed(message.data.as_deref());
            if data["wantUa"] == true {
                let agent = request.headers.get("user-agent").and_then(|value| value.to_str().ok());
                data["ua"] = json!(agent);
                message.data = Some(raw(&data));
            }
            Verdict::Pass
        })
    }

    fn outgoing<'a>(&'a self, message: &'a mut Message, _: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        Box::pin(async move { outgoing(message, "authenticated", json!(true)) })
    }

    fn wants_outgoing(&self) -> bool {
        true
    }
}

fn tag(message: &mut Message, name: &str) {
    let mut data = parsed(message.data.as_deref());
    if data["tagIn"] == true {
        let mut names = data["taggedBy"].as_array().cloned().unwrap_or_default();
        names.push(json!(name));
        data["taggedBy"] = Value::Array(names);
        message.data = Some(raw(&data));
    }
}

fn outgoing(message: &mut Message, key: &str, value: Value) -> Verdict {
    if message.channel == "/meta/handshake" {
        let mut ext = parsed(message.ext.as_deref());
        ext[key] = value;
        message.ext = Some(raw(&ext));
    }
    if parsed(message.data.as_deref())["dropOut"] == true { Verdict::Drop } else { Verdict::Pass }
}

/// The value, or `null` where there is none, which can be indexed and filled like an object.
fn parsed(raw: Option<&RawValue>) -> Value {
    raw.map_or(Value::Null, |raw| serde_json::from_str(raw.get()).expect("raw JSON is JSON"))
}

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("a value is JSON")
}
