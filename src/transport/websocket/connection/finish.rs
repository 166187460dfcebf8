//! How a connection ends: what was read is done, what waits is answered, and the session is given back with exactly what was
//! confirmed. The rest of its life is in `../connection.rs`.

use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::pings::Pings;
use super::super::wire::Gone;
use super::{Connection, poll_option};
use crate::engine::Progress;
use crate::session::End;

/// How long a frame under way may take when the connection ends,
const FINISH_PATIENCE: Duration = Duration::from_secs(6);
/// and how long the peer may take to prove what it has read.
const PONG_PATIENCE: Duration = Duration::from_secs(2);
/// How long it takes at most to see what the peer has sent already.
const READ_PATIENCE: Duration = Duration::from_millis(200);

/// How a connection ends.
pub(super) enum Finish {
    /// The peer is gone: nothing more can be said.
    Gone,
    /// The peer asked for it.
    Closing,
    /// With a close frame.
    Close(CloseCode, &'static str),
}

impl Connection {
    /// The session is held elsewhere, or is no more.
    pub(super) async fn on_end(&mut self, end: End) -> Result<(), Finish> {
        let connect = self.connect.take();
        match end {
            End::Session(why) => {
                if let Some((connect, _)) = connect {
                    let reply = self.web.server().answer_ended(connect, why, &self.request);
                    self.reply(reply).await;
                }
                self.held = None;
                self.forget_sent();
                if why.is_final() && !self.request.dialect.events_come_first() {
                    // Faye closes the socket; CometD's clients do it themselves, once they have both replies.
                    return Err(Finish::Close(CloseCode::Normal, ""));
                }
                Ok(())
            }
            End::Superseded { same_id: true, .. } => Err(Finish::Close(CloseCode::Normal, "session is held elsewhere")),
            End::Superseded { .. } | End::Stale => {
                if let Some((connect, _)) = connect {
                    self.answer(connect).await;
                }
                Err(Finish::Close(CloseCode::Normal, "session is held elsewhere"))
            }
            End::Stopping => {
                self.connect = connect;
                Err(Finish::Close(CloseCode::Away, "server is stopping"))
            }
        }
    }

    /// Gives the session back in order, with exactly what was confirmed.
    pub(super) async fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        // What is still written from here on is in doubt, and would come twice.
        held.set_outlet(None);
        self.refreshing = None;
        if matches!(held.ended(), None | Some(End::Stopping))
            && let Err(error) = held.detach(Progress::Confirmed).await
        {
            tracing::debug!(%error, "could not detach a socket");
        }
    }

    /// Finishes what is under way while the peer can still talk: frames that it sent are processed, and it proves by a pong
    /// what it has read. Only then may it be told to go: wherever it turns to, its progress is there before it.
    async fn settle(&mut self, end: Instant) -> Result<(), Finish> {
        let start = Instant::now();
        let mut pong_by = start + PONG_PATIENCE;
        // A ping of its own: an answer to an earlier one proves less. Nothing more takes one along from here on.
        self.wire.outlet().pings(Pings::give_up);
        if self.held.as_ref().is_some_and(|held| matches!(held.ended(), None | Some(End::Stopping))) {
            self.send_ping(start);
        }
        loop {
            let unproved = self.wire.outlet().pings(|pings| pings.is_open()) && Instant::now() < pong_by;
            if !unproved && self.processing.is_none() {
                return Ok(());
            }
            let read = unproved && self.may_read();
            let deadline = if unproved { pong_by } else { end };
            tokio::select! {
                event = self.wire.next(read) => self.on_event(event).and_then(|()| self.begin())?,
                outcome = poll_option(&mut self.processing) => {
                    self.on_outcome(outcome).await?;
                    // Meanwhile nothing was read.
                    pong_by = pong_by.max(Instant::now() + READ_PATIENCE).min(end);
                }
                () = tokio::time::sleep_until(deadline) => if deadline == end { return Ok(()) },
            }
        }
    }

    /// Processes what the peer sent before it left: what was read, and, where it broke off, what the kernel still has.
    async fn finish_frames(&mut self, end: Instant) {
        let mut until = None;
        loop {
            while let Some(processing) = self.processing.take() {
                let Ok(outcome) = tokio::time::timeout_at(end, processing).await else { return };
                if self.on_outcome(outcome).await.is_err() {
                    return;
                }
            }
            let until = *until.get_or_insert_with(|| end.min(Instant::now() + PONG_PATIENCE));
            if !self.wire.outlet().is_abandoned() || Instant::now() >= until {
                return;
            }
            // Whatever was sent is there already, and behind it the end; the runtime may not know it yet.
            let Ok(event) = tokio::time::timeout(READ_PATIENCE, self.wire.next(true)).await else { return };
            if self.on_event(event).and_then(|()| self.begin()).is_err() && self.processing.is_none() {
                return;
            }
        }
    }

    pub(super) async fn finish(mut self: Box<Self>, mut finish: Finish) {
        self.leaving = true;
        if let Some(held) = &self.held {
            // What the hub wrote from here on might not be confirmed any more, and would come twice.
            held.set_outlet(None);
        }
        let end = Instant::now() + FINISH_PATIENCE;
        // What was read before is done, so that who publishes and closes need not wait for the replies.
        if !matches!(finish, Finish::Close(..)) {
            self.finish_frames(end).await;
        } else if let Err(other) = self.settle(end).await {
            // The peer has left meanwhile: what it sent before is done all the same.
            self.finish_frames(end).await;
            if matches!(other, Finish::Closing) {
                finish = other;
            }
        }
        match finish {
            Finish::Gone => {}
            Finish::Closing => {
                self.release().await;
                self.wire.closed_by_peer().await;
            }
            Finish::Close(code, reason) => {
                // What waits is answered first, so that the client need not guess.
                if let Some((connect, _)) = self.connect.take() {
                    self.answer(connect).await;
                }
                self.release().await;
                self.wire.close(code, reason).await;
            }
        }
        self.release().await;
    }
}

impl From<Gone> for Finish {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Closed => Self::Gone,
            Gone::Closing => Self::Closing,
            Gone::Violation(code, reason) => Self::Close(code, reason),
        }
    }
}
