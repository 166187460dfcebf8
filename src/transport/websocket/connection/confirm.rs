//! What has arrived: which pings go out when, and what their pongs confirm. The rest of a connection's life is in
//! `../connection.rs`, the rules for pings in `../pings.rs`.

use tokio::time::Instant;

use super::super::pings::Pings;
use super::Connection;
use super::finish::Finish;
use crate::engine::{Cursor, Reach};
use crate::metrics::Limit;

impl Connection {
    /// What was sent of the session before is confirmed by nothing from here on, and the next session's first message asks
    /// for a ping.
    pub(super) fn forget_sent(&mut self) {
        self.wire.outlet().pings(Pings::forget);
    }

    /// Something was sent that no ping covers.
    pub(super) fn watch_pings(&mut self) {
        if let Some(due) = self.wire.outlet().pings(Pings::watch) {
            self.ping_due = self.ping_due.min(due);
        }
    }

    /// The time at which it had to be looked at pings is there. Ends a connection whose peer answers none.
    pub(super) fn look_at_pings(&mut self, now: Instant) -> Result<(), Finish> {
        let (every, pong) = (self.web.settings().websocket_ping, self.web.settings().websocket_pong);
        match self.wire.outlet().pings(|pings| pings.look(now, every)) {
            Err(later) => self.ping_due = later,
            Ok(unanswered) => {
                let silent = now >= self.heard + pong;
                // A ping that is still queued cannot be answered; how long it may be is another rule's business.
                // Neither can its answer be read while a frame is processed, which may wait for the engine.
                let unheard = self.processing.is_some();
                if unanswered && silent && !unheard && !self.wire.is_unflushed() {
                    self.web.server().metrics().limit(Limit::Idle);
                    return Err(Finish::Gone);
                }
                self.send_ping(now);
            }
        }
        Ok(())
    }

    pub(super) fn send_ping(&mut self, now: Instant) {
        self.ping_due = now + self.web.settings().websocket_ping;
        let held = self.held.as_ref();
        self.wire.outlet().ping(now, || held.map(|held| held.sent()).unwrap_or_default());
        self.note_queued();
    }

    pub(super) fn on_pong(&mut self, token: &[u8]) {
        let every = self.web.settings().websocket_ping;
        let answered = self.wire.outlet().pings(|pings| pings.answered(token, every));
        let Some((reach, due)) = answered else { return };
        self.confirm(&reach);
        if let Some(due) = due {
            (self.ping_due, self.put_off) = (due, true);
        }
    }

    /// A pong says that this has arrived. Of a client that acknowledges by number it says nothing about what has a
    /// number: the stack that answers is not the client.
    fn confirm(&self, reach: &Reach) {
        let Some(held) = &self.held else { return };
        match self.acks {
            true if reach.replays.is_empty() => {}
            true => held.confirm(&Reach { cursor: Cursor::default(), replays: reach.replays.clone() }),
            false => held.confirm(reach),
        }
    }
}
