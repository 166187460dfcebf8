//! `/meta/connect`: holds a poll, binds a socket, or is the heartbeat of an event stream.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::handshake::CONNECTION_TYPES;
use super::{RequestInfo, Server, session_of};
use crate::bayeux::advice::requested_timeout_ms;
use crate::bayeux::json;
use crate::bayeux::{Advice, BayeuxError, Message, Reconnect};
use crate::engine::{Delivery, Ended, Engine, EngineError, Epoch, Link, SessionId, Touch};
use crate::session::{AttachOutcome, Held, PollOutcome, Receipt};

/// Bytes of a message id that are remembered as they are.
const MAX_CONNECT_ID: usize = 64;

/// A connect on a socket that waits for its time-out.
pub struct HeldConnect {
    /// The session that it holds.
    pub session: SessionId,
    /// The reply, for when it is answered.
    reply: Box<Message>,
    /// How long to hold it.
    pub hold: Duration,
}

/// The answer to a connect over HTTP.
pub(super) struct HttpAnswer {
    pub(super) reply: Message,
    pub(super) deliveries: Vec<Arc<Delivery>>,
    /// Of the deliveries.
    pub(super) receipt: Option<Receipt>,
}

impl From<Message> for HttpAnswer {
    fn from(reply: Message) -> Self {
        Self { reply, deliveries: Vec::new(), receipt: None }
    }
}

/// What a connect on a socket came to.
pub(super) enum SocketConnect {
    /// Answer now.
    Answer(Message),
    /// The socket holds the session now; the connect is answered now or held.
    Bound(Held, Result<Message, HeldConnect>),
    /// The socket held the session already.
    Held(HeldConnect),
    /// This socket is done.
    Close(SocketClose),
}

/// Why a socket has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketClose {
    /// Somebody else holds the session.
    Stale,
    /// The engine cannot say anything now. Without a reply the client repeats its connect, and confirms nothing.
    Unavailable,
}

/// What a connect over HTTP came to.
pub(super) enum HttpConnect {
    Answer(Box<HttpAnswer>),
    /// Close the connection without an answer.
    Hangup,
    /// The engine cannot say anything now. A Bayeux reply would make the client move on to its next connect, and so
    /// confirm what it has not got.
    Unavailable,
}

/// A connect that passed the checks that need no engine.
struct Checked {
    session: SessionId,
    connect_id: Option<String>,
    hold: Duration,
    /// By the client's own word its last connect failed.
    retry: bool,
    eventsource: bool,
}

impl Server {
    /// A connect that came as a request. `alone`: nothing else shares its request, so it may be held.
    pub(super) async fn connect_http(&self, message: &Message, request: &RequestInfo, alone: bool) -> HttpConnect {
        let connect = match self.check_connect(message, request, alone) {
            Ok(connect) => connect,
            Err(refused) => return HttpConnect::Answer(Box::new((*refused).into())),
        };
        let outcome =
            if connect.eventsource { self.heartbeat(&connect.session).await } else { self.poll(&connect, alone).await };
        let reply = match outcome {
            Ok(PollOutcome::Deliver(deliveries, receipt)) => {
                self.metrics().delivered.inc_by(deliveries.len() as u64);
                let reply = self.accept_connect(message, false);
                return HttpConnect::Answer(Box::new(HttpAnswer { reply, deliveries, receipt: Some(receipt) }));
            }
            Ok(PollOutcome::Empty) => self.accept_connect(message, connect.eventsource),
            Ok(PollOutcome::Released) => self.release_connect(message.accept()),
            Ok(PollOutcome::Unknown) => self.unknown_session(message, request),
            Ok(PollOutcome::Hangup) => return HttpConnect::Hangup,
            Err(error) => {
                self.engine_failed("connect", &error);
                return HttpConnect::Unavailable;
            }
        };
        HttpConnect::Answer(Box::new(reply.into()))
    }

    /// Runs a poll to its end. While the engine is away the client is kept waiting, as for a message: so it learns at once
    /// how its session stands when the engine is back.
    async fn poll(&self, connect: &Checked, alone: bool) -> Result<PollOutcome, EngineError> {
        let deadline = Instant::now() + connect.hold;
        let mut patience = self.patience(deadline);
        loop {
            match self.try_poll(connect, alone, deadline).await {
                Err(error) if patience.engine_returns(&error).await => self.engine_failed("connect", &error),
                outcome => return outcome,
            }
        }
    }

    async fn try_poll(&self, connect: &Checked, alone: bool, deadline: Instant) -> Result<PollOutcome, EngineError> {
        let link = Link::Poll { connect_id: connect.connect_id.as_deref(), retry: connect.retry && alone };
        match self.sessions().attach(&connect.session, link).await? {
            AttachOutcome::Held(held) => {
                // The first connect tells listeners that the session works: answered at once.
                let left = deadline.saturating_duration_since(Instant::now());
                let hold = if held.first() { Duration::ZERO } else { left };
                held.poll(hold, self.settings().max_reply_bytes).await
            }
            AttachOutcome::Late | AttachOutcome::Closed => Ok(PollOutcome::Empty),
            AttachOutcome::Unknown => Ok(PollOutcome::Unknown),
        }
    }

    async fn heartbeat(&self, session: &SessionId) -> Result<PollOutcome, EngineError> {
        Ok(match self.sessions().store().heartbeat(session).await? {
            Touch::Alive | Touch::Stale => PollOutcome::Empty,
            Touch::Unknown => PollOutcome::Unknown,
        })
    }

    /// A connect on a socket that holds `bound` (or no session yet).
    pub(super) async fn connect_socket(
        &self,
        message: &Message,
        request: &RequestInfo,
        alone: bool,
        bound: Option<(&SessionId, Epoch)>,
    ) -> SocketConnect {
        let connect = match self.check_connect(message, request, alone) {
            Ok(connect) => connect,
            Err(refused) => return SocketConnect::Answer(*refused),
        };
        let answer = |hold: Duration| {
            let reply = self.accept_connect(message, false);
            if hold.is_zero() {
                Ok(reply)
            } else {
                Err(HeldConnect { session: connect.session.clone(), reply: reply.into(), hold })
            }
        };
        if let Some((_, epoch)) = bound.filter(|(session, _)| **session == connect.session) {
            return match self.sessions().store().touch(&connect.session, Some(epoch)).await {
                Ok(Touch::Alive) => match answer(connect.hold) {
                    Ok(reply) => SocketConnect::Answer(reply),
                    Err(held) => SocketConnect::Held(held),
                },
                Ok(Touch::Stale) => SocketConnect::Close(SocketClose::Stale),
                Ok(Touch::Unknown) => SocketConnect::Answer(self.unknown_session(message, request)),
                Err(error) => {
                    // Not a reason to lose the socket. The next connect comes early enough to extend the session's life.
                    self.engine_failed("connect", &error);
                    match answer(connect.hold / 2) {
                        Ok(reply) => SocketConnect::Answer(reply),
                        Err(held) => SocketConnect::Held(held),
                    }
                }
            };
        }
        let link = Link::Socket { connect_id: connect.connect_id.as_deref(), retry: connect.retry && alone };
        let deadline = Instant::now() + connect.hold;
        match self.attach_patiently(&connect.session, link, deadline).await {
            Ok(AttachOutcome::Held(held)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let hold = if held.first() { Duration::ZERO } else { left };
                SocketConnect::Bound(held, answer(hold))
            }
            Ok(AttachOutcome::Unknown) => SocketConnect::Answer(self.unknown_session(message, request)),
            Ok(AttachOutcome::Late | AttachOutcome::Closed) => {
                SocketConnect::Answer(self.accept_connect(message, false))
            }
            Err(error) => self.socket_failed(&error),
        }
    }

    fn socket_failed(&self, error: &EngineError) -> SocketConnect {
        self.engine_failed("connect", error);
        SocketConnect::Close(SocketClose::Unavailable)
    }

    /// A connect beside another one in the same request: it would confirm what the other's reply only carries.
    pub(super) fn refuse_second_connect(&self, message: &Message) -> Message {
        let error = BayeuxError::limit(400, "", "Only one connect in one request".to_owned());
        Message { advice: Some(self.retry_advice().to_raw()), ..message.reject(&error) }
    }

    /// Answers a held connect: its time is over, or another connect took its place.
    pub fn answer_held(&self, held: HeldConnect) -> Message {
        *held.reply
    }

    /// Answers a held connect whose session ended.
    pub fn answer_ended(&self, held: HeldConnect, why: Ended, request: &RequestInfo) -> Message {
        match why {
            Ended::Disconnected => self.release_connect(*held.reply),
            Ended::Expired | Ended::Gap => self.unknown_session(&held.reply, request),
        }
    }

    fn check_connect(&self, message: &Message, request: &RequestInfo, alone: bool) -> Result<Checked, Box<Message>> {
        let kind = message.connection_type.as_deref().filter(|kind| json::truthy(kind));
        let kind_name = kind.map(json::to_js_string);
        // The last reason counts (wire contract, 1.6).
        let mut error = message.error.clone();
        let session = session_of(message);
        if session.is_none() {
            error = Some(request.dialect.missing_client().to_string());
        }
        if request.dialect.requires_version_and_types() {
            match &kind_name {
                None => error = Some(BayeuxError::missing("connectionType").to_string()),
                Some(name) if !CONNECTION_TYPES.contains(&&**name) => {
                    error = Some(BayeuxError::connection_types(name.clone()).to_string());
                }
                Some(_) => {}
            }
        }
        let (Some(session), None) = (session, error.as_ref()) else {
            return Err(Box::new(self.refuse_connect(message, error.unwrap_or_default(), request)));
        };
        let requested = requested_timeout_ms(message.advice.as_deref()).map(Duration::from_millis);
        let hold = if alone { requested.unwrap_or(Duration::MAX).min(self.settings().timeout) } else { Duration::ZERO };
        Ok(Checked {
            session,
            connect_id: message.id.as_deref().filter(|id| json::truthy(id)).map(|id| short_id(id.get())),
            hold,
            retry: request.dialect.zero_timeout_is_retry() && requested == Some(Duration::ZERO),
            eventsource: kind_name.as_deref() == Some("eventsource"),
        })
    }

    fn accept_connect(&self, message: &Message, eventsource: bool) -> Message {
        let mut advice = self.retry_advice();
        if eventsource {
            // The poll becomes the stream's slow heartbeat.
            advice = Advice { interval: advice.timeout, timeout: 0, ..advice };
        }
        Message { advice: Some(advice.to_raw()), ..message.accept() }
    }

    fn release_connect(&self, reply: Message) -> Message {
        Message { advice: Some(Advice { reconnect: Reconnect::None, ..self.retry_advice() }.to_raw()), ..reply }
    }

    fn refuse_connect(&self, message: &Message, error: String, request: &RequestInfo) -> Message {
        let advice = message.reply_advice.clone();
        Message {
            client_id: None,
            successful: Some(false),
            error: Some(error),
            advice: Some(advice.unwrap_or_else(|| self.handshake_advice(request.dialect).to_raw())),
            ..message.reply()
        }
    }

    fn unknown_session(&self, message: &Message, request: &RequestInfo) -> Message {
        let client_id = message.client_id.as_deref().unwrap_or_default();
        self.refuse_connect(message, request.dialect.unknown_client(client_id).to_string(), request)
    }
}

/// The id as the engine remembers it: several for each session, so a long one is replaced by its hash.
fn short_id(id: &str) -> String {
    if id.len() <= MAX_CONNECT_ID {
        return id.to_owned();
    }
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    format!("#{:016x}", hasher.finish())
}
