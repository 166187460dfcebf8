//! The state of one attachment behind its lock: the bounded outbox, what is kept aside, and the frontiers.
//!
//! Deliveries rise strictly in position: the `queued` frontier is the only duplicate check.

use std::collections::VecDeque;
use std::sync::Arc;

use super::attachment::Outlet;
use crate::bayeux::Pattern;
use crate::engine::{Cursor, Delivery, Ended, Position, Reach, Replayed, Subscription, Version};

/// Bounds of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages that may wait in the outbox.
    pub outbox_messages: usize,
    /// Bytes that may wait in the outbox (one message may exceed it).
    pub outbox_bytes: usize,
}

/// Why an attachment is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A newer attachment took the session.
    Superseded {
        /// By a copy of the same connect: the client waits for the other reply.
        same_id: bool,
        /// It happens again and again (two tabs with one session): answer late.
        contended: bool,
    },
    /// The engine says that a newer attachment holds the session.
    Stale,
    /// The session is no more.
    Session(Ended),
    /// The node stops.
    Stopping,
}

/// What an attachment knows.
pub(super) struct State {
    pub(super) mode: Mode,
    /// A refresh is due and nobody runs it yet.
    pub(super) due: bool,
    /// The due refresh has to read the subscriptions too.
    pub(super) resync: bool,
    /// It began without listening to some log, as the only session there.
    pub(super) alone: bool,
    /// The due refresh is because of company there.
    pub(super) company: bool,
    pub(super) generation: u32,
    /// From the feed, while joining.
    pub(super) held: Vec<Arc<Delivery>>,
    pub(super) held_bytes: usize,
    /// More came from the feed while joining than may be kept: read on from the log.
    pub(super) overflowed: bool,
    pub(super) outbox: VecDeque<Arc<Delivery>>,
    pub(super) outbox_bytes: usize,
    /// Everything up to here is in the outbox, was taken, or is not for this session.
    pub(super) queued: Cursor,
    /// Everything up to here was taken by the transport. Replays move only here.
    pub(super) sent: Reach,
    /// Everything up to here has arrived at the client.
    pub(super) confirmed: Reach,
    /// The chunk of a replay that is in the outbox, and whether nothing comes after it.
    pub(super) replaying: Option<(Pattern, Position, bool)>,
    /// Not told yet: messages are missing.
    pub(super) gap: Option<Gap>,
    /// Replays that end with it: nothing is left of them but that.
    pub(super) lost_replays: Vec<Replayed>,
    pub(super) version: Version,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) end: Option<End>,
    /// Where messages leave without waking the transport.
    pub(super) outlet: Option<Arc<dyn Outlet>>,
}

/// Messages are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gap {
    /// Nothing more comes of what lies up to here. Empty for a replay, which lies below the client's position.
    pub upto: Cursor,
    /// Up to where they are missing, by which a client knows a gap that it was told of; empty where that is not known.
    pub lost: Cursor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Joining,
    Live,
    Behind,
    Replaying,
}

impl State {
    /// Whether there is something to take.
    pub(super) fn has_news(&self) -> bool {
        !self.outbox.is_empty() || self.gap.is_some()
    }

    /// Notes that these were taken; gives whether they belong to a replay.
    pub(super) fn note_taken(&mut self, deliveries: &[Arc<Delivery>]) -> bool {
        let Some((pattern, since, through)) = &self.replaying else {
            for delivery in deliveries {
                self.sent.cursor.raise(delivery.partition, delivery.position);
            }
            return false;
        };
        let last = deliveries.last().map(|delivery| delivery.position);
        let upto = if *through && self.outbox.is_empty() { Some(*since) } else { last };
        if let Some(upto) = upto {
            self.sent.raise_replay(&Replayed { pattern: pattern.clone(), since: *since, upto });
        }
        true
    }

    /// Forgets the progress of replays that are no more: through, as the engine knows, or of subscriptions that are gone.
    pub(super) fn forget_replays(&mut self) {
        let Self { subscriptions, sent, confirmed, .. } = self;
        let due = |moved: &Replayed| {
            let of = |one: &&Subscription| one.pattern == moved.pattern && one.since == moved.since;
            subscriptions.iter().find(of).is_some_and(|one| one.replay.is_some())
        };
        sent.replays.retain(due);
        confirmed.replays.retain(due);
    }

    /// Forgets what was not sent.
    pub(super) fn rewind(&mut self) {
        self.queued = self.sent.cursor.clone();
        self.replaying = None;
        // Found again by the next read.
        self.gap = None;
        self.lost_replays = Vec::new();
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Takes a message that came from the feed and is due.
    pub(super) fn accept(&mut self, delivery: &Arc<Delivery>, limits: &Limits) {
        match self.mode {
            Mode::Live => self.enqueue(delivery, limits),
            Mode::Joining if self.overflowed => {}
            Mode::Joining if self.held.len() >= limits.outbox_messages || self.held_bytes > limits.outbox_bytes => {
                self.held = Vec::new();
                self.overflowed = true;
            }
            Mode::Joining => {
                self.held_bytes += delivery.array.len();
                self.held.push(delivery.clone());
            }
            Mode::Behind | Mode::Replaying => {}
        }
    }

    /// Puts a message into the outbox if it is due and there is room; without room the session falls behind.
    pub(super) fn enqueue(&mut self, delivery: &Arc<Delivery>, limits: &Limits) {
        if self.mode != Mode::Live || delivery.position <= self.queued.get(delivery.partition) {
            return;
        }
        let full = self.outbox.len() >= limits.outbox_messages
            || (self.outbox_bytes + delivery.array.len() > limits.outbox_bytes && !self.outbox.is_empty());
        if full {
            self.mode = Mode::Behind;
            return;
        }
        self.queued.raise(delivery.partition, delivery.position);
        self.outbox_bytes += delivery.array.len();
        self.outbox.push_back(delivery.clone());
    }
}
