//! Reads messages out of bodies and frames, in one pass where they hold nothing but objects. Called by every transport.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Message;
use crate::bayeux::json;

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

/// Reads one object, or null as `None`.
pub(super) fn parse_object(text: &str) -> serde_json::Result<Option<Message>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message = Plain.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(message)
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The one message of a text.
    pub(in super::super) fn one(text: &str) -> Message {
        let mut messages = parse(text.as_bytes(), &Limits::default()).expect(text);
        assert_eq!(messages.len(), 1, "{text}");
        messages.remove(0)
    }

    #[test]
    fn escaped_names_are_read() {
        let message = one(r#"{"\u0063hannel":"\/meta\/handshake"}"#);
        assert_eq!(message.channel, "/meta/handshake");
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
    }
}
