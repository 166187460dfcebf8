//! A stored message, and the forms in which sessions get it. Encoded once per form and shared by all receivers.

use std::sync::OnceLock;

use bytes::Bytes;

use super::position::{PartitionId, Position};
use crate::bayeux::{Channel, Message, json};

/// A message as it is stored, announced and delivered; one allocation, shared by all receivers.
#[derive(Debug)]
pub struct Delivery {
    /// The sequence domain of `position`.
    pub partition: PartitionId,
    /// Its place in the order. The same in every log that holds it: duplicates are known by it alone.
    pub position: Position,
    /// Where it was published.
    pub channel: Channel,
    /// The message as every receiver gets it: a JSON array of one object, the form of sockets and streams.
    pub array: Bytes,
    /// With its position, for sessions that asked for it.
    positioned: OnceLock<Bytes>,
}

/// Of what it is, not of the forms that were made of it so far.
impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        (self.partition, self.position, &self.channel, &self.array)
            == (other.partition, other.position, &other.channel, &other.array)
    }
}

impl Eq for Delivery {}

/// How a session gets its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// As they were published.
    #[default]
    Plain,
    /// With `ext.position`.
    Positioned,
    /// With `ext.position` and `ext.replay`: part of a replay.
    Replayed,
}

impl Delivery {
    /// A message of a log.
    pub fn new(partition: PartitionId, position: Position, channel: Channel, array: Bytes) -> Self {
        Self { partition, position, channel, array, positioned: OnceLock::new() }
    }

    /// The message object alone: an element of a poll's reply.
    pub fn json(&self) -> &[u8] {
        element(&self.array)
    }

    /// The message in this form: a JSON array of one object.
    pub fn array_as(&self, form: Form) -> Bytes {
        match form {
            Form::Plain => self.array.clone(),
            Form::Positioned => self.positioned.get_or_init(|| self.with_position(false)).clone(),
            // Rarely for more than one receiver: not kept.
            Form::Replayed => self.with_position(true),
        }
    }

    /// The publisher's own word for these two fields of `ext` does not count.
    fn with_position(&self, replay: bool) -> Bytes {
        let mut ours = vec![("position", format!("{{\"{}\":{}}}", self.partition.0, self.position.0))];
        if replay {
            ours.push(("replay", "true".to_owned()));
        }
        let Some(mut message) = Message::from_delivery(self.json()) else { return self.array.clone() };
        message.ext = Some(json::with_fields(message.ext.as_deref(), &["position", "replay"], &ours));
        let mut array = Vec::with_capacity(self.array.len() + 64);
        array.push(b'[');
        message.encode_into(&mut array);
        array.push(b']');
        array.into()
    }
}

/// The only element of an array.
pub fn element(array: &[u8]) -> &[u8] {
    array.get(1..array.len().saturating_sub(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positioned(array: &'static str, form: Form) -> String {
        let channel = Channel::parse("/a").expect("valid");
        let delivery = Delivery::new(PartitionId(0), Position(7), channel, Bytes::from_static(array.as_bytes()));
        String::from_utf8(delivery.array_as(form).to_vec()).expect("UTF-8")
    }

    #[test]
    fn positions_join_what_the_publisher_sent() {
        let plain = r#"[{"channel":"/a","data":{"n": 1.0}}]"#;
        assert_eq!(positioned(plain, Form::Plain), plain);
        assert_eq!(
            positioned(plain, Form::Positioned),
            r#"[{"channel":"/a","data":{"n": 1.0},"ext":{"position":{"0":7}}}]"#
        );
        assert_eq!(
            positioned(
                r#"[{"channel":"/a","data":1,"ext":{"binary":{},"position":9,"replay":1},"x":2}]"#,
                Form::Replayed
            ),
            r#"[{"channel":"/a","data":1,"ext":{"binary":{},"position":{"0":7},"replay":true},"x":2}]"#
        );
        assert_eq!(
            positioned(r#"[{"channel":"/a","data":1,"ext":{"replay":true,"position":9}}]"#, Form::Positioned),
            r#"[{"channel":"/a","data":1,"ext":{"position":{"0":7}}}]"#,
            "a publisher cannot pass a message off as a replay"
        );
        assert_eq!(
            positioned(r#"[{"channel":"/a","data":1,"ext":5}]"#, Form::Positioned),
            r#"[{"channel":"/a","data":1,"ext":{"position":{"0":7}}}]"#
        );
    }
}
