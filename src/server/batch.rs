//! One request or frame: its messages in order, their replies, and the bytes that answer it.

use bytes::Bytes;
use tracing::Instrument;

use super::connect::{Bound, HeldConnect, HttpAnswer, HttpConnect, SocketClose, SocketConnect};
use super::subscribe::Change;
use super::timing::Asked;
use super::{Notice, OwnedClaim, RequestInfo, Server, Verdict, spans};
use crate::bayeux::channel::Realm;
use crate::bayeux::{BayeuxError, Message, Pattern};
use crate::engine::{Engine, SessionId, element};
use crate::metrics::Kind;
use crate::session::{Batch, Held, Receipt};

/// The answer to an HTTP request.
pub struct Reply {
    /// A JSON array of messages.
    pub body: Vec<u8>,
    /// To be told when the body left the node completely.
    pub receipts: Vec<Receipt>,
}

/// How an HTTP request is answered.
pub enum HttpOutcome {
    /// With status 200.
    Reply(Reply),
    /// Not at all: close the connection.
    Hangup,
    /// With status 503: the engine cannot say anything now.
    Unavailable,
}

/// What a frame on a socket came to.
#[derive(Default)]
pub struct FrameOutcome {
    /// The replies, to be sent in one frame: a JSON array, or nothing if there are none.
    pub replies: Vec<u8>,
    /// The frame held no messages (Faye's old keep-alive `[]`): answer `[]`.
    pub empty: bool,
    /// The socket holds this session from now on.
    pub bound: Option<Held>,
    /// A connect that waits.
    pub held: Option<HeldConnect>,
    /// What a connect of the held session said that the client has.
    pub claim: Option<OwnedClaim>,
    /// The socket has to be closed after the replies.
    pub close: Option<SocketClose>,
}

/// What a message other than a connect came to. Boxed, because it passes through many hands.
pub(super) struct Handled {
    /// Its reply.
    pub(super) reply: Box<Message>,
    /// The answer of a service.
    pub(super) event: Option<Box<Message>>,
}

impl From<Message> for Handled {
    fn from(reply: Message) -> Self {
        Self { reply: reply.into(), event: None }
    }
}

/// Replies of one batch, encoded.
#[derive(Default)]
struct Array {
    bytes: Vec<u8>,
}

impl Array {
    fn push(&mut self, element: &[u8]) {
        self.divide();
        self.bytes.extend_from_slice(element);
    }

    fn push_message(&mut self, message: &Message) {
        self.divide();
        message.encode_into(&mut self.bytes);
    }

    fn divide(&mut self) {
        // Less than that is hardly ever said.
        self.bytes.reserve(256);
        self.bytes.push(if self.bytes.is_empty() { b'[' } else { b',' });
    }

    /// The array; nothing if it is empty.
    fn close(mut self) -> Vec<u8> {
        if !self.bytes.is_empty() {
            self.bytes.push(b']');
        }
        self.bytes
    }
}

impl Server {
    /// Processes the messages of one HTTP request. Dropping the future (the client hung up) releases its poll.
    pub async fn handle_request(&self, request: &RequestInfo, messages: Vec<Message>) -> HttpOutcome {
        let alone = messages.len() == 1;
        let mut array = Array::default();
        let mut receipts = Vec::new();
        let mut connected = false;
        let mut run = Vec::new();
        for mut message in boxed(connects_last(messages)) {
            if self.incoming(&mut message, request).await == Verdict::Drop {
                continue;
            }
            let kind = kind(&message);
            if is_stored(&message) {
                if alone {
                    Box::pin(self.handle_publish(message, request, &mut array)).await;
                } else {
                    run.push(message);
                }
                continue;
            }
            if !run.is_empty() {
                Box::pin(self.handle_publishes(std::mem::take(&mut run), request, &mut array)).await;
            }
            if kind != Kind::Connect {
                for reply in Box::pin(self.handle_asked(*message, request)).await {
                    self.encode_reply(&mut array, reply, request).await;
                }
                continue;
            }
            self.metrics().received(Kind::Connect);
            if std::mem::replace(&mut connected, true) {
                self.encode_reply(&mut array, self.refuse_second_connect(&message).into(), request).await;
                continue;
            }
            let asked = Asked::of(&message, request.dialect);
            let span = spans::message(&message, Kind::Connect, request);
            let HttpAnswer { reply, batch, passed, receipt } =
                match Box::pin(self.connect_http(&message, request, alone).instrument(span)).await {
                    HttpConnect::Answer(answer) => *answer,
                    HttpConnect::Hangup => return HttpOutcome::Hangup,
                    // The rest of the batch was done and is answered; the connect the client repeats by itself.
                    HttpConnect::Unavailable if !alone => continue,
                    HttpConnect::Unavailable => return HttpOutcome::Unavailable,
                };
            receipts.extend(receipt);
            let mut reply = asked.answer(reply);
            let deliveries = Box::pin(self.encode_deliveries(&batch, request)).await;
            if deliveries.is_empty() && !batch.deliveries.is_empty() {
                // Extensions have dropped all of it. A client that goes by positions would ask for it for ever.
                reply = Notice { passed, ..Notice::default() }.put(reply);
            }
            let first = request.dialect.events_come_first();
            if first {
                deliveries.iter().for_each(|delivery| array.push(delivery));
            }
            self.encode_reply(&mut array, reply.into(), request).await;
            if !first {
                deliveries.iter().for_each(|delivery| array.push(delivery));
            }
        }
        if !run.is_empty() {
            Box::pin(self.handle_publishes(run, request, &mut array)).await;
        }
        let body = if array.bytes.is_empty() { b"[]".to_vec() } else { array.close() };
        HttpOutcome::Reply(Reply { body, receipts })
    }

    /// Processes the messages of one frame on a socket that holds `bound`.
    pub async fn handle_frame(
        &self,
        request: &RequestInfo,
        messages: Vec<Message>,
        bound: Option<Bound>,
    ) -> FrameOutcome {
        let alone = messages.len() == 1;
        let mut outcome = FrameOutcome { empty: messages.is_empty(), ..FrameOutcome::default() };
        let mut bound = bound;
        let mut connected = false;
        let mut run = Vec::new();
        let mut array = Array::default();
        for mut message in boxed(connects_last(messages)) {
            if self.incoming(&mut message, request).await == Verdict::Drop {
                continue;
            }
            let kind = kind(&message);
            if is_stored(&message) {
                if alone {
                    self.handle_publish(message, request, &mut array).await;
                } else {
                    run.push(message);
                }
                continue;
            }
            // Boxed, here and below: most frames are one publish, and need not carry the room for anything else.
            if !run.is_empty() {
                Box::pin(self.handle_publishes(std::mem::take(&mut run), request, &mut array)).await;
            }
            if kind != Kind::Connect {
                for reply in Box::pin(self.handle_asked(*message, request)).await {
                    self.encode_reply(&mut array, reply, request).await;
                }
                continue;
            }
            self.metrics().received(Kind::Connect);
            if std::mem::replace(&mut connected, true) {
                self.encode_reply(&mut array, self.refuse_second_connect(&message).into(), request).await;
                continue;
            }
            let asked = Asked::of(&message, request.dialect);
            let span = spans::message(&message, Kind::Connect, request);
            match Box::pin(self.connect_socket(&message, request, alone, bound.as_ref()).instrument(span)).await {
                SocketConnect::Answer(reply) => {
                    self.encode_reply(&mut array, asked.answer(reply).into(), request).await;
                }
                SocketConnect::Bound(held, answer) => {
                    let (session, epoch, traits) = (held.session().clone(), held.epoch(), held.traits());
                    bound = Some(Bound { session, epoch, traits, sent: held.sent().cursor });
                    outcome.bound = Some(held);
                    match answer {
                        Ok(reply) => self.encode_reply(&mut array, asked.answer(reply).into(), request).await,
                        Err(held) => outcome.held = Some(held),
                    }
                }
                SocketConnect::Held(held, claim) => {
                    outcome.held = Some(held);
                    outcome.claim = claim;
                }
                SocketConnect::Answered(reply, claim) => {
                    self.encode_reply(&mut array, asked.answer(reply).into(), request).await;
                    outcome.claim = claim;
                }
                SocketConnect::Close(why) => outcome.close = Some(why),
            }
        }
        if !run.is_empty() {
            Box::pin(self.handle_publishes(run, request, &mut array)).await;
        }
        outcome.replies = array.close();
        outcome
    }

    /// A publish by itself. Adds its reply.
    async fn handle_publish(&self, message: Box<Message>, request: &RequestInfo, array: &mut Array) {
        let asked = Asked::of(&message, request.dialect);
        self.metrics().received(Kind::Publish);
        let span = spans::message(&message, Kind::Publish, request);
        let handled = async move {
            self.note_activity(message.client_id.as_deref()).await;
            self.publish(message, request).await
        };
        for reply in in_order(asked, handled.instrument(span).await, request) {
            self.encode_reply(array, reply, request).await;
        }
    }

    /// Publishes that follow each other: they are stored in one step of the engine, in their order. Adds their replies.
    #[expect(clippy::vec_box, reason = "they are boxed before and needed so behind")]
    async fn handle_publishes(&self, mut run: Vec<Box<Message>>, request: &RequestInfo, array: &mut Array) {
        if run.len() < 2 {
            if let Some(message) = run.pop() {
                self.handle_publish(message, request, array).await;
            }
            return;
        }
        let asked: Vec<_> = run.iter().map(|message| Asked::of(message, request.dialect)).collect();
        let mut active = None;
        for message in &run {
            self.metrics().received(Kind::Publish);
            let session = message.client_id.as_deref();
            if session != active {
                self.note_activity(session).await;
                active = session;
            }
        }
        let span = spans::message(&run[0], Kind::Publish, request);
        let handled = Box::pin(self.publish_all(run, request)).instrument(span).await;
        for (asked, handled) in asked.into_iter().zip(handled) {
            for reply in in_order(asked, handled, request) {
                self.encode_reply(array, reply, request).await;
            }
        }
    }

    /// The session does something, where that counts.
    async fn note_activity(&self, session: Option<&str>) {
        if self.settings().max_inactivity.is_some()
            && let Some(session) = session.map(SessionId::from)
            && let Err(error) = Box::pin(self.sessions().store().note_activity(&session)).await
        {
            self.engine_failed("note_activity", &error);
        }
    }

    /// As [`Server::handle`]: the reply with what was asked about time, and a service's answer beside it.
    async fn handle_asked(&self, message: Message, request: &RequestInfo) -> impl Iterator<Item = Box<Message>> {
        let asked = Asked::of(&message, request.dialect);
        let span = spans::message(&message, kind(&message), request);
        in_order(asked, self.handle(message, request).instrument(span).await, request)
    }

    /// Everything but a connect.
    pub(super) async fn handle(&self, message: Message, request: &RequestInfo) -> Handled {
        let kind = match kind(&message) {
            // The node's own channels lie below `/meta`, where no client gets.
            Kind::Unknown if request.internal => Kind::Publish,
            kind => kind,
        };
        if !request.internal {
            self.metrics().received(kind);
        }
        if matches!(kind, Kind::Publish | Kind::Subscribe | Kind::Unsubscribe) {
            self.note_activity(message.client_id.as_deref()).await;
        }
        let reply = match kind {
            Kind::Publish => return self.publish(Box::new(message), request).await,
            Kind::Handshake => self.handshake(&message, request).await,
            Kind::Subscribe => self.change_subscriptions(&message, request, Change::Subscribe).await,
            Kind::Unsubscribe => self.change_subscriptions(&message, request, Change::Unsubscribe).await,
            Kind::Disconnect => self.disconnect(&message, request).await,
            Kind::Connect | Kind::Unknown => message.reject(&BayeuxError::forbidden_channel(message.channel.as_str())),
        };
        reply.into()
    }

    /// A reply as JSON; `None` when an extension drops it.
    pub async fn encode(&self, reply: Message, request: &RequestInfo) -> Option<Vec<u8>> {
        self.note_refusal(&reply, request);
        if !self.rewrites_deliveries() {
            return Some(reply.encode());
        }
        Some(Box::pin(self.0.extensions.outgoing(reply, request)).await?.encode())
    }

    async fn encode_reply(&self, array: &mut Array, reply: Box<Message>, request: &RequestInfo) {
        self.note_refusal(&reply, request);
        if !self.rewrites_deliveries() {
            array.push_message(&reply);
        } else if let Some(reply) = Box::pin(self.0.extensions.outgoing(*reply, request)).await {
            array.push_message(&reply);
        }
    }

    fn note_refusal(&self, reply: &Message, request: &RequestInfo) {
        if reply.successful == Some(false) {
            let error = reply.error.as_deref().unwrap_or_default();
            tracing::debug!(channel = reply.channel, session = reply.client_id, peer = ?request.peer, error, "refused");
            self.metrics().refused(error);
        }
    }

    /// The messages as their receiver gets them, without those that extensions drop.
    async fn encode_deliveries(&self, batch: &Batch, request: &RequestInfo) -> Vec<Bytes> {
        let rewrite = self.rewrites_deliveries();
        let mut encoded = Vec::with_capacity(batch.deliveries.len());
        for delivery in &batch.deliveries {
            if !rewrite {
                let array = delivery.array_as(batch.form);
                encoded.push(array.slice_ref(element(&array)));
            } else if let Some(bytes) = Box::pin(self.rewrite_delivery(delivery, batch.form, request)).await {
                encoded.push(bytes.into());
            }
        }
        encoded
    }
}

/// A reply with what was asked about time, and a service's answer beside it.
fn in_order(asked: Asked, handled: Handled, request: &RequestInfo) -> impl Iterator<Item = Box<Message>> + use<> {
    let Handled { mut reply, event } = handled;
    asked.put(&mut reply);
    let (first, second) = if request.dialect.events_come_first() { (event, Some(reply)) } else { (Some(reply), event) };
    first.into_iter().chain(second)
}

/// Meta channels are matched exactly: anything else below `/meta` is unknown, whatever it begins with.
fn kind(message: &Message) -> Kind {
    if !message.channel.starts_with("/meta") {
        return Kind::Publish;
    }
    match message.channel.as_str() {
        "/meta/handshake" => Kind::Handshake,
        "/meta/connect" => Kind::Connect,
        "/meta/subscribe" => Kind::Subscribe,
        "/meta/unsubscribe" => Kind::Unsubscribe,
        "/meta/disconnect" => Kind::Disconnect,
        other if !other.starts_with("/meta") => Kind::Publish,
        // What is no channel at all is refused as a publish: its name is the first thing wrong with it.
        other => match Pattern::parse(other).map(|channel| channel.realm()) {
            Ok(Realm::Meta) => Kind::Unknown,
            _ => Kind::Publish,
        },
    }
}

/// Whether a message is for others, to be stored: not addressed to the protocol itself, and to no service, which answers
/// it in its own time.
pub fn is_stored(message: &Message) -> bool {
    kind(message) == Kind::Publish && !message.channel.starts_with("/service/")
}

/// Each in a box: everything on the way would have room for a message, and copy that. `collect` would keep what they lie
/// in, with room for several, for as long as a poll is held.
#[expect(clippy::vec_box, reason = "see above")]
fn boxed(messages: Vec<Message>) -> Vec<Box<Message>> {
    let mut boxed = Vec::with_capacity(messages.len());
    boxed.extend(messages.into_iter().map(Box::new));
    boxed
}

/// A connect is processed after the rest of its batch, so that its reply carries what the batch published (Faye answers
/// in order of completion). It stays before a disconnect, which would end its session.
fn connects_last(messages: Vec<Message>) -> Vec<Message> {
    if messages.len() < 2 || !messages.iter().any(|message| kind(message) == Kind::Connect) {
        return messages;
    }
    let mut ordered = Vec::with_capacity(messages.len());
    let mut connects = Vec::new();
    for message in messages {
        match kind(&message) {
            Kind::Connect => connects.push(message),
            Kind::Disconnect => {
                ordered.append(&mut connects);
                ordered.push(message);
            }
            _ => ordered.push(message),
        }
    }
    ordered.append(&mut connects);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_messages_lay_in_is_not_kept() {
        let mut messages = Vec::with_capacity(100);
        messages.push(Message::default());
        assert_eq!(boxed(messages).capacity(), 1);
    }

    fn ordered(channels: &[&str]) -> Vec<String> {
        let messages = channels.iter().map(|channel| Message { channel: (*channel).to_owned(), ..Message::default() });
        connects_last(messages.collect()).into_iter().map(|message| message.channel).collect()
    }

    #[test]
    fn connects_follow_the_batch_but_not_a_disconnect() {
        assert_eq!(ordered(&["/meta/connect", "/a", "/b"]), ["/a", "/b", "/meta/connect"]);
        assert_eq!(
            ordered(&["/meta/connect", "/a", "/meta/disconnect", "/b"]),
            ["/a", "/meta/connect", "/meta/disconnect", "/b"]
        );
        assert_eq!(ordered(&["/meta/connect"]), ["/meta/connect"]);
    }

    #[test]
    fn meta_channels_are_matched_exactly() {
        for channel in ["/meta", "/meta/subscribe/x", "/meta/handshakes", "/meta/Connect", "/meta/*"] {
            assert_eq!(kind(&Message { channel: channel.into(), ..Message::default() }), Kind::Unknown, "{channel}");
        }
        for channel in ["/metallica", "/meta/", "/meta//handshake", "/*", ""] {
            assert_eq!(kind(&Message { channel: channel.into(), ..Message::default() }), Kind::Publish, "{channel}");
        }
    }
}
