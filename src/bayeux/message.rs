//! The Bayeux envelope: parsed field by field, while `data`, `ext` and all that we do not know stay raw JSON.
//!
//! One type serves requests, replies and delivered messages, because extensions may see and change all three.

mod parse;

use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::error::BayeuxError;
use super::fingerprint::Fingerprint;
use super::json::{self, Raw};

pub use parse::{Limits, ParseError, parse};

/// One Bayeux message. Absent fields are `None` (an absent channel is empty).
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Channel name as sent; not yet checked. Empty when absent. A value of another type is kept as its JSON text,
    /// which no channel grammar accepts.
    pub channel: String,
    /// Session id. `None` when absent or falsy.
    pub client_id: Option<String>,
    /// Message id: echoed as it came, string or not.
    pub id: Option<Raw>,
    /// Only in replies.
    pub successful: Option<bool>,
    /// Why a message is refused. An extension sets it (see [`Message::refuse`]); a request that already has one is
    /// refused with it.
    pub error: Option<String>,
    /// The payload, byte for byte.
    pub data: Option<Raw>,
    /// Extension data, byte for byte.
    pub ext: Option<Raw>,
    /// Advice of a request, or of a reply.
    pub advice: Option<Raw>,
    /// Protocol version of a handshake.
    pub version: Option<Raw>,
    /// Connection types of a handshake.
    pub supported_connection_types: Option<Raw>,
    /// Connection type of a connect.
    pub connection_type: Option<Raw>,
    /// Channel or array of channels of a subscribe or unsubscribe.
    pub subscription: Option<Raw>,
    /// Advice that an extension wants in the reply to this request. Never on the wire by itself.
    pub reply_advice: Option<Raw>,
    /// By which a repetition of this publish is known, as it was received. Never on the wire.
    pub fingerprint: Option<Fingerprint>,
    /// Everything else, in the order sent.
    pub rest: Vec<(String, Raw)>,
}

impl Message {
    /// Marks the message as refused; the server answers `successful: false` with this text. Use the Bayeux form
    /// `403::Forbidden` where a client shall parse it.
    pub fn refuse(&mut self, error: impl Into<String>) {
        self.error = Some(error.into());
    }

    /// As [`Message::refuse`], with advice (a JSON object) for the reply.
    pub fn refuse_with_advice(&mut self, error: impl Into<String>, advice: Raw) {
        self.error = Some(error.into());
        self.reply_advice = Some(advice);
    }

    /// The reply to this message, as yet without outcome: `id` if truthy, `clientId` and `channel` are echoed; `ext`,
    /// `advice` and `data` never are (wire contract, envelope rules).
    pub fn reply(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            client_id: self.client_id.clone(),
            id: self.id.clone().filter(|id| json::truthy(id)),
            ..Self::default()
        }
    }

    /// The reply that says yes.
    pub fn accept(&self) -> Self {
        Self { successful: Some(true), ..self.reply() }
    }

    /// The reply that says no.
    pub fn reject(&self, error: &BayeuxError) -> Self {
        Self { successful: Some(false), error: Some(error.to_string()), ..self.reply() }
    }

    /// The message as subscribers get it: without `clientId`, `id`, `advice`, `successful` and `error`, so that a
    /// publisher can neither leak its session nor steer other clients. All else that it sent is kept.
    pub fn into_delivery(self) -> Self {
        Self { client_id: None, id: None, advice: None, successful: None, error: None, ..self }
    }

    /// Stands for this publish: channel and `ext.idempotencyKey` if there is one, else session, id, channel and content,
    /// where the dialect's clients repeat those. `None` when the message has neither, and can never be known again.
    pub fn to_fingerprint(&self, dialect: Dialect) -> Option<Fingerprint> {
        let channel = self.channel.as_bytes();
        let key = json::member(self.ext.as_deref(), "idempotencyKey").filter(|key| json::truthy(key));
        if let Some(key) = key {
            return Some(Fingerprint::of([b"key", channel, key.get().as_bytes()]));
        }
        if !dialect.repeats_publishes() {
            return None;
        }
        let (session, id) = (self.client_id.as_deref()?, self.id.as_deref().filter(|id| json::truthy(id))?);
        let [data, ext] = [&self.data, &self.ext].map(|part| part.as_deref().map_or("", RawValue::get).as_bytes());
        let known = [b"message", session.as_bytes(), id.get().as_bytes(), channel, data, ext];
        let rest = self.rest.iter().flat_map(|(name, value)| [name.as_bytes(), value.get().as_bytes()]);
        Some(Fingerprint::of(known.into_iter().chain(rest)))
    }

    /// Reads a message that this server has encoded; `None` for anything else.
    pub fn from_delivery(json: &[u8]) -> Option<Self> {
        parse::parse_object(str::from_utf8(json).ok()?).ok()?
    }

    /// The message as compact JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.data.as_ref().map_or(0, |data| data.get().len()));
        self.encode_into(&mut out);
        out
    }

    /// Appends the message as compact JSON, in Faye's field order.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let mut object = Object { out, first: true };
        object.raw("id", self.id.as_deref());
        object.text("clientId", self.client_id.as_deref());
        object.text("channel", Some(self.channel.as_str()).filter(|channel| !channel.is_empty()));
        if let Some(successful) = self.successful {
            object.key("successful");
            object.out.extend_from_slice(if successful { b"true" } else { b"false" });
        }
        object.raw("version", self.version.as_deref());
        object.raw("supportedConnectionTypes", self.supported_connection_types.as_deref());
        object.raw("connectionType", self.connection_type.as_deref());
        object.raw("subscription", self.subscription.as_deref());
        object.text("error", self.error.as_deref());
        object.raw("advice", self.advice.as_deref());
        object.raw("data", self.data.as_deref());
        object.raw("ext", self.ext.as_deref());
        for (name, value) in &self.rest {
            object.member();
            object.string(name);
            object.out.push(b':');
            object.out.extend_from_slice(value.get().as_bytes());
        }
        object.end();
    }
}

/// Writes the members of one JSON object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn member(&mut self) {
        self.out.push(if self.first { b'{' } else { b',' });
        self.first = false;
    }

    /// One of our own names: nothing in it needs an escape.
    fn key(&mut self, name: &'static str) {
        self.member();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        // Writing a string into a vector cannot fail.
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    fn text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(name);
            self.string(value);
        }
    }

    fn raw(&mut self, name: &'static str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.key(name);
            self.out.extend_from_slice(value.get().as_bytes());
        }
    }

    fn end(self) {
        self.out.extend_from_slice(if self.first { b"{}" } else { b"}" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse::tests::one;
    use super::*;

    fn encoded(message: &Message) -> String {
        String::from_utf8(message.encode()).expect("JSON is UTF-8")
    }

    #[test]
    fn payload_passes_byte_for_byte() {
        let message = one(r#"{"channel":"/a","data":{"n": 1.00, "big":12345678901234567890,"s":"\ud800\/"}}"#);
        assert_eq!(message.data.expect("data").get(), r#"{"n": 1.00, "big":12345678901234567890,"s":"\ud800\/"}"#);
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let message = one(r#"{"channel":"/a","channel":"/b","x":1,"x":2}"#);
        assert_eq!(encoded(&message), r#"{"channel":"/b","x":2}"#);
    }

    #[test]
    fn deliveries_cannot_steer_or_leak() {
        let sent = r#"{"channel":"/a","clientId":"s","id":"1","data":1,"advice":{"reconnect":"none"},"successful":true,
            "error":"x","ext":{"k":1},"custom":true}"#;
        assert_eq!(encoded(&one(sent).into_delivery()), r#"{"channel":"/a","data":1,"ext":{"k":1},"custom":true}"#);
    }

    #[test]
    fn ids_are_echoed_only_when_truthy() {
        for (id, echoed) in
            [("\"1\"", true), ("7", true), ("{\"a\":1}", true), ("0", false), ("\"\"", false), ("null", false)]
        {
            let message = one(&format!(r#"{{"channel":"/a","id":{id}}}"#));
            assert_eq!(message.reply().id.is_some(), echoed, "{id}");
        }
    }

    #[test]
    fn what_is_a_repetition() {
        let of = |text: &str| one(text).to_fingerprint(Dialect::Faye);
        let first = of(r#"{"channel":"/a","clientId":"s","id":"1","data":1}"#);
        assert!(first.is_some());
        assert_eq!(first, of(r#"{"data":1,"id":"1","clientId":"s","channel":"/a"}"#));
        for other in [
            r#"{"channel":"/a","clientId":"s","id":"1","data":2}"#,
            r#"{"channel":"/a","clientId":"s","id":"2","data":1}"#,
            r#"{"channel":"/a","clientId":"t","id":"1","data":1}"#,
            r#"{"channel":"/b","clientId":"s","id":"1","data":1}"#,
            r#"{"channel":"/a","clientId":"s","id":"1","data":1,"ext":{"x":1}}"#,
            r#"{"channel":"/a","clientId":"s","id":"1","data":1,"x":1}"#,
        ] {
            assert_ne!(first, of(other), "{other}");
        }
        for unknowable in [r#"{"channel":"/a","clientId":"s","data":1}"#, r#"{"channel":"/a","id":"1","data":1}"#] {
            assert_eq!(of(unknowable), None, "{unknowable}");
        }
        let first = of(r#"{"channel":"/a","data":1,"ext":{"idempotencyKey":"k"}}"#);
        assert!(first.is_some());
        let again = r#"{"channel":"/a","clientId":"s","id":"9","data":2,"ext":{"x":1,"idempotencyKey":"k"}}"#;
        assert_eq!(first, of(again), "a key stands for itself");
        assert_eq!(first, one(again).to_fingerprint(Dialect::CometD));
        assert_ne!(first, of(r#"{"channel":"/b","data":1,"ext":{"idempotencyKey":"k"}}"#));
        let by_id = r#"{"channel":"/a","clientId":"s","id":"1","data":1}"#;
        assert_eq!(one(by_id).to_fingerprint(Dialect::CometD), None, "its clients use their ids again");
    }

    proptest! {
        #[test]
        fn encoding_parses_back(channel in "\\PC{0,20}", data in "[0-9]{1,6}", key in "[a-z]{1,8}", text in "\\PC{0,20}") {
            let message = Message {
                channel,
                client_id: Some(text).filter(|text| !text.is_empty()),
                data: RawValue::from_string(data.trim_start_matches('0').to_owned()).ok(),
                rest: vec![(format!("x{key}"), RawValue::NULL.to_owned())],
                ..Message::default()
            };
            let again = one(&encoded(&message));
            prop_assert_eq!(encoded(&again), encoded(&message));
        }
    }
}
