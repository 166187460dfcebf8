//! What clients say and servers answer, in Bayeux and in Socket.IO. Pure code: appends messages to buffers and reads
//! answers out of payloads.

use std::borrow::Cow;
use std::io::Write;

use memchr::memmem;
use serde::Deserialize;

use super::plan::{Protocol, Transport};
use super::stamp::{Stamp, Stamps};

/// Which message is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Socket.IO: the server has opened the connection.
    Opened,
    /// A session was made, or refused.
    Handshake,
    /// A connect.
    Connect,
    /// A subscribe.
    Subscribe,
    /// A disconnect.
    Disconnect,
    /// A publish.
    Publish,
}

/// What the server advises to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reconnect {
    /// Connect again.
    Retry,
    /// The session is gone: make another.
    Handshake,
    /// Nothing.
    None,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub kind: Kind,
    /// The number that the message had.
    pub id: Option<u64>,
    pub successful: bool,
    /// The session.
    pub session: Option<Box<str>>,
    pub reconnect: Reconnect,
    /// Pause before the next connect, in milliseconds.
    pub interval: u64,
    /// How long the server holds a connect, in milliseconds.
    pub timeout: Option<u64>,
    /// Why it was refused.
    pub error: Option<Box<str>>,
}

#[derive(Deserialize)]
struct BayeuxMessage<'a> {
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    successful: Option<bool>,
    #[serde(borrow, rename = "clientId")]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    advice: Option<BayeuxAdvice<'a>>,
}

#[derive(Deserialize, Default)]
struct BayeuxAdvice<'a> {
    #[serde(borrow)]
    reconnect: Option<Cow<'a, str>>,
    interval: Option<f64>,
    timeout: Option<f64>,
}

/// How one kind of server is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Words {
    protocol: Protocol,
    transport: Transport,
    successful: memmem::Finder<'static>,
}

impl Words {
    pub(super) fn new(protocol: Protocol, transport: Transport) -> Self {
        Self { protocol, transport, successful: memmem::Finder::new(b"\"successful\"") }
    }

    fn connection_type(&self) -> &'static str {
        match self.transport {
            Transport::Websocket => "websocket",
            Transport::LongPolling => "long-polling",
        }
    }

    /// Whether the server speaks first.
    pub(super) fn server_opens(&self) -> bool {
        self.protocol == Protocol::SocketIo
    }

    /// Whether a session lives by connects.
    pub(super) fn connects(&self) -> bool {
        self.protocol == Protocol::Bayeux
    }

    /// The path of the WebSocket.
    pub(super) fn socket_path(&self, path: &str) -> String {
        match self.protocol {
            Protocol::Bayeux => path.to_owned(),
            Protocol::SocketIo if path == "/" => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Protocol::SocketIo => format!("{path}?EIO=4&transport=websocket"),
        }
    }

    pub(super) fn handshake(&self, out: &mut Vec<u8>, id: u64) {
        // Writing to a vector cannot fail, here and below.
        let _ = match self.protocol {
            Protocol::Bayeux => write!(
                out,
                r#"[{{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["{}"],"id":"{id}"}}]"#,
                self.connection_type()
            ),
            Protocol::SocketIo => write!(out, "40"),
        };
    }

    /// A connect; one `at_once` is not held.
    pub(super) fn connect(&self, out: &mut Vec<u8>, session: &str, id: u64, at_once: bool) {
        let advice = if at_once { r#","advice":{"timeout":0}"# } else { "" };
        let kind = self.connection_type();
        let _ = write!(
            out,
            r#"[{{"channel":"/meta/connect","clientId":"{session}","connectionType":"{kind}","id":"{id}"{advice}}}]"#
        );
    }

    /// Subscribes to channels. In Socket.IO to the first only.
    pub(super) fn subscribe(&self, out: &mut Vec<u8>, session: &str, id: u64, channels: &[String]) {
        match (self.protocol, channels) {
            (Protocol::Bayeux, [channel]) => {
                let _ = write!(
                    out,
                    r#"[{{"channel":"/meta/subscribe","clientId":"{session}","subscription":"{channel}","id":"{id}"}}]"#
                );
            }
            (Protocol::Bayeux, channels) => {
                let list = channels.join(r#"",""#);
                let _ = write!(
                    out,
                    r#"[{{"channel":"/meta/subscribe","clientId":"{session}","subscription":["{list}"],"id":"{id}"}}]"#
                );
            }
            (Protocol::SocketIo, channels) => {
                let channel = channels.first().map_or("", String::as_str);
                // The lowest digit tells the acknowledgements apart.
                let _ = write!(out, r#"42{id}0["subscribe","{channel}"]"#);
            }
        }
    }

    /// How many channels one subscribe takes.
    pub(super) fn subscribe_limit(&self) -> usize {
        if self.protocol == Protocol::Bayeux { 100 } else { 1 }
    }

    /// How many messages one frame takes.
    pub(super) fn publish_limit(&self) -> usize {
        if self.protocol == Protocol::Bayeux { usize::MAX } else { 1 }
    }

    /// Publishes some messages, each with its number.
    pub(super) fn publish<'a>(
        &self,
        out: &mut Vec<u8>,
        session: &str,
        stamps: &Stamps,
        messages: impl Iterator<Item = (u64, &'a str, Stamp)>,
    ) {
        match self.protocol {
            Protocol::Bayeux => {
                out.push(b'[');
                for (at, (id, channel, stamp)) in messages.enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    let _ = write!(out, r#"{{"channel":"{channel}","clientId":"{session}","id":"{id}","data":""#);
                    stamps.write(out, stamp);
                    out.extend_from_slice(br#""}"#);
                }
                out.push(b']');
            }
            Protocol::SocketIo => {
                for (id, channel, stamp) in messages {
                    let _ = write!(out, r#"42{id}1["publish","{channel}",""#);
                    stamps.write(out, stamp);
                    out.extend_from_slice(br#""]"#);
                }
            }
        }
    }

    pub(super) fn disconnect(&self, out: &mut Vec<u8>, session: &str, id: u64) {
        let _ = match self.protocol {
            Protocol::Bayeux => {
                write!(out, r#"[{{"channel":"/meta/disconnect","clientId":"{session}","id":"{id}"}}]"#)
            }
            Protocol::SocketIo => write!(out, "41"),
        };
    }

    /// What to say to a payload that asks whether somebody is there.
    pub(super) fn pong(&self, payload: &[u8]) -> Option<&'static [u8]> {
        (self.protocol == Protocol::SocketIo && payload == b"2").then_some(b"3")
    }

    /// Calls `each` for every answer in a payload. A payload of deliveries alone is passed over at little cost.
    ///
    /// # Errors
    /// When an answer cannot be read.
    pub(super) fn answers(&self, payload: &[u8], each: impl FnMut(Answer)) -> Result<(), serde_json::Error> {
        match self.protocol {
            Protocol::Bayeux if self.successful.find(payload).is_none() => Ok(()),
            Protocol::Bayeux => bayeux_answers(payload, each),
            Protocol::SocketIo => {
                socketio_answer(payload).into_iter().for_each(each);
                Ok(())
            }
        }
    }
}

fn bayeux_answers(payload: &[u8], each: impl FnMut(Answer)) -> Result<(), serde_json::Error> {
    let messages: Vec<BayeuxMessage<'_>> = serde_json::from_slice(payload)?;
    messages.into_iter().filter_map(bayeux_answer).for_each(each);
    Ok(())
}

fn bayeux_answer(message: BayeuxMessage<'_>) -> Option<Answer> {
    let successful = message.successful?;
    let kind = match message.channel.as_deref()? {
        "/meta/handshake" => Kind::Handshake,
        "/meta/connect" => Kind::Connect,
        "/meta/subscribe" => Kind::Subscribe,
        "/meta/disconnect" => Kind::Disconnect,
        _ => Kind::Publish,
    };
    let advice = message.advice.unwrap_or_default();
    let reconnect = match advice.reconnect.as_deref() {
        Some("handshake") => Reconnect::Handshake,
        Some("none") => Reconnect::None,
        _ => Reconnect::Retry,
    };
    // Times are whole milliseconds; a conversion from a float cannot fail, it saturates.
    let milliseconds = |value: f64| value.max(0.0) as u64;
    Some(Answer {
        kind,
        id: message.id.and_then(|id| id.parse().ok()),
        successful,
        session: message.client_id.map(|id| id.into()),
        reconnect,
        interval: advice.interval.map_or(0, milliseconds),
        timeout: advice.timeout.map(milliseconds),
        error: message.error.map(|error| error.into()),
    })
}

fn socketio_answer(payload: &[u8]) -> Option<Answer> {
    let answer = |kind, successful, id| Answer {
        kind,
        id,
        successful,
        session: None,
        reconnect: Reconnect::Retry,
        interval: 0,
        timeout: None,
        error: (!successful).then(|| String::from_utf8_lossy(payload).into()),
    };
    match payload {
        [b'0', ..] => Some(answer(Kind::Opened, true, None)),
        [b'4', b'0', ..] => Some(answer(Kind::Handshake, true, None)),
        [b'4', b'4', ..] => Some(answer(Kind::Handshake, false, None)),
        [b'4', b'3', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
            let kind = if number % 10 == 0 { Kind::Subscribe } else { Kind::Publish };
            Some(answer(kind, true, Some(number / 10)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(protocol: Protocol, payload: &str) -> Vec<Answer> {
        let mut all = Vec::new();
        let words = Words::new(protocol, Transport::Websocket);
        words.answers(payload.as_bytes(), |answer| all.push(answer)).unwrap();
        all
    }

    #[test]
    fn bayeux_answers_stand_among_deliveries() {
        let payload = r#"[{"channel":"/bench/1","data":{"successful":1}},
            {"id":"7","clientId":"a\u0062","channel":"/meta/connect","successful":true,
             "advice":{"reconnect":"retry","interval":5,"timeout":45000}},
            {"channel":"/bench/1","successful":false,"id":"8","error":"405::no"},
            {"channel":"/meta/connect","successful":false,"advice":{"reconnect":"handshake","interval":10.5}}]"#;
        let all = answers(Protocol::Bayeux, payload);
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!((all[0].kind, all[0].id, all[0].session.as_deref()), (Kind::Connect, Some(7), Some("ab")));
        assert_eq!((all[0].interval, all[0].timeout), (5, Some(45_000)));
        assert_eq!((all[1].kind, all[1].id, all[1].successful), (Kind::Publish, Some(8), false));
        assert_eq!(all[1].error.as_deref(), Some("405::no"));
        assert_eq!((all[2].reconnect, all[2].interval), (Reconnect::Handshake, 10));
        assert!(answers(Protocol::Bayeux, r#"[{"channel":"/a","data":1}]"#).is_empty());
    }

    #[test]
    fn socketio_answers() {
        assert_eq!(answers(Protocol::SocketIo, r#"0{"sid":"x"}"#)[0].kind, Kind::Opened);
        assert_eq!(answers(Protocol::SocketIo, r#"40{"sid":"x"}"#)[0].kind, Kind::Handshake);
        let all = answers(Protocol::SocketIo, "43121[]");
        assert_eq!((all[0].kind, all[0].id), (Kind::Publish, Some(12)));
        let all = answers(Protocol::SocketIo, "4330[]");
        assert_eq!((all[0].kind, all[0].id), (Kind::Subscribe, Some(3)));
        assert!(answers(Protocol::SocketIo, r#"42["message","/a","x"]"#).is_empty());
        assert!(!answers(Protocol::SocketIo, r#"44{"message":"no"}"#)[0].successful);
    }

    #[test]
    fn what_is_said_is_json() {
        let words = Words::new(Protocol::Bayeux, Transport::LongPolling);
        let stamps = Stamps::new(1, 100);
        let mut out = Vec::new();
        words.publish(&mut out, "s", &stamps, (0..3).map(|n| (n, "/a/b", Stamp { stream: 0, number: n, due: 1 })));
        let said: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(said[2]["id"], "2");
        assert_eq!(said[2]["data"].as_str().unwrap().len(), 100);
        for say in [
            &(|out: &mut Vec<u8>| words.handshake(out, 1)) as &dyn Fn(&mut Vec<u8>),
            &|out| words.connect(out, "s", 1, true),
            &|out| words.subscribe(out, "s", 1, &["/a".to_owned(), "/b".to_owned()]),
            &|out| words.subscribe(out, "s", 1, &["/a".to_owned()]),
            &|out| words.disconnect(out, "s", 1),
        ] {
            let mut out = Vec::new();
            say(&mut out);
            let said: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert!(said[0]["channel"].as_str().unwrap().starts_with("/meta/"));
        }
    }
}
