//! `/meta/connect`: holds a poll, binds a socket, or is the heartbeat of an event stream.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::handshake::CONNECTION_TYPES;
use super::timing::Asked;
use super::{Notice, OwnedClaim, RequestInfo, Server, session_of};
use crate::bayeux::advice::requested_timeout_ms;
use crate::bayeux::json;
use crate::bayeux::{Advice, BayeuxError, Message, Reconnect};
use crate::engine::{Cursor, Ended, Engine, EngineError, Epoch, Link, PartitionId, SessionId, Touch, Traits};
use crate::session::{AttachOutcome, Batch, Gap, Held, PollOutcome, Receipt};

/// Bytes of a message id that are remembered as they are.
const MAX_CONNECT_ID: usize = 64;

/// The session that a socket holds when a frame arrives.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Which.
    pub session: SessionId,
    /// Under which attachment.
    pub epoch: Epoch,
    /// What it asked for when it was made.
    pub traits: Traits,
    /// How far it was sent.
    pub sent: Cursor,
}

/// A connect on a socket that waits for its time-out.
pub struct HeldConnect {
    /// The session that it holds.
    pub session: SessionId,
    /// The reply, for when it is answered.
    reply: Box<Message>,
    /// What it asked about time.
    asked: Asked,
    /// How long to hold it.
    pub hold: Duration,
}

/// The answer to a connect over HTTP.
pub(super) struct HttpAnswer {
    pub(super) reply: Message,
    pub(super) batch: Batch,
    /// How far the deliveries reach, for a client that remembers its position.
    pub(super) passed: Option<Cursor>,
    /// Of the deliveries.
    pub(super) receipt: Option<Receipt>,
}

impl From<Message> for HttpAnswer {
    fn from(reply: Message) -> Self {
        Self { reply, batch: Batch::default(), passed: None, receipt: None }
    }
}

/// What a connect on a socket came to.
pub(super) enum SocketConnect {
    /// Answer now.
    Answer(Message),
    /// The socket holds the session now; the connect is answered now or held.
    Bound(Held, Result<Message, HeldConnect>),
    /// The socket held the session already; the connect is held, and claims this.
    Held(HeldConnect, Option<OwnedClaim>),
    /// As above, answered now.
    Answered(Message, Option<OwnedClaim>),
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

/// What a poll's attachment said of its client.
#[derive(Default)]
struct Told {
    /// It acknowledges by number; up to here it had when the poll began.
    acks: Option<Cursor>,
    /// It remembers its position.
    resumes: bool,
}

/// A connect that passed the checks that need no engine.
struct Checked {
    session: SessionId,
    connect_id: Option<String>,
    hold: Duration,
    /// By the client's own word its last connect failed.
    retry: bool,
    eventsource: bool,
    claim: Option<OwnedClaim>,
}

impl Server {
    /// A connect that came as a request. `alone`: nothing else shares its request, so it may be held.
    pub(super) async fn connect_http(&self, message: &Message, request: &RequestInfo, alone: bool) -> HttpConnect {
        let connect = match self.check_connect(message, request, alone) {
            Ok(connect) => connect,
            Err(refused) => return HttpConnect::Answer(Box::new((*refused).into())),
        };
        if Box::pin(self.end_if_inactive(&connect.session)).await {
            return HttpConnect::Answer(Box::new(self.release_connect(message.accept()).into()));
        }
        let (outcome, told) = match connect.eventsource {
            true => (Box::pin(self.heartbeat(&connect)).await, Told::default()),
            false => self.poll(&connect, alone).await,
        };
        let reply = match outcome {
            Ok(PollOutcome::Deliver { batch, upto, receipt }) => {
                self.metrics().delivered.inc_by(batch.deliveries.len() as u64);
                let ack = told.acks.map(|_| upto.clone());
                let reply =
                    Notice { ack, gap: batch.gap.clone(), passed: None }.put(self.accept_connect(message, false));
                let (passed, receipt) = (Some(upto).filter(|_| told.resumes), Some(receipt));
                return HttpConnect::Answer(Box::new(HttpAnswer { reply, batch, passed, receipt }));
            }
            Ok(PollOutcome::Empty) => {
                // Nothing came after what the client has.
                let notice = Notice { ack: told.acks, ..Notice::default() };
                notice.put(self.accept_connect(message, connect.eventsource))
            }
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
    async fn poll(&self, connect: &Checked, alone: bool) -> (Result<PollOutcome, EngineError>, Told) {
        let deadline = Instant::now() + connect.hold;
        let mut patience = self.patience(deadline);
        let mut told = Told::default();
        loop {
            match self.try_poll(connect, alone, deadline, &mut told).await {
                Err(error) if patience.engine_returns(&error).await => self.engine_failed("connect", &error),
                outcome => return (outcome, told),
            }
        }
    }

    async fn try_poll(
        &self,
        connect: &Checked,
        alone: bool,
        deadline: Instant,
        told: &mut Told,
    ) -> Result<PollOutcome, EngineError> {
        let (connect_id, retry) = (connect.connect_id.as_deref(), connect.retry && alone);
        let link = Link::Poll { connect_id, retry, claim: connect.claim.as_ref().map(OwnedClaim::borrow) };
        match Box::pin(self.sessions().attach(&connect.session, link)).await? {
            AttachOutcome::Held(held) => {
                told.acks = held.acks().then(|| held.sent().cursor);
                told.resumes = held.traits().resume;
                // The first connect tells listeners that the session works: answered at once.
                let left = deadline.saturating_duration_since(Instant::now());
                let hold = if held.first() { Duration::ZERO } else { left };
                held.poll(hold, self.settings().max_reply_bytes).await
            }
            AttachOutcome::Late | AttachOutcome::Closed => Ok(PollOutcome::Empty),
            AttachOutcome::Unknown => Ok(PollOutcome::Unknown),
        }
    }

    /// Whether the session was ended because its client did nothing but stay connected. Failing, it goes on.
    async fn end_if_inactive(&self, session: &SessionId) -> bool {
        let Some(limit) = self.settings().max_inactivity else { return false };
        match self.sessions().store().end_inactive(session, limit).await {
            Ok(Some(ended)) => {
                self.session_ended(ended, Ended::Inactive);
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.engine_failed("end_inactive", &error);
                false
            }
        }
    }

    async fn heartbeat(&self, connect: &Checked) -> Result<PollOutcome, EngineError> {
        let claim = match &connect.claim {
            Some(OwnedClaim::Position(at)) => Some(at),
            _ => None,
        };
        Ok(match self.sessions().store().heartbeat(&connect.session, claim).await? {
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
        bound: Option<&Bound>,
    ) -> SocketConnect {
        let connect = match self.check_connect(message, request, alone) {
            Ok(connect) => connect,
            Err(refused) => return SocketConnect::Answer(*refused),
        };
        if self.end_if_inactive(&connect.session).await {
            return SocketConnect::Answer(self.release_connect(message.accept()));
        }
        // Answered now, with the number of an acknowledging client, or held.
        let answer = |hold: Duration, ack: Option<Cursor>| {
            let reply = self.accept_connect(message, false);
            if hold.is_zero() {
                Ok(Notice { ack, ..Notice::default() }.put(reply))
            } else {
                let asked = Asked::of(message, request.dialect);
                Err(HeldConnect { session: connect.session.clone(), reply: reply.into(), asked, hold })
            }
        };
        if let Some(bound) = bound.filter(|bound| bound.session == connect.session) {
            let claim = connect.claim.clone().filter(|claim| claim.counts(bound.traits));
            let answer = |hold: Duration| {
                if bound.traits.resume && hold.is_zero() {
                    // The socket knows what else its reply has to say.
                    let (reply, asked) =
                        (self.accept_connect(message, false).into(), Asked::of(message, request.dialect));
                    let session = connect.session.clone();
                    return SocketConnect::Held(HeldConnect { session, reply, asked, hold }, claim.clone());
                }
                let ack = match &claim {
                    // Never more than there was, whatever the client says.
                    Some(OwnedClaim::Ack(upto)) => {
                        Some(Cursor::single(bound.sent.get(PartitionId::default()).min(*upto)))
                    }
                    _ => None,
                };
                match answer(hold, ack) {
                    Ok(reply) => SocketConnect::Answered(reply, claim.clone()),
                    Err(held) => SocketConnect::Held(held, claim.clone()),
                }
            };
            return match self.sessions().store().touch(&connect.session, Some(bound.epoch)).await {
                Ok(Touch::Alive) => answer(connect.hold),
                Ok(Touch::Stale) => SocketConnect::Close(SocketClose::Stale),
                Ok(Touch::Unknown) => SocketConnect::Answer(self.unknown_session(message, request)),
                Err(error) => {
                    // Not a reason to lose the socket. The next connect comes early enough to extend the session's life.
                    self.engine_failed("connect", &error);
                    answer(connect.hold / 2)
                }
            };
        }
        let (connect_id, retry) = (connect.connect_id.as_deref(), connect.retry && alone);
        let link = Link::Socket { connect_id, retry, claim: connect.claim.as_ref().map(OwnedClaim::borrow) };
        let deadline = Instant::now() + connect.hold;
        match self.attach_patiently(&connect.session, link, deadline).await {
            Ok(AttachOutcome::Held(held)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let hold = if held.first() { Duration::ZERO } else { left };
                if held.traits().resume && hold.is_zero() {
                    // Reading the logs is due in any case. Done before the answer, that can say whether all is still there:
                    // a client takes silence for a yes.
                    if let Err(error) = self.sessions().refresh(held.attachment()).await {
                        self.engine_failed("connect", &error);
                    }
                    if held.has_gap() {
                        let (reply, asked) =
                            (self.accept_connect(message, false).into(), Asked::of(message, request.dialect));
                        let told = HeldConnect { session: connect.session.clone(), reply, asked, hold };
                        return SocketConnect::Bound(held, Err(told));
                    }
                }
                let ack = held.acks().then(|| held.sent().cursor);
                SocketConnect::Bound(held, answer(hold, ack))
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

    /// Answers a held connect: its time is over, another connect took its place, or there is something to say.
    pub fn answer_held(&self, held: HeldConnect, notice: Notice) -> Message {
        held.asked.answer(notice.put(*held.reply))
    }

    /// Answers a held connect whose session ended.
    pub fn answer_ended(&self, held: HeldConnect, why: Ended, request: &RequestInfo) -> Message {
        match why {
            Ended::Disconnected | Ended::Inactive => self.release_connect(*held.reply),
            Ended::Expired | Ended::Gap => self.unknown_session(&held.reply, request),
        }
    }

    /// What a stream is told of a gap: the reply to a connect that it did not make.
    pub fn tell_of_gap(&self, session: &SessionId, gap: Gap) -> Message {
        let message = Message {
            channel: "/meta/connect".to_owned(),
            client_id: Some(session.as_str().to_owned()),
            ..Message::default()
        };
        Notice { gap: Some(gap), ..Notice::default() }.put(message.accept())
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
            claim: OwnedClaim::of(message),
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
