//! One WebSocket: binds a session, pushes what comes, and learns by pings what has arrived.

mod confirm;
mod finish;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::Instrument;

use self::finish::Finish;
use super::Stream;
use super::ahead::Ahead;
use super::outlet::TAKE;
use super::pings::Pings;
use super::wire::{Event, Gone, Wire};
use crate::bayeux::BayeuxError;
use crate::bayeux::message::{self, Message, ParseError};
use crate::engine::{Cursor, EngineError, PartitionId};
use crate::metrics::{Limit, Moved};
use crate::server::{Bound, FrameOutcome, HeldConnect, Notice, OwnedClaim, RequestInfo, SocketClose};
use crate::session::{Gap, Held, Step};
use crate::transport::answer::sentence;
use crate::transport::spans::frame_span;
use crate::transport::{Web, old_at};

/// Frames that are looked at before the first of them is processed.
const EVENTS_AT_ONCE: usize = 64;
/// Pause after an engine call failed.
const RETRY: Duration = Duration::from_millis(500);

/// A connection. Owned by its task; nobody else holds the socket.
pub(super) struct Connection {
    web: Web,
    wire: Wire,
    /// The request that opened it.
    request: Arc<RequestInfo>,
    /// The session whose messages are pushed here.
    held: Option<Held>,
    /// The connect that waits for its time-out, and when that is.
    connect: Option<(HeldConnect, Instant)>,
    /// The client acknowledges by number: messages go out while a connect waits, and only the number confirms.
    acks: bool,
    /// To be told with the next connect: messages are missing.
    gap: Option<Gap>,
    /// The frames being processed. The next one waits until that is done: one order per connection.
    processing: Option<BoxFuture<'static, FrameOutcome>>,
    /// What was read and not processed yet.
    ahead: Option<Box<Ahead>>,
    /// The read of the logs under way.
    refreshing: Option<BoxFuture<'static, Result<(), EngineError>>>,
    /// No refresh is tried before.
    refresh_after: Instant,
    /// When the pings are to be looked at.
    ping_due: Instant,
    /// That was put off: the timer must not fire for what was before.
    put_off: bool,
    /// When the peer was last heard of.
    heard: Instant,
    /// When it last sent a frame of its own accord.
    spoke: Instant,
    /// When it has become so old that its client shall connect anew.
    old_at: Option<Instant>,
    /// Since when the kernel has taken nothing of what is queued, as far as was looked, and what it had taken before.
    stuck_since: Option<(Instant, u64)>,
    /// It is about to end: no message is sent any more.
    leaving: bool,
}

/// Takes over a socket; [`Connection::run`] serves it. Apart, so that what is needed here only is not kept for life.
pub(super) async fn open(web: Web, request: RequestInfo, stream: Stream) -> Box<Connection> {
    let wire = Wire::new(stream, web.settings().max_body_bytes, web.server().metrics().clone()).await;
    let now = Instant::now();
    Box::new(Connection {
        wire,
        request: Arc::new(request),
        held: None,
        connect: None,
        acks: false,
        gap: None,
        processing: None,
        ahead: None,
        refreshing: None,
        refresh_after: now,
        ping_due: now + web.settings().websocket_ping,
        put_off: false,
        heard: now,
        spoke: now,
        old_at: old_at(web.settings().max_connection_age),
        stuck_since: None,
        leaving: false,
        web,
    })
}

impl Connection {
    /// Serves the socket to its end. The future lives as long as the connection: what is rarely under way is boxed.
    pub(super) async fn run(mut self: Box<Self>) {
        let finish = self.serve().await;
        self.finish(finish).boxed().await;
    }

    async fn serve(&mut self) -> Finish {
        // Both outlast the turns of the loop: to register with the timer, and with what all connections share, costs more
        // than the rest of a turn.
        let stop = self.web.0.stop.clone();
        let mut stop = pin!(stop.cancelled());
        let mut timer = pin!(tokio::time::sleep_until(self.deadline()));
        loop {
            let deadline = self.deadline();
            // One that fires too early finds nothing to do, and is set again.
            if deadline < timer.deadline() || timer.is_elapsed() || std::mem::take(&mut self.put_off) {
                timer.as_mut().reset(deadline);
            }
            let read = self.may_read();
            let deliver =
                !self.wire.is_unflushed() && self.refreshing.is_none() && self.refresh_after <= Instant::now();
            // Where somebody has to be told of a gap, nothing comes before that.
            let waits = self.acks || self.held.as_ref().is_some_and(|held| held.has_gap());
            let may_send = !waits || self.connect.is_some();
            let step = tokio::select! {
                event = self.wire.next(read) => self.on_event(event).and_then(|()| self.begin()),
                outcome = poll_option(&mut self.processing) => self.on_outcome(outcome).boxed().await,
                done = poll_option(&mut self.refreshing) => self.on_refreshed(done),
                step = next_step(self.held.as_ref(), may_send), if deliver => self.on_step(step).boxed().await,
                () = &mut timer => self.on_timer().boxed().await,
                () = &mut stop => Err(Finish::Close(CloseCode::Away, "server is stopping")),
            };
            if let Err(finish) = step {
                return finish;
            }
        }
    }

    /// Whether the next frame may be read: one order per connection, and no more replies than the peer takes. What comes
    /// meanwhile waits in the kernel, where it costs least, and is read together.
    fn may_read(&self) -> bool {
        self.processing.is_none() && !self.wire.is_full()
    }

    /// The next moment at which something is due without anything happening.
    fn deadline(&self) -> Instant {
        let settings = self.web.settings();
        let mut deadline = self.ping_due;
        if let Some(old_at) = self.old_at {
            deadline = deadline.min(old_at);
        }
        if let Some((_, at)) = &self.connect {
            deadline = deadline.min(*at);
        }
        if self.held.is_none() {
            deadline = deadline.min(self.spoke + settings.idle_timeout);
        }
        if let Some((since, _)) = self.stuck_since {
            deadline = deadline.min(since + settings.write_timeout);
        }
        if self.refresh_after > Instant::now() {
            deadline = deadline.min(self.refresh_after);
        }
        deadline
    }

    fn on_event(&mut self, event: Event) -> Result<(), Finish> {
        if !matches!(event, Event::Flushed | Event::Pushed | Event::Gone(_)) {
            self.heard = Instant::now();
        }
        match event {
            Event::Payload(payload) => {
                self.spoke = self.heard;
                self.on_payload(&payload)?;
            }
            Event::Pong(token) => self.on_pong(&token),
            Event::Alive => {}
            Event::Flushed => self.stuck_since = None,
            Event::Pushed => {
                if self.wire.outlet().pings(|pings| pings.wants_watch()) {
                    self.watch_pings();
                }
                if self.wire.is_unflushed() {
                    self.note_queued();
                }
            }
            Event::Gone(Gone::Closed) => return Err(Finish::Gone),
            Event::Gone(Gone::Closing) => return Err(Finish::Closing),
            Event::Gone(Gone::Violation(code, reason)) => {
                let metrics = self.web.server().metrics();
                if code == CloseCode::Size {
                    metrics.limit(Limit::Body)
                } else {
                    metrics.malformed.inc()
                }
                tracing::debug!(?code, reason, "socket broke the protocol");
                return Err(Finish::Close(code, reason));
            }
        }
        Ok(())
    }

    fn on_payload(&mut self, payload: &Bytes) -> Result<(), Finish> {
        let messages = match message::parse(payload, &self.web.settings().batch) {
            Ok(messages) => messages,
            Err(error) => return self.on_unparsable(&error),
        };
        self.ahead.get_or_insert_default().add(messages, payload.len());
        Ok(())
    }

    /// Begins to process what was read, unless an earlier frame still is. What came together is processed together.
    fn begin(&mut self) -> Result<(), Finish> {
        let mut step = Ok(());
        // Of frames that hold no messages only so many.
        for _ in 0..EVENTS_AT_ONCE {
            let more = self.processing.is_none()
                && self.ahead.as_ref().is_some_and(|ahead| ahead.has_room())
                && !self.wire.is_full();
            match more.then(|| self.wire.next(true).now_or_never()).flatten() {
                Some(event) => step = self.on_event(event),
                None => break,
            }
            if step.is_err() {
                break;
            }
        }
        // Whatever came behind it: what was read is processed.
        if self.processing.is_none() {
            self.process_next();
        }
        step
    }

    fn process_next(&mut self) {
        let next = self.ahead.as_mut().and_then(|ahead| ahead.take());
        self.ahead = self.ahead.take().filter(|ahead| !ahead.is_empty());
        if let Some(messages) = next {
            self.process(messages);
        }
    }

    fn process(&mut self, mut messages: Vec<Message>) {
        if self.held.is_none() && self.wire.outlet().is_abandoned() {
            // A connect that nobody can be told of must not take the session from a newer one.
            messages.retain(|message| message.channel != "/meta/connect");
        }
        let bound = self.held.as_ref().map(|held| {
            let (session, epoch, traits) = (held.session().clone(), held.epoch(), held.traits());
            Bound { session, epoch, traits, sent: held.sent().cursor }
        });
        let (server, request) = (self.web.server().clone(), self.request.clone());
        let span = frame_span(&request);
        let outcome = async move { server.handle_frame(&request, messages, bound).await };
        self.processing = Some(outcome.instrument(span).boxed());
    }

    /// Malformed input is not answered and does not end the socket (wire contract, 1.9); a bound that was reached is.
    fn on_unparsable(&mut self, error: &ParseError) -> Result<(), Finish> {
        let metrics = self.web.server().metrics();
        match error {
            ParseError::TooMany(_) => metrics.limit(Limit::Batch),
            ParseError::TooDeep(_) => metrics.limit(Limit::Depth),
            _ => {
                metrics.malformed.inc();
                tracing::debug!(%error, "malformed frame");
                return Ok(());
            }
        }
        let refusal = Message::default().reject(&BayeuxError::limit(413, "", sentence(error)));
        self.queue(&array(&refusal.encode()));
        Ok(())
    }

    async fn on_outcome(&mut self, outcome: FrameOutcome) -> Result<(), Finish> {
        self.processing = None;
        // Nothing was read meanwhile: the peer was not silent.
        self.heard = Instant::now();
        if let Some(held) = outcome.bound {
            // The socket turns to another session.
            self.release().await;
            self.acks = held.acks();
            self.gap = None;
            self.held = Some(held);
            self.forget_sent();
        }
        if let Some(claim) = outcome.claim {
            self.on_claim(claim);
        }
        if let Some(held) = outcome.held {
            let at = Instant::now() + held.hold;
            // A second connect answers the first.
            if let Some((older, _)) = self.connect.replace((held, at)) {
                self.answer(older).await;
            }
            if !self.leaving && self.held.as_ref().is_some_and(|held| held.has_gap()) {
                self.push().await?;
            }
        }
        if outcome.empty {
            self.queue(b"[]");
        } else if !outcome.replies.is_empty() {
            self.queue(&outcome.replies);
        }
        self.open_outlet();
        self.flush_now();
        match outcome.close {
            Some(SocketClose::Stale) => Err(Finish::Close(CloseCode::Normal, "session is held elsewhere")),
            Some(SocketClose::Unavailable) => Err(Finish::Close(CloseCode::Error, "storage unavailable")),
            None => {
                self.process_next();
                Ok(())
            }
        }
    }

    /// The client says what it has.
    fn on_claim(&mut self, claim: OwnedClaim) {
        let Some(held) = &self.held else { return };
        match claim {
            OwnedClaim::Ack(upto) => {
                self.acks = true;
                held.set_outlet(None);
                let upto = Cursor::single(upto);
                let partition = PartitionId::default();
                held.confirm(&upto.clone().into());
                // On one socket replies arrive in order: what this one does not acknowledge has not arrived.
                if upto.get(partition) < held.sent().cursor.get(partition) {
                    self.web.server().metrics().rewinds.inc();
                    held.rewind(&upto);
                }
            }
            OwnedClaim::Position(at) => held.confirm(&at.into()),
        }
    }

    async fn on_step(&mut self, step: Step) -> Result<(), Finish> {
        match step {
            Step::Ready => self.push().await,
            Step::Refresh => {
                if let Some(held) = &self.held {
                    let (sessions, attachment) = (self.web.server().sessions().clone(), held.attachment().clone());
                    self.refreshing = Some(async move { sessions.refresh(&attachment).await }.boxed());
                }
                Ok(())
            }
            Step::Ended(end) => self.on_end(end).await,
        }
    }

    fn on_refreshed(&mut self, outcome: Result<(), EngineError>) -> Result<(), Finish> {
        self.refreshing = None;
        if let Err(error) = outcome {
            tracing::debug!(%error, "socket cannot read the log; trying again");
            self.refresh_after = Instant::now() + RETRY;
        }
        Ok(())
    }

    /// Lets the hub write the session's messages as they come, where nothing has to be said, asked or rewritten first.
    fn open_outlet(&self) {
        let direct = !self.leaving && !self.acks && !self.web.server().rewrites_deliveries();
        if let Some(held) = self.held.as_ref().filter(|_| direct) {
            held.set_outlet(Some(self.wire.outlet().clone()));
        }
    }

    /// Sends what waits, in one write.
    async fn push(&mut self) -> Result<(), Finish> {
        let Some(held) = &self.held else { return Ok(()) };
        if held.has_gap() && self.connect.is_none() {
            return Ok(());
        }
        // Between what is taken here and its way out nothing of the hub's may come.
        held.set_outlet(None);
        let server = self.web.server().clone();
        let rewrite = server.rewrites_deliveries();
        let batch = held.take(if self.acks { server.settings().max_reply_bytes } else { TAKE });
        server.metrics().delivered.inc_by(batch.deliveries.len() as u64);
        if batch.gap.is_some() {
            self.gap = batch.gap;
            if let Some((connect, _)) = self.connect.take_if(|_| !self.acks) {
                self.answer(connect).await;
            }
        }
        for delivery in batch.deliveries {
            if !rewrite {
                self.queue(&delivery.array_as(batch.form));
            } else if let Some(json) = server.rewrite_delivery(&delivery, batch.form, &self.request).await {
                self.queue(&array(&json));
            }
        }
        if let Some((connect, _)) = self.connect.take_if(|_| self.acks) {
            self.answer(connect).await;
        }
        if !self.wire.outlet().pings(Pings::note_sent) {
            self.watch_pings();
        }
        self.open_outlet();
        self.flush_now();
        Ok(())
    }

    /// Spares the turn in which the kernel takes everything, as it nearly always does.
    fn flush_now(&mut self) {
        self.wire.outlet().flush_now();
        if !self.wire.is_unflushed() {
            self.stuck_since = None;
        }
    }

    async fn on_timer(&mut self) -> Result<(), Finish> {
        let now = Instant::now();
        let settings = self.web.settings();
        if let Some((since, taken)) = self.stuck_since
            && now >= since + settings.write_timeout
        {
            if self.wire.taken() > taken {
                // A slow peer that gets on is not a stuck one.
                self.stuck_since = Some((now, self.wire.taken()));
                return Ok(());
            }
            self.web.server().metrics().limit(Limit::WriteTime);
            return Err(Finish::Gone);
        }
        if self.held.is_none() && now >= self.spoke + settings.idle_timeout {
            self.web.server().metrics().limit(Limit::Idle);
            return Err(Finish::Close(CloseCode::Normal, "idle"));
        }
        if self.old_at.is_some_and(|old_at| now >= old_at) {
            self.web.server().metrics().moved(Moved::Age);
            return Err(Finish::Close(CloseCode::Away, "connection is old: connect again"));
        }
        if let Some((connect, _)) = self.connect.take_if(|(_, at)| now >= *at) {
            self.answer(connect).await;
        }
        if now >= self.ping_due {
            self.look_at_pings(now)?;
        }
        Ok(())
    }

    async fn answer(&mut self, connect: HeldConnect) {
        let ack = self.held.as_ref().filter(|_| self.acks).map(|held| held.sent().cursor);
        let notice = Notice { ack, gap: self.gap.take(), passed: None };
        let reply = self.web.server().answer_held(connect, notice);
        self.reply(reply).await
    }

    async fn reply(&mut self, reply: Message) {
        if let Some(reply) = self.web.server().encode(reply, &self.request).await {
            self.queue(&array(&reply));
        }
    }

    fn queue(&mut self, json: &[u8]) {
        self.note_queued();
        self.wire.outlet().queue(json);
    }

    fn note_queued(&mut self) {
        let taken = self.wire.taken();
        self.stuck_since.get_or_insert_with(|| (Instant::now(), taken));
    }
}

/// A frame with this message.
fn array(message: &[u8]) -> Vec<u8> {
    [b"[", message, b"]"].concat()
}

/// The future's output; pending for ever while there is none.
async fn poll_option<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The next step of the session, if there is one.
async fn next_step(held: Option<&Held>, may_send: bool) -> Step {
    match held {
        Some(held) if may_send => held.next().await,
        Some(held) => held.next_but_ready().await,
        None => std::future::pending().await,
    }
}
