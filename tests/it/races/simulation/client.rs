//! A simulated client: what it is owed, what it received, and what it did.

use super::*;

/// The replay that a client has asked for last.
pub(super) struct Replaying {
    /// Its subscription's start.
    pub(super) since: Position,
    /// What must come.
    pub(super) expected: Vec<u64>,
    /// What came, in order, with repetitions.
    pub(super) received: Vec<u64>,
    /// The newest position of it that came.
    pub(super) upto: Position,
}

/// How a client confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It repeats the id of a connect that failed.
    Faye,
    /// It says that its last connect failed, under a new id.
    CometD,
    /// As above, with acknowledgements.
    Ack,
    /// It repeats ids, remembers its position, and drops what is not newer.
    Resume,
}

impl Kind {
    pub(super) fn traits(self) -> Traits {
        Traits { ack: self == Self::Ack, resume: self == Self::Resume, replay: false }
    }

    pub(super) fn says_that_it_failed(self) -> bool {
        matches!(self, Self::CometD | Self::Ack)
    }
}

pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) session: RefCell<SessionId>,
    /// The number of the last reply that it got.
    pub(super) acked: Cell<Position>,
    /// The newest position that it processed.
    pub(super) position: RefCell<Cursor>,
    /// Subscriptions whose reply has come, each with a number of its own.
    pub(super) subscribed: RefCell<BTreeMap<&'static str, usize>>,
    pub(super) subscriptions: Cell<usize>,
    /// Where they count from.
    pub(super) started: RefCell<BTreeMap<&'static str, Position>>,
    /// What must come, with the subscriptions that bring it.
    pub(super) owed: RefCell<BTreeMap<u64, BTreeSet<(&'static str, usize)>>>,
    /// What came, in order, with repetitions.
    pub(super) received: RefCell<Vec<u64>>,
    pub(super) replaying: RefCell<Option<Replaying>>,
    /// Nothing was lost or repeated on purpose so far: nothing may come twice.
    pub(super) undisturbed: Cell<bool>,
    /// The last event of its last stream.
    pub(super) last_event: RefCell<Option<LastEvent>>,
    pub(super) next_id: Cell<u64>,
    /// What it did, to be read when a run fails.
    pub(super) history: RefCell<Vec<String>>,
}

impl Client {
    pub(super) fn new(kind: Kind, session: SessionId, start: Cursor) -> Self {
        Self {
            kind,
            session: RefCell::new(session),
            acked: Cell::default(),
            position: RefCell::new(start),
            subscribed: RefCell::default(),
            subscriptions: Cell::default(),
            started: RefCell::default(),
            owed: RefCell::default(),
            received: RefCell::default(),
            replaying: RefCell::default(),
            undisturbed: Cell::new(true),
            last_event: RefCell::default(),
            next_id: Cell::default(),
            history: RefCell::default(),
        }
    }

    pub(super) fn id(&self) -> String {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get().to_string()
    }

    pub(super) fn session(&self) -> SessionId {
        self.session.borrow().clone()
    }

    /// What it says with its next connect.
    pub(super) fn word(&self) -> Option<Word> {
        match self.kind {
            Kind::Faye | Kind::CometD => None,
            Kind::Ack => Some(Word::Ack(self.acked.get())),
            Kind::Resume => Some(Word::At(self.position.borrow().clone())),
        }
    }

    /// Messages arrive.
    pub(super) fn receive(&self, numbers: &[u64], positions: &[Position], replayed: bool) {
        if replayed {
            // What comes of a replay that was given up in the meantime is nobody's.
            let mut replaying = self.replaying.borrow_mut();
            let Some(replaying) = replaying.as_mut() else { return };
            for (number, position) in numbers.iter().zip(positions) {
                if self.kind != Kind::Resume || *position > replaying.upto {
                    replaying.upto = replaying.upto.max(*position);
                    replaying.received.push(*number);
                }
            }
            return;
        }
        let mut received = self.received.borrow_mut();
        for (number, position) in numbers.iter().zip(positions) {
            let mut known = self.position.borrow_mut();
            if self.kind == Kind::Resume && *position <= known.get(PartitionId::default()) {
                continue;
            }
            known.raise(PartitionId::default(), *position);
            received.push(*number);
        }
    }

    pub(super) fn note(&self, what: String) {
        self.history.borrow_mut().push(what);
    }

    pub(super) fn history(&self) -> String {
        self.history.borrow().join("; ")
    }

    /// The subscriptions that bring a message of this channel.
    pub(super) fn matching(&self, channel: &Channel) -> BTreeSet<(&'static str, usize)> {
        let brings = |pattern: &str| Pattern::parse(pattern).expect("valid").matches(channel);
        let subscribed = self.subscribed.borrow();
        subscribed.iter().filter(|(pattern, _)| brings(pattern)).map(|(pattern, number)| (*pattern, *number)).collect()
    }
}
