//! `/meta/connect`: holds a poll, binds a socket, or is the heartbeat of an event stream.

use std::time::Duration;

use super::handshake::CONNECTION_TYPES;
use super::{RequestInfo, Server, session_of};
use crate::bayeux::advice::requested_timeout_ms;
use crate::bayeux::json;
use crate::bayeux::{Advice, BayeuxError, Message, Reconnect};
use crate::engine::{Delivery, Ended, Engine, EngineError, Epoch, Link, SessionId, Touch};
use crate::session::{AttachOutcome, Held, PollOutcome, Receipt};
use std::sync::Arc;

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
    /// Somebody else holds the session: this socket is done.
    Stale,
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
    /// A connect that came as a request. `alone`: nothing else shares its request, so it may be held. `None`: close the
    /// connection without an answer.
    pub(super) async fn connect_http(
        &self,
        message: &Message,
        request: &RequestInfo,
        alone: bool,
    ) -> Option<HttpAnswer> {
        let connect = match self.check_connect(message, request, alone) {
            Ok(connect) => connect,
            Err(refused) => return Some((*refused).into()),
        };
        let outcome =
            if connect.eventsource { self.heartbeat(&connect.session).await } else { self.poll(&connect, alone).await };
        let reply = match outcome {
            Ok(PollOutcome::Deliver(deliveries, receipt)) => {
                self.metrics().delivered.inc_by(deliveries.len() as u64);
                let reply = self.accept_connect(message, false);
                return Some(HttpAnswer { reply, deliveries, receipt: Some(receipt) });
            }
            Ok(PollOutcome::Empty) => self.accept_connect(message, connect.eventsource),
            Ok(PollOutcome::Released) => self.release_connect(message.accept()),
            Ok(PollOutcome::Unknown) => self.unknown_session(message, request),
            Ok(PollOutcome::Hangup) => return None,
            Err(error) => self.connect_failed(message, &error),
        };
        Some(reply.into())
    }

    async fn poll(&self, connect: &Checked, alone: bool) -> Result<PollOutcome, EngineError> {
        let link = Link::Poll { connect_id: connect.connect_id.as_deref(), retry: connect.retry && alone };
        match self.sessions().attach(&connect.session, link).await? {
            AttachOutcome::Held(held) => {
                // The first connect tells listeners that the session works: answered at once.
                let hold = if held.first() { Duration::ZERO } else { connect.hold };
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
                Ok(Touch::Stale) => SocketConnect::Stale,
                Ok(Touch::Unknown) => SocketConnect::Answer(self.unknown_session(message, request)),
                Err(error) => SocketConnect::Answer(self.connect_failed(message, &error)),
            };
        }
        let link = Link::Socket { connect_id: connect.connect_id.as_deref(), retry: connect.retry && alone };
        match self.sessions().attach(&connect.session, link).await {
            Ok(AttachOutcome::Held(held)) => {
                let hold = if held.first() { Duration::ZERO } else { connect.hold };
                SocketConnect::Bound(held, answer(hold))
            }
            Ok(AttachOutcome::Unknown) => SocketConnect::Answer(self.unknown_session(message, request)),
            Ok(AttachOutcome::Late | AttachOutcome::Closed) => {
                SocketConnect::Answer(self.accept_connect(message, false))
            }
            Err(error) => SocketConnect::Answer(self.connect_failed(message, &error)),
        }
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
            connect_id: message.id.as_deref().filter(|id| json::truthy(id)).map(|id| id.get().to_owned()),
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

    /// The engine cannot say anything now: the session may well live, so the client shall try again.
    fn connect_failed(&self, message: &Message, error: &EngineError) -> Message {
        let error = self.engine_error("connect", error);
        let interval = 1000 + fastrand::u64(0..1000);
        let advice = Advice { interval, ..self.retry_advice() };
        Message { advice: Some(advice.to_raw()), ..message.reject(&error) }
    }
}
