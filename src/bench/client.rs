//! A client without its connection: its session, what it published and what it received. The same for WebSocket and
//! long-polling.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::local::Local;
use super::plan::Rate;
use super::stamp::Stamp;
use super::tracker::{Seen, Tracker};
use super::words::{Answer, Kind};

/// Publishes of one client that may wait for their answers. Beyond, nothing is sent.
const PENDING: usize = 100_000;

/// What a client is there for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// Which subscriber it is, if it is one.
    pub subscriber: Option<u32>,
    /// Which publisher it is, if it is one.
    pub publisher: Option<u32>,
    /// It comes and goes: nothing before its first and after its last message is expected.
    pub passing: bool,
}

/// What a subscriber has received.
struct Receiver {
    /// It wants the streams whose number leaves `residue` when divided by `modulus`.
    modulus: u32,
    residue: u32,
    passing: bool,
    /// One for each stream that it wants; empty until something comes.
    trackers: Vec<Tracker>,
}

/// What a publisher waits for.
#[derive(Default)]
struct Pending {
    stream: u32,
    number: u64,
    due: u64,
}

/// See the module.
pub(super) struct Client {
    pub local: Rc<Local>,
    pub role: Role,
    session: RefCell<Box<str>>,
    ids: Cell<u64>,
    receiver: Option<Box<RefCell<Receiver>>>,
    pending: Option<Box<RefCell<HashMap<u64, Pending>>>>,
}

impl Client {
    pub(super) fn new(local: Rc<Local>, role: Role) -> Self {
        let load = &local.shared.load;
        let modulus = load.clients.min(load.channels);
        let receiver = role.subscriber.map(|subscriber| {
            let residue = subscriber % modulus;
            Box::new(RefCell::new(Receiver { modulus, residue, passing: role.passing, trackers: Vec::new() }))
        });
        let pending = role.publisher.map(|_| Box::default());
        Self { role, session: RefCell::default(), ids: Cell::new(0), receiver, pending, local }
    }

    /// The session's name.
    pub(super) fn session(&self) -> Box<str> {
        self.session.borrow().clone()
    }

    /// Begins a session.
    pub(super) fn set_session(&self, session: Box<str>) {
        *self.session.borrow_mut() = session;
    }

    /// A number for the next message.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// The channels that it subscribes to.
    pub(super) fn channels(&self) -> Vec<String> {
        let shared = &self.local.shared;
        let Some(receiver) = &self.receiver else { return Vec::new() };
        let Receiver { modulus, residue, .. } = *receiver.borrow();
        (residue..shared.load.channels).step_by(modulus as usize).map(|index| shared.channel(index)).collect()
    }

    /// It stands: from now on messages for it are expected.
    pub(super) fn stands(&self) {
        let live = self.local.live();
        live.standing.fetch_add(1, Ordering::Relaxed);
        let shared = &self.local.shared;
        if let (Some(receiver), false) = (&self.receiver, self.role.passing) {
            let Receiver { modulus, residue, .. } = *receiver.borrow();
            for channel in shared.receivers.iter().skip(residue as usize).step_by(modulus as usize) {
                channel.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes in what came: counts deliveries, settles publishes, and gives all other answers to `each`.
    pub(super) fn take_in(&self, payload: &[u8], mut each: impl FnMut(Answer)) {
        let shared = &self.local.shared;
        let now = shared.now();
        if let Some(receiver) = &self.receiver {
            let mut receiver = receiver.borrow_mut();
            shared.stamps.find(payload, |stamp| self.receive(&mut receiver, stamp, now));
        }
        let read = shared.words.answers(payload, |answer| match (answer.kind, answer.id, &self.pending) {
            (Kind::Publish, Some(id), Some(pending)) => self.settle(pending, id, answer.successful, now),
            (Kind::Publish, ..) => {}
            _ => each(answer),
        });
        if let Err(error) = read {
            *self.local.live().failure.lock() = Some(format!("an answer that cannot be read: {error}"));
        }
    }

    fn receive(&self, receiver: &mut Receiver, stamp: Stamp, now: u64) {
        let shared = &self.local.shared;
        let mut counts = self.local.counts.borrow_mut();
        let live = self.local.live();
        live.delivered.fetch_add(1, Ordering::Relaxed);
        if stamp.stream % receiver.modulus != receiver.residue || stamp.stream >= shared.load.streams() {
            counts.unexpected += 1;
            return;
        }
        receiver.reserve(shared.load.streams());
        let tracker = &mut receiver.trackers[(stamp.stream / receiver.modulus) as usize];
        if receiver.passing {
            counts.churn_delivered += 1;
            if tracker.is_new() {
                *tracker = Tracker::from(stamp.number);
            }
        }
        match tracker.see(stamp.number) {
            Seen::Again => {
                counts.duplicate += 1;
                return;
            }
            Seen::Late => counts.out_of_order += 1,
            Seen::New => {}
        }
        if receiver.passing {
            return;
        }
        live.unique.fetch_add(1, Ordering::Relaxed);
        let latency = now.saturating_sub(stamp.due).max(1);
        if shared.measures(stamp.due) {
            counts.latency.saturating_record(latency);
        }
        live.interval.lock().saturating_record(latency);
        self.part_done(stamp.stream, stamp.number);
    }

    fn part_done(&self, stream: u32, number: u64) {
        let shared = &self.local.shared;
        if !shared.in_flight.is_empty() {
            let (publisher, place) = shared.place(stream, number);
            shared.in_flight[publisher].done(place);
        }
    }

    fn settle(&self, pending: &RefCell<HashMap<u64, Pending>>, id: u64, successful: bool, now: u64) {
        let Some(Pending { stream, number, due }) = pending.borrow_mut().remove(&id) else { return };
        let (shared, live) = (&self.local.shared, self.local.live());
        live.unanswered.fetch_sub(1, Ordering::Relaxed);
        if successful {
            if shared.measures(due) {
                self.local.counts.borrow_mut().publish_latency.saturating_record(now.saturating_sub(due).max(1));
            }
            self.part_done(stream, number);
        } else {
            live.refused.fetch_add(1, Ordering::Relaxed);
            self.exclude(stream, number);
        }
    }

    /// Nobody expects this message.
    fn exclude(&self, stream: u32, number: u64) {
        let shared = &self.local.shared;
        shared.streams[stream as usize].excluded.lock().push(number);
        if !shared.in_flight.is_empty() {
            let (publisher, place) = shared.place(stream, number);
            shared.in_flight[publisher].cancel(place);
        }
    }

    /// Whether it may publish more.
    pub(super) fn may_publish(&self, messages: usize) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.borrow().len() + messages <= PENDING)
    }

    /// Appends a publish of messages: the stream of each, and when it was due. They count as sent. Returns their ids.
    pub(super) fn compose(&self, out: &mut Vec<u8>, messages: &[(u32, u64)]) -> Vec<u64> {
        let (shared, live) = (&self.local.shared, self.local.live());
        let now = shared.now();
        let mut ids = Vec::with_capacity(messages.len());
        let mut all = Vec::with_capacity(messages.len());
        for &(stream, due) in messages {
            let number = shared.streams[stream as usize].published.fetch_add(1, Ordering::Relaxed);
            let id = self.next_id();
            if let Some(pending) = &self.pending {
                pending.borrow_mut().insert(id, Pending { stream, number, due });
            }
            if shared.load.rate == Rate::Max {
                let (publisher, place) = shared.place(stream, number);
                // The answer to the publish is a part of its own.
                shared.in_flight[publisher].begin(place, shared.expecting(stream) + 1);
            }
            if shared.measures(due) {
                self.local.counts.borrow_mut().lag.saturating_record(now.saturating_sub(due).max(1));
            }
            ids.push(id);
            all.push((id, shared.channel(stream % shared.load.channels), Stamp { stream, number, due }));
        }
        live.published.fetch_add(messages.len() as u64, Ordering::Relaxed);
        live.unanswered.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let session = self.session.borrow();
        let each = all.iter().map(|(id, channel, stamp)| (*id, channel.as_str(), *stamp));
        shared.words.publish(out, &session, &shared.stamps, each);
        ids
    }

    /// Gives up publishes whose answers do not come: all, or those with these ids.
    pub(super) fn give_up(&self, ids: Option<&[u64]>) {
        let Some(pending) = &self.pending else { return };
        let mut pending = pending.borrow_mut();
        let lost: Vec<_> = match ids {
            Some(ids) => ids.iter().filter_map(|id| pending.remove(id)).collect(),
            None => pending.drain().map(|(_, lost)| lost).collect(),
        };
        self.local.counts.borrow_mut().unanswered += lost.len() as u64;
        self.local.live().unanswered.fetch_sub(lost.len() as u64, Ordering::Relaxed);
        for Pending { stream, number, .. } in lost {
            self.exclude(stream, number);
        }
    }

    /// How many messages it missed.
    pub(super) fn missing(&self) -> u64 {
        let Some(receiver) = &self.receiver else { return 0 };
        let mut receiver = receiver.borrow_mut();
        let shared = &self.local.shared;
        if receiver.passing {
            return receiver.trackers.iter().map(Tracker::missing_between).sum();
        }
        receiver.reserve(shared.streams.len() as u32);
        let Receiver { modulus, residue, .. } = *receiver;
        let streams = shared.streams.iter().skip(residue as usize).step_by(modulus as usize);
        streams
            .zip(&receiver.trackers)
            .map(|(stream, tracker)| {
                let mut excluded = stream.excluded.lock();
                excluded.sort_unstable();
                tracker.missing(stream.published.load(Ordering::Relaxed), &excluded)
            })
            .sum()
    }
}

impl Receiver {
    /// Makes the trackers, if there are none.
    fn reserve(&mut self, streams: u32) {
        if self.trackers.is_empty() {
            self.trackers.resize(streams.div_ceil(self.modulus) as usize, Tracker::default());
        }
    }
}
