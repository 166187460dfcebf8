//! A node inside another program: in-process clients, events, and extensions.

mod clients;
mod deliveries;
mod events;
mod extensions;
mod guest;
mod requests;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use weft::{Extension, LocalSubscription, Message, RequestInfo, Verdict};

use crate::support::soon;

type Hook = Box<dyn Fn(&mut Message, &RequestInfo) -> Verdict + Send + Sync>;

/// An extension made of closures.
#[derive(Default)]
struct Hooks {
    incoming: Option<Hook>,
    outgoing: Option<Hook>,
}

impl Hooks {
    fn incoming(hook: impl Fn(&mut Message, &RequestInfo) -> Verdict + Send + Sync + 'static) -> Self {
        Self { incoming: Some(Box::new(hook)), outgoing: None }
    }

    fn outgoing(hook: impl Fn(&mut Message, &RequestInfo) -> Verdict + Send + Sync + 'static) -> Self {
        Self { incoming: None, outgoing: Some(Box::new(hook)) }
    }
}

impl Extension for Hooks {
    fn incoming<'a>(&'a self, message: &'a mut Message, request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        let verdict = self.incoming.as_ref().map_or(Verdict::Pass, |hook| hook(message, request));
        ready(verdict).boxed()
    }

    fn outgoing<'a>(&'a self, message: &'a mut Message, request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        let verdict = self.outgoing.as_ref().map_or(Verdict::Pass, |hook| hook(message, request));
        ready(verdict).boxed()
    }

    fn wants_outgoing(&self) -> bool {
        self.outgoing.is_some()
    }
}

/// A field's value.
fn parsed(raw: Option<&RawValue>) -> Value {
    raw.map_or(Value::Null, |raw| serde_json::from_str(raw.get()).expect("raw JSON is JSON"))
}

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("a value is JSON")
}

/// The next message of a subscription: channel and data.
async fn next(subscription: &mut LocalSubscription) -> (String, Value) {
    let (channel, message) = soon("a message", subscription.next()).await.expect("the client lives");
    (channel.as_str().to_owned(), parsed(message.data.as_deref()))
}
