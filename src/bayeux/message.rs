//! The Bayeux envelope: parsed field by field, while `data`, `ext` and all that we do not know stay raw JSON.
//!
//! One type serves requests, replies and delivered messages, because extensions may see and change all three.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::error::BayeuxError;
use super::fingerprint::Fingerprint;
use super::json::{self, Raw};

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

/// Fields of one message that Bayeux does not know. Looking for an earlier one of the same name must stay cheap.
const MAX_UNKNOWN_FIELDS: usize = 100;

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many messages one request or frame may carry.
    pub max_messages: usize,
    /// How deeply arrays and objects may be nested: what we pass on, every subscriber has to parse.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_messages: 1000, max_depth: 100 }
    }
}

/// Why a body or frame holds no Bayeux messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not JSON.
    #[error("malformed JSON: {0}")]
    Json(String),
    /// JSON, but neither an object nor an array.
    #[error("expected a message or an array of messages")]
    NotMessages,
    /// More messages than [`Limits::max_messages`].
    #[error("too many messages in one batch: the limit is {0}")]
    TooMany(usize),
    /// Deeper than [`Limits::max_depth`].
    #[error("nested too deeply: the limit is {0}")]
    TooDeep(usize),
}

/// Parses a body or frame: one message, or an array of them. `null` elements vanish and other elements become messages
/// without fields (which are then refused), as in Faye. Bytes that are not UTF-8 are replaced, as in Faye.
///
/// # Errors
/// [`ParseError`] when the text is not JSON, holds no messages or exceeds `limits`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Vec<Message>, ParseError> {
    // Where nothing has to be replaced, to find that out is several times faster.
    let text = str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
    if json::exceeds_depth(text.as_bytes(), limits.max_depth) {
        return Err(ParseError::TooDeep(limits.max_depth));
    }
    match parse_plain(&text, limits) {
        Ok(messages) => messages.ok_or(ParseError::TooMany(limits.max_messages)),
        // Something else than objects and nulls: whether it is JSON all the same.
        Err(_) => parse_odd(&text, limits),
    }
}

/// Reads objects and nulls in one pass; `None` when there are too many.
fn parse_plain(text: &str, limits: &Limits) -> serde_json::Result<Option<Vec<Message>>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let messages = match text.trim_ascii_start().as_bytes().first() {
        Some(b'[') => Batch { limit: limits.max_messages, element: Plain }.deserialize(&mut deserializer)?,
        Some(b'{') => Plain.deserialize(&mut deserializer)?.map(|message| vec![message]),
        _ => return Err(serde::de::Error::custom("no messages")),
    };
    deserializer.end()?;
    Ok(messages)
}

/// Reads whatever is JSON: each value is read again when its end is known.
fn parse_odd(text: &str, limits: &Limits) -> Result<Vec<Message>, ParseError> {
    let top: &RawValue = serde_json::from_str(text).map_err(|error| ParseError::Json(error.to_string()))?;
    match top.get().as_bytes().first() {
        Some(b'{') => Ok(vec![parse_one(top)?]),
        Some(b'[') => {
            let mut deserializer = serde_json::Deserializer::from_str(top.get());
            let batch = Batch { limit: limits.max_messages, element: Odd };
            let parsed = batch.deserialize(&mut deserializer).map_err(|error| ParseError::Json(error.to_string()))?;
            parsed.ok_or(ParseError::TooMany(limits.max_messages))
        }
        Some(b'n') => Ok(Vec::new()),
        _ => Err(ParseError::NotMessages),
    }
}

fn parse_one(raw: &RawValue) -> Result<Message, ParseError> {
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            deserializer.deserialize_map(MessageVisitor).map_err(|error| ParseError::Json(error.to_string()))
        }
        _ => Ok(Message::default()),
    }
}

/// Reads an array of messages; `None` when there are more than `limit`.
struct Batch<E> {
    limit: usize,
    element: E,
}

impl<'de, E: Copy + DeserializeSeed<'de, Value = Option<Message>>> DeserializeSeed<'de> for Batch<E> {
    type Value = Option<Vec<Message>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, E: Copy + DeserializeSeed<'de, Value = Option<Message>>> Visitor<'de> for Batch<E> {
    type Value = Option<Vec<Message>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::new();
        let mut seen = 0;
        while seen < self.limit {
            match elements.next_element_seed(self.element)? {
                Some(message) => messages.extend(message),
                None => return Ok(Some(messages)),
            }
            seen += 1;
        }
        let mut complete = true;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            complete = false;
        }
        Ok(complete.then_some(messages))
    }
}

/// Reads an element of a batch: an object, or `null` as `None`.
#[derive(Clone, Copy)]
struct Plain;

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Option<Message>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Option<Message>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message or null")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        MessageVisitor.visit_map(fields).map(Some)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads any element of a batch, `null` as `None`.
#[derive(Clone, Copy)]
struct Odd;

impl<'de> DeserializeSeed<'de> for Odd {
    type Value = Option<Message>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let element = <&RawValue>::deserialize(deserializer)?;
        if element.get() == "null" {
            return Ok(None);
        }
        parse_one(element).map(Some).map_err(serde::de::Error::custom)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    /// The last of two equal keys counts, as in JavaScript.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Message, A::Error> {
        let mut message = Message::default();
        while let Some(json::Borrowed(name)) = fields.next_key()? {
            let value: &RawValue = fields.next_value()?;
            let text = || if json::truthy(value) { json_text(value) } else { String::new() };
            let owned = || Some(value.to_owned());
            match &*name {
                "channel" => message.channel = text(),
                "clientId" => message.client_id = Some(text()).filter(|id| !id.is_empty()),
                "id" => message.id = owned(),
                "successful" => message.successful = Some(json::truthy(value)),
                "error" => message.error = Some(text()).filter(|error| !error.is_empty()),
                "data" => message.data = owned(),
                "ext" => message.ext = owned(),
                "advice" => message.advice = owned(),
                "version" => message.version = owned(),
                "supportedConnectionTypes" => message.supported_connection_types = owned(),
                "connectionType" => message.connection_type = owned(),
                "subscription" => message.subscription = owned(),
                _ => match message.rest.iter().position(|(other, _)| *other == name) {
                    Some(earlier) => message.rest[earlier].1 = value.to_owned(),
                    None if message.rest.len() == MAX_UNKNOWN_FIELDS => {
                        return Err(serde::de::Error::custom(format_args!(
                            "more than {MAX_UNKNOWN_FIELDS} unknown fields in one message"
                        )));
                    }
                    None => message.rest.push((name.into_owned(), value.to_owned())),
                },
            }
        }
        Ok(message)
    }
}

/// A string's value; any other value's JSON.
fn json_text(raw: &RawValue) -> String {
    json::string(raw).map_or_else(|| raw.get().to_owned(), Cow::into_owned)
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
        let mut deserializer = serde_json::Deserializer::from_str(str::from_utf8(json).ok()?);
        let message = Plain.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok().and(message)
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

    use super::*;

    fn one(text: &str) -> Message {
        let mut messages = parse(text.as_bytes(), &Limits::default()).expect(text);
        assert_eq!(messages.len(), 1, "{text}");
        messages.remove(0)
    }

    fn encoded(message: &Message) -> String {
        String::from_utf8(message.encode()).expect("JSON is UTF-8")
    }

    #[test]
    fn payload_passes_byte_for_byte() {
        let message = one(r#"{"channel":"/a","data":{"n": 1.00, "big":12345678901234567890,"s":"\ud800\/"}}"#);
        assert_eq!(message.data.expect("data").get(), r#"{"n": 1.00, "big":12345678901234567890,"s":"\ud800\/"}"#);
    }

    #[test]
    fn escaped_names_are_read() {
        let message = one(r#"{"\u0063hannel":"\/meta\/handshake"}"#);
        assert_eq!(message.channel, "/meta/handshake");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let message = one(r#"{"channel":"/a","channel":"/b","x":1,"x":2}"#);
        assert_eq!(encoded(&message), r#"{"channel":"/b","x":2}"#);
    }

    #[test]
    fn wrong_types_never_look_like_a_channel_or_a_session() {
        assert_eq!(one(r#"{"channel":["/foo"]}"#).channel, r#"["/foo"]"#);
        assert_eq!(one(r#"{"channel":0}"#).channel, "");
        assert_eq!(one(r#"{"clientId":{"a":1}}"#).client_id.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(one(r#"{"clientId":false}"#).client_id, None);
    }

    #[test]
    fn batches() {
        let limits = Limits { max_messages: 2, max_depth: 5 };
        let count = |text: &str| parse(text.as_bytes(), &limits).map(|messages| messages.len());
        assert_eq!(count("[]"), Ok(0));
        assert_eq!(count("null"), Ok(0));
        assert_eq!(count("[null]"), Ok(0));
        assert_eq!(count("[1,\"x\"]"), Ok(2));
        assert_eq!(count("[[{}]]"), Ok(1));
        assert_eq!(count("[{},{},{}]"), Err(ParseError::TooMany(2)));
        assert_eq!(count("{\"a\":[[[[[]]]]]}"), Err(ParseError::TooDeep(5)));
        for primitive in ["1", "\"x\"", "true"] {
            assert_eq!(count(primitive), Err(ParseError::NotMessages), "{primitive}");
        }
        for malformed in ["", "{", "[{}", "{\"a\":}", "\u{feff}[]", "[] []", "{\"a\":1,}"] {
            assert!(matches!(count(malformed), Err(ParseError::Json(_))), "{malformed}");
        }
    }

    #[test]
    fn odd_elements_do_not_spoil_a_batch() {
        for odd in ["1e999", r#""\ud800""#, "-12345678901234567890123", "[[{}]]", "true"] {
            let text = format!(r#"[{odd},{{"channel":"/a"}}]"#);
            let messages = parse(text.as_bytes(), &Limits::default()).expect(&text);
            let channels: Vec<_> = messages.iter().map(|message| message.channel.as_str()).collect();
            assert_eq!(channels, ["", "/a"], "{text}");
        }
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let message = parse(b"{\"channel\":\"/a\",\"data\":\"\xff\"}", &Limits::default()).expect("accepted").remove(0);
        assert_eq!(message.data.expect("data").get(), "\"\u{fffd}\"");
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
        fn any_bytes_parse_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &Limits::default());
        }

        /// What can be read in one pass is read as it would be value by value.
        #[test]
        fn both_ways_to_parse_agree(
            elements in prop::collection::vec(prop::sample::select(vec![
                "{}", " null ", r#"{"channel":"/a","x":[1]}"#, r#"{"\u0063hannel":"\/b","x":1,"x":{}}"#, r#"{"id":1e999}"#,
                r#"{"data":"\ud800"}"#, r#"{"\ud800":1}"#, "1", "[null]", r#""a""#, "{", "", "nul", "{} {}",
            ]), 0..5),
            (open, close) in prop::sample::select(vec![("[", "]"), (" [", "] "), ("", ""), ("[", ""), ("[", "],")]),
        ) {
            let text = format!("{open}{}{close}", elements.join(","));
            let limits = Limits { max_messages: 3, ..Limits::default() };
            let odd = parse_odd(&text, &limits);
            if let Ok(plain) = parse_plain(&text, &limits) {
                let plain = plain.ok_or(ParseError::TooMany(limits.max_messages));
                prop_assert_eq!(format!("{plain:?}"), format!("{odd:?}"));
            }
        }

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
