//! Bringing an attachment up to date, step by step: replays first, then what the logs hold merged with what the feed
//! brings. [`super::refresh`] drives it with the engine's answers.

use std::sync::Arc;

use super::attachment::Attachment;
use super::outbox::{Gap, Mode};
use crate::bayeux::Pattern;
use crate::engine::{Cursor, Delivery, Position, Replayed, Snapshot, Subscription, Version};
use crate::metrics::LogRead;

/// Names one run of a refresh: whatever happens meanwhile makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u32,
    /// The subscriptions have to be read first.
    pub(super) resync: bool,
    /// The outbox had been full.
    pub(super) behind: bool,
    /// It is no more alone.
    company: bool,
}

/// The part of a replay that is to be read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplayPlan {
    pub(super) pattern: Pattern,
    pub(super) since: Position,
    pub(super) from: Position,
}

impl Ticket {
    /// Why the logs are to be read.
    pub(super) fn reason(self) -> LogRead {
        match self {
            Self { resync: true, .. } => LogRead::Resync,
            Self { behind: true, .. } => LogRead::Behind,
            Self { company: true, .. } => LogRead::Company,
            Self { generation: 0, .. } => LogRead::Attach,
            _ => LogRead::Hole,
        }
    }
}

impl Attachment {
    /// Starts a refresh; `None` when it is over.
    pub(super) fn begin_refresh(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return None;
        }
        let behind = state.mode == Mode::Behind;
        if behind || state.mode == Mode::Replaying {
            state.generation = state.generation.wrapping_add(1);
        }
        state.mode = Mode::Joining;
        state.due = false;
        // All logs are listened to from here on.
        state.alone = false;
        state.held = Vec::new();
        state.held_bytes = 0;
        state.overflowed = false;
        let company = std::mem::take(&mut state.company);
        Some(Ticket { generation: state.generation, resync: state.resync, behind, company })
    }

    /// The refresh failed: another one is due.
    pub(super) fn abandon_refresh(&self) {
        self.state.lock().due = true;
        self.changed.notify_one();
    }

    /// New subscriptions; gives those to join and those to leave.
    pub(super) fn resubscribe(
        &self,
        version: Version,
        subscriptions: Vec<Subscription>,
    ) -> (Vec<Pattern>, Vec<Pattern>) {
        let missing = |from: &[Subscription], other: &[Subscription]| {
            let known = |pattern: &Pattern| other.iter().any(|subscription| subscription.pattern == *pattern);
            from.iter().map(|subscription| &subscription.pattern).filter(|pattern| !known(pattern)).cloned().collect()
        };
        let mut state = self.state.lock();
        let joined = missing(&subscriptions, &state.subscriptions);
        let left = missing(&state.subscriptions, &subscriptions);
        state.version = version;
        state.subscriptions = subscriptions;
        state.resync = false;
        state.forget_replays();
        (joined, left)
    }

    /// The replay that is due next, if any: before anything live. A repeated poll replays only what it did before.
    pub(super) fn next_replay(&self) -> Option<ReplayPlan> {
        let state = self.state.lock();
        state.subscriptions.iter().find_map(|one| {
            let is_lost = |lost: &Replayed| lost.pattern == one.pattern && lost.since == one.since;
            if state.lost_replays.iter().any(is_lost) {
                return None;
            }
            let from = one.replay?.max(state.sent.replayed(&one.pattern, one.since).unwrap_or_default());
            let upto = match &self.ceiling {
                Some(ceiling) => ceiling.replayed(&one.pattern, one.since).unwrap_or_default(),
                None => one.since,
            };
            (from < upto).then(|| ReplayPlan { pattern: one.pattern.clone(), since: one.since, from })
        })
    }

    /// Puts a chunk of a replay into the outbox. False when there is more to do: the refresh is void, or the replay is
    /// through.
    pub(super) fn finish_replay(
        &self,
        ticket: Ticket,
        plan: ReplayPlan,
        deliveries: Vec<Arc<Delivery>>,
        through: bool,
        gap: bool,
    ) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return true;
        }
        if state.generation != ticket.generation || state.resync {
            return false;
        }
        if gap {
            // It lies below the position, which therefore stays where it is, and says nothing of it.
            state.gap = Some(Gap::default());
        }
        let ReplayPlan { pattern, since, .. } = plan;
        if deliveries.is_empty() {
            let through = Replayed { pattern, since, upto: since };
            // It is through once it was told of.
            if gap {
                state.lost_replays.push(through)
            } else {
                state.sent.raise_replay(&through)
            }
            return false;
        }
        state.mode = Mode::Replaying;
        state.held = Vec::new();
        state.held_bytes = 0;
        state.overflowed = false;
        state.outbox_bytes = deliveries.iter().map(|delivery| delivery.array.len()).sum();
        state.outbox = deliveries.into();
        state.replaying = Some((pattern, since, through));
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Each log with the position after which it has to be read.
    pub(super) fn reading_plan(&self) -> Vec<(Pattern, Position)> {
        let state = self.state.lock();
        // Position is per partition; with one partition its frontier is the first.
        let frontier = state.queued.positions().first().copied().unwrap_or_default();
        state.subscriptions.iter().map(|one| (one.pattern.clone(), one.since.max(frontier))).collect()
    }

    /// Starts without reading: these are all that the logs hold for the session up to `clock`, and what came since was
    /// offered. `alone`: on some log, which nobody need have listened to.
    pub(super) fn start_warm(&self, deliveries: Vec<Arc<Delivery>>, clock: Cursor, alone: bool) {
        if let Some(ticket) = self.begin_warm(alone) {
            self.finish_refresh(ticket, Some(&Snapshot { deliveries, upto: clock, truncated: false, lost: None }));
        }
    }

    /// As [`Attachment::begin_refresh`], keeping what the feed has brought since the attachment joined.
    fn begin_warm(&self, alone: bool) -> Option<Ticket> {
        let mut state = self.state.lock();
        // Whatever was told since it joined wants a read.
        if state.end.is_some() || state.generation != 0 || state.resync || !state.due {
            return None;
        }
        state.due = false;
        state.alone = alone;
        Some(Ticket { generation: 0, resync: false, behind: false, company: false })
    }

    /// Merges the logs as read with what the feed brought meanwhile. False when the refresh is void and must run again.
    pub(super) fn finish_refresh(&self, ticket: Ticket, snapshot: Option<&Snapshot>) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return true;
        }
        if state.generation != ticket.generation || state.resync {
            return false;
        }
        state.mode = Mode::Live;
        state.replaying = None;
        if let Some(snapshot) = snapshot {
            if let Some(lost) = snapshot.lost {
                // Up to the first message that is left: whoever is told so must not take that one for old.
                let before_first = |first: &Arc<Delivery>| Cursor::single(Position(first.position.0.saturating_sub(1)));
                let upto = snapshot.deliveries.first().map_or_else(|| snapshot.upto.clone(), before_first);
                // That of a replay, which is told with it, has to be told in any case.
                let lost = if state.gap.is_some() { Cursor::default() } else { Cursor::single(lost) };
                state.gap = Some(Gap { upto, lost });
            }
            for delivery in &snapshot.deliveries {
                state.enqueue(delivery, &self.limits);
            }
            if state.mode == Mode::Live {
                state.queued.raise_all(&snapshot.upto);
                if snapshot.truncated || state.overflowed {
                    state.mode = Mode::Behind;
                }
            }
        }
        let mut held = std::mem::take(&mut state.held);
        // The feed is in order per log; logs of one partition come in order too, but a repaired one may not.
        held.sort_by_key(|delivery| (delivery.partition, delivery.position));
        for delivery in &held {
            state.enqueue(delivery, &self.limits);
        }
        drop(state);
        self.changed.notify_one();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Limits;
    use super::*;
    use crate::engine::{Attached, Epoch, LinkKind, SessionId, Traits};
    use crate::hub::Receiver;

    fn pattern() -> Pattern {
        Pattern::parse("/a").expect("valid")
    }

    /// With a replay of `/a` due from 3 to 9.
    fn attachment() -> Attachment {
        let attached = Attached {
            epoch: Epoch(1),
            version: Version(1),
            subscriptions: vec![Subscription { pattern: pattern(), since: Position(9), replay: Some(Position(3)) }],
            heads: Vec::new(),
            unread: None,
            clock: Cursor::single(Position(10)),
            cursor: Cursor::single(Position(9)),
            ceiling: None,
            first: true,
            traits: Traits::default(),
        };
        let limits = Limits { outbox_messages: 10, outbox_bytes: 1000 };
        let member = crate::hub::MemberId::default();
        Attachment::new(SessionId::random(), attached, LinkKind::Poll, None, member, limits)
    }

    fn finish_empty(attachment: &Attachment, gap: bool) -> bool {
        let ticket = attachment.begin_refresh().expect("due");
        let plan = attachment.next_replay().expect("a replay");
        attachment.finish_replay(ticket, plan, Vec::new(), true, gap)
    }

    fn finish_live(attachment: &Attachment, lost: Option<Position>) {
        let ticket = attachment.begin_refresh().expect("due");
        let upto = Cursor::single(Position(20));
        assert!(
            attachment.finish_refresh(ticket, Some(&Snapshot { deliveries: Vec::new(), upto, truncated: false, lost }))
        );
    }

    /// Nothing is left of a replay but the gap: it is not through before that is told.
    #[test]
    fn a_replay_of_which_nothing_is_left_is_told_of() {
        let attachment = attachment();
        assert!(!finish_empty(&attachment, true));
        assert!(attachment.next_replay().is_none(), "not read again and again");
        attachment.missed(false);
        assert!(!finish_empty(&attachment, true), "found again, as nobody was told");
        let before = attachment.sent();
        finish_live(&attachment, None);
        let batch = attachment.take(1000);
        assert_eq!(batch.gap, Some(Gap::default()));
        assert!(before.replays.is_empty());
        assert_eq!(attachment.sent().replayed(&pattern(), Position(9)), Some(Position(9)));
        attachment.untake(before);
        assert!(!finish_empty(&attachment, true), "the reply that told it did not leave");
    }

    #[test]
    fn the_gaps_of_a_replay_and_of_a_log_are_told_together() {
        let both = attachment();
        assert!(!finish_empty(&both, true));
        finish_live(&both, Some(Position(15)));
        // A client that was told of the second one before must not pass over the first.
        let gap = Gap { upto: Cursor::single(Position(20)), lost: Cursor::default() };
        assert_eq!(both.take(1000).gap, Some(gap));
        let live = attachment();
        assert!(!finish_empty(&live, false));
        finish_live(&live, Some(Position(15)));
        let gap = Gap { upto: Cursor::single(Position(20)), lost: Cursor::single(Position(15)) };
        assert_eq!(live.take(1000).gap, Some(gap));
    }
}
