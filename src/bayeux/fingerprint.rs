//! Fingerprints of publishes: Faye's client sends a publish again, under the same id, whenever it is not sure of the
//! first, and so do programs with a key of their own.

use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::dialect::Dialect;
use super::json;
use super::message::Message;

/// Stands for a publish: 128 bits. Not secret, and no proof against who makes two of his own messages collide: he could
/// as well not send the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of channel and `ext.idempotencyKey` if there is one, else of session, id, channel and content, where the dialect's
    /// clients repeat those. `None` when the message has neither, and can never be known again.
    pub fn of(message: &Message, dialect: Dialect) -> Option<Self> {
        let key = json::member(message.ext.as_deref(), "idempotencyKey").filter(|key| json::truthy(key));
        let mut hash = Xxh3::new();
        let mut add = |part: &[u8]| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        if let Some(key) = key {
            add(b"key");
            add(message.channel.as_bytes());
            add(key.get().as_bytes());
        } else if dialect.repeats_publishes() {
            let (session, id) = (message.client_id.as_deref()?, message.id.as_deref().filter(|id| json::truthy(id))?);
            add(b"message");
            add(session.as_bytes());
            add(id.get().as_bytes());
            add(message.channel.as_bytes());
            for part in [&message.data, &message.ext] {
                add(part.as_deref().map_or("", RawValue::get).as_bytes());
            }
            for (name, value) in &message.rest {
                add(name.as_bytes());
                add(value.get().as_bytes());
            }
        } else {
            return None;
        }
        Some(Self(hash.digest128().to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Limits, parse};
    use super::*;

    fn of(text: &str) -> Option<Fingerprint> {
        Fingerprint::of(&parse(text.as_bytes(), &Limits::default()).expect(text)[0], Dialect::Faye)
    }

    #[test]
    fn what_is_a_repetition() {
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
    }

    #[test]
    fn cometds_clients_repeat_no_ids() {
        let of =
            |text: &str| Fingerprint::of(&parse(text.as_bytes(), &Limits::default()).expect(text)[0], Dialect::CometD);
        assert_eq!(of(r#"{"channel":"/a","clientId":"s","id":"1","data":1}"#), None);
        assert!(of(r#"{"channel":"/a","data":1,"ext":{"idempotencyKey":"k"}}"#).is_some());
    }

    #[test]
    fn a_key_stands_for_itself() {
        let first = of(r#"{"channel":"/a","data":1,"ext":{"idempotencyKey":"k"}}"#);
        assert!(first.is_some());
        assert_eq!(
            first,
            of(r#"{"channel":"/a","clientId":"s","id":"9","data":2,"ext":{"x":1,"idempotencyKey":"k"}}"#)
        );
        assert_ne!(first, of(r#"{"channel":"/b","data":1,"ext":{"idempotencyKey":"k"}}"#));
    }
}
