//! Which ping of a connection stands for which positions, and when the next one is due. Kept by the outlet, under its lock;
//! driven by `connection.rs`, which sends pings by a timer, and by the hub, whose messages carry them where that is possible:
//! a ping of its own costs a wake-up and a write more.
//!
//! States: *unwatched* (nothing is there to be confirmed: the next message wakes the task), *watched* (the task looks when it has
//! said it would; from `carry_from` on a message takes a ping along), *open* (a ping is on its way; its pong watches again).

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Reach;

/// What was sent is pinged after this time, so that a burst costs one ping,
const CONFIRM_AFTER: Duration = Duration::from_millis(250);
/// and up to so much later: those who got the same message must not all ping at the same moment, and delay the next.
const CONFIRM_SPREAD: Duration = Duration::from_millis(250);
/// Pings that confirm are at least so far apart.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// For so long a message is waited for that takes the ping along.
const CARRY_WITHIN: Duration = Duration::from_millis(250);

/// The pings of one connection.
pub(super) struct Pings {
    /// Tokens are decimal counters.
    count: u64,
    sent_at: Instant,
    carry_from: Instant,
    /// The ping that is not answered yet, with what its answer confirms.
    open: Option<(u64, Reach)>,
    /// Something was sent that no ping covers.
    uncovered: bool,
    /// The task will look.
    watched: bool,
    /// The last ping covered something.
    covered: bool,
}

impl Pings {
    /// None sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { count: 0, sent_at: now, carry_from: now, open: None, uncovered: false, watched: false, covered: false }
    }

    /// Whether one is on its way.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether something was sent that neither is covered nor will be looked at.
    pub(super) fn wants_watch(&self) -> bool {
        self.uncovered && !self.watched
    }

    /// Messages were written that no ping covers. True: the task has to know.
    pub(super) fn note_written(&mut self) -> bool {
        let known = std::mem::replace(&mut self.uncovered, true);
        !known && !self.watched
    }

    /// As [`Pings::note_written`], for who can look by himself: whether that is arranged.
    pub(super) fn note_sent(&mut self) -> bool {
        self.uncovered = true;
        self.watched
    }

    /// Whether messages that are written now may take a ping along.
    pub(super) fn may_be_carried(&self) -> bool {
        self.watched && self.open.is_none() && Instant::now() >= self.carry_from
    }

    /// Something was sent: gives when the task has to look, unless the next pong will say so.
    pub(super) fn watch(&mut self) -> Option<Instant> {
        self.watched = true;
        if self.open.is_some() {
            return None;
        }
        let soon = (Instant::now() + CONFIRM_AFTER).max(self.sent_at + CONFIRM_EVERY);
        self.carry_from = soon + CONFIRM_SPREAD.mul_f32(fastrand::f32());
        Some(self.carry_from + CARRY_WITHIN)
    }

    /// The task has looked. Whether a ping is due: for what was sent, or because none was sent for `every`; and then, whether
    /// one is still not answered. If none is due, when to look again.
    pub(super) fn look(&mut self, now: Instant, every: Duration) -> Result<bool, Instant> {
        let last = self.sent_at + every;
        if now >= last || (self.uncovered && self.open.is_none()) {
            return Ok(self.open.is_some());
        }
        // Nothing came: the next message says so.
        self.watched = self.open.is_some();
        Err(last)
    }

    /// A ping is sent now: gives its token. One that is still open stays the one that confirms: a late answer to it must
    /// still count. A new one covers what `sent` says.
    pub(super) fn send(&mut self, now: Instant, sent: impl FnOnce() -> Reach) -> String {
        self.sent_at = now;
        if self.open.is_none() {
            self.count += 1;
            self.open = Some((self.count, sent()));
            self.covered = std::mem::take(&mut self.uncovered);
        }
        self.count.to_string()
    }

    /// A pong came: what it confirms, and when the task has to look, if messages flow. Where none do, the next one says so.
    pub(super) fn answered(&mut self, token: &[u8], every: Duration) -> Option<(Reach, Option<Instant>)> {
        let (_, reach) = self.open.take_if(|(count, _)| token == count.to_string().as_bytes())?;
        if self.covered || self.uncovered {
            let due = self.watch();
            return Some((reach, due.map(|due| due.min(self.sent_at + every))));
        }
        self.watched = false;
        Some((reach, None))
    }

    /// The open ping proves too little, or nothing any more.
    pub(super) fn give_up(&mut self) {
        self.open = None;
    }

    /// What was sent before is nobody's concern any more.
    pub(super) fn forget(&mut self) {
        (self.open, self.uncovered, self.watched) = (None, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(20);

    fn sent(pings: &mut Pings) -> String {
        pings.send(Instant::now(), Reach::default)
    }

    fn answered(pings: &mut Pings, token: &str) -> Option<Instant> {
        pings.answered(token.as_bytes(), EVERY).expect("it is open").1
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_rides_on_a_message_once_it_is_time() {
        let mut pings = Pings::new(Instant::now());
        assert!(!pings.may_be_carried(), "the first message only wakes the task");
        assert!(pings.note_written() && pings.wants_watch());
        let look = pings.watch().expect("no ping is open");
        assert!(!pings.wants_watch() && !pings.may_be_carried());
        assert!(!pings.note_written(), "the task knows");
        tokio::time::advance(look - Instant::now() - CARRY_WITHIN).await;
        assert!(pings.may_be_carried());
        let token = sent(&mut pings);
        assert!(!pings.may_be_carried() && pings.is_open());
        // The look finds that it is done, and what follows is for the pong to watch.
        assert_eq!(pings.look(look, EVERY), Err(pings.sent_at + EVERY));
        assert!(!pings.note_written(), "the pong watches");
        assert_eq!(pings.answered(b"no", EVERY), None);
        let look = answered(&mut pings, &token).expect("messages flow");
        assert!(look >= pings.sent_at + CONFIRM_EVERY + CARRY_WITHIN);
        assert!(!pings.may_be_carried(), "a second lies between two");
        assert_eq!(pings.look(look, EVERY), Ok(false), "what was sent meanwhile is covered by a ping of its own");
        let token = sent(&mut pings);
        let often = Duration::from_millis(50);
        let (_, look) = pings.answered(token.as_bytes(), often).expect("it is open");
        assert_eq!(look, Some(pings.sent_at + often));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nothing_follows_the_next_message_is_news() {
        let mut pings = Pings::new(Instant::now());
        assert!(pings.note_written());
        pings.watch();
        let token = sent(&mut pings);
        let look = answered(&mut pings, &token).expect("messages flow");
        assert_eq!(pings.look(look, EVERY), Err(pings.sent_at + EVERY));
        assert!(pings.note_written(), "nobody looks any more");
        assert!(!pings.may_be_carried());
        pings.forget();
        assert_eq!(pings.look(pings.sent_at + EVERY, EVERY), Ok(false), "keep-alive");
        let token = sent(&mut pings);
        assert_eq!(pings.look(pings.sent_at + EVERY, EVERY), Ok(true), "not answered");
        assert_eq!(answered(&mut pings, &token), None, "nothing flows");
        assert!(pings.note_written());
    }

    /// Where pings are asked for so often that the next one is due before the look.
    #[tokio::test(start_paused = true)]
    async fn a_ping_that_covers_nothing_ends_the_watch() {
        let mut pings = Pings::new(Instant::now());
        assert!(pings.note_written());
        pings.watch();
        for flows in [true, false] {
            let token = sent(&mut pings);
            assert_eq!(answered(&mut pings, &token).is_some(), flows);
            assert_eq!(pings.look(pings.sent_at + EVERY, EVERY), Ok(false));
        }
        assert!(pings.note_written());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_ping_is_repeated_and_confirms_what_it_covered() {
        let mut pings = Pings::new(Instant::now());
        let first = sent(&mut pings);
        assert!(pings.note_written() && pings.wants_watch());
        assert_eq!(pings.watch(), None, "the pong will say");
        let again = pings.send(Instant::now(), || panic!("it covers what it covered"));
        assert_eq!(first, again);
        assert!(answered(&mut pings, &first).is_some(), "there is more to cover");
        assert_eq!(pings.answered(first.as_bytes(), EVERY), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_is_confirmed_by_nothing() {
        for end in [Pings::forget, Pings::give_up] {
            let mut pings = Pings::new(Instant::now());
            assert!(pings.note_written());
            let old = sent(&mut pings);
            end(&mut pings);
            let new = sent(&mut pings);
            assert_ne!(old, new);
            assert_eq!(pings.answered(old.as_bytes(), EVERY), None);
            assert!(pings.answered(new.as_bytes(), EVERY).is_some());
        }
    }
}
