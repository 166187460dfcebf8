//! What sessions read of the logs: the little that an attach brings, snapshots, replays.

use std::sync::Arc;

use super::super::Announcer;
use super::super::log::Log;
use super::Partition;
use crate::engine::*;

impl Partition {
    /// All that the logs hold past the start, if it is little and nothing is missing.
    pub(super) fn unread(&self, subscriptions: &[Subscription], start: Position) -> Option<Vec<Arc<Delivery>>> {
        let (mut unread, mut bytes) = (Vec::new(), 0);
        for one in subscriptions {
            let tail = self.logs.get(&one.pattern)?.past(one.since.max(start));
            if tail.gap || one.replay.is_some() {
                return None;
            }
            for delivery in tail.deliveries {
                bytes += delivery.array.len();
                if unread.len() == UNREAD_MESSAGES || bytes > UNREAD_BYTES {
                    return None;
                }
                unread.push(Arc::clone(delivery));
            }
        }
        unread.sort_unstable_by_key(|delivery: &Arc<Delivery>| delivery.position);
        unread.dedup_by_key(|delivery| delivery.position);
        Some(unread)
    }

    pub(in super::super) fn replay(&mut self, request: &ReplayRequest<'_>, announcer: &mut Announcer<'_>) -> Replay {
        let Some(session) = self.sessions.get_mut(request.session) else { return Replay::Unknown };
        if session.epoch != request.epoch {
            return Replay::Stale;
        }
        let due = session.subscriptions.get_mut(request.pattern).filter(|start| start.since == request.since);
        let (true, Some(start)) = (session.version == request.version, due) else { return Replay::Outdated };
        let log = self.logs.get(request.pattern);
        let gap = log.is_none_or(|log| log.past(request.from).gap);
        if gap && !session.traits.resume {
            return self.end(request.session, Ended::Gap, announcer).map_or(Replay::Unknown, Replay::Gap);
        }
        let found = log.into_iter().flat_map(|log| log.past(request.from).deliveries);
        let mut found = found.take_while(|delivery| delivery.position <= request.since).peekable();
        let (mut deliveries, mut bytes) = (Vec::new(), 0);
        while let Some(delivery) = found.next_if(|delivery| {
            let fits = deliveries.len() < request.max_messages && bytes + delivery.array.len() <= request.max_bytes;
            fits || deliveries.is_empty()
        }) {
            bytes += delivery.array.len();
            deliveries.push(Arc::clone(delivery));
        }
        let through = found.peek().is_none();
        // A gap is told until the client is past it.
        if deliveries.is_empty() && !gap {
            start.replay = None;
        }
        Replay::Chunk { deliveries, through, gap }
    }

    pub(in super::super) fn read(&mut self, request: &ReadRequest<'_>, announcer: &mut Announcer<'_>) -> Read {
        let Some(session) = self.sessions.get(request.session) else { return Read::Unknown };
        if session.epoch != request.epoch {
            return Read::Stale;
        }
        if session.version != request.version {
            return Read::Outdated;
        }
        let is_told = session.traits.resume;
        match self.snapshot(request) {
            Some(snapshot) if is_told || snapshot.lost.is_none() => Read::Snapshot(snapshot),
            _ => self.end(request.session, Ended::Gap, announcer).map_or(Read::Unknown, Read::Gap),
        }
    }

    /// All logs of the request at this moment; `None` when one of them is not there.
    fn snapshot(&self, request: &ReadRequest<'_>) -> Option<Snapshot> {
        let (mut found, mut lost): (Vec<&Arc<Delivery>>, _) = (Vec::new(), None);
        for (pattern, from) in request.from {
            let tail = self.logs.get(pattern)?.past(*from);
            lost = lost.max(tail.gap.then_some(tail.whole_past));
            // One more than may be given tells that there is more. What lies past a log's cut lies past the cut of all
            // logs together, because that many messages lie before it.
            found.extend(tail.deliveries.take(request.max_messages + 1));
        }
        found.sort_unstable_by_key(|delivery| delivery.position);
        found.dedup_by_key(|delivery| delivery.position);
        let mut bytes = 0;
        let mut fits = |index: usize, delivery: &Arc<Delivery>| {
            bytes += delivery.array.len();
            index < request.max_messages && (index == 0 || bytes <= request.max_bytes)
        };
        let count = found.iter().enumerate().take_while(|(index, delivery)| fits(*index, delivery)).count();
        let truncated = count < found.len();
        let deliveries: Vec<_> = found[..count].iter().map(|delivery| Arc::clone(delivery)).collect();
        let last = deliveries.last().map(|delivery| delivery.position);
        let upto = if truncated { last.unwrap_or_default() } else { self.clock };
        Some(Snapshot { deliveries, upto: Cursor::single(upto), truncated, lost })
    }
}

/// Where a replay starts that a subscription from `since` on wishes.
pub(super) fn replay_start(log: Option<&Log>, wish: ReplayWish, since: Position, now: u64) -> ReplayStart {
    let Some(log) = log else {
        // Nothing is kept; of what was before, nothing is known.
        return ReplayStart { from: since, gap: wish.after.is_some_and(|after| after < since) };
    };
    let kept_past = log.kept_past(wish.retention, now);
    // A gap that lies before its start is told now, and not again.
    let start = |past: Position| log.past(past).whole_past.min(since);
    let Some(after) = wish.after else { return ReplayStart { from: start(kept_past), gap: false } };
    let after = after.min(since);
    let mut tail = log.past(after);
    let dropped = tail.deliveries.next().is_some_and(|first| first.position <= kept_past);
    ReplayStart { from: start(after.max(kept_past)), gap: tail.gap || dropped }
}
