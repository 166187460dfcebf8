//! A simulated client: what it is owed, what it received, and what it did.

use super::*;

pub(super) struct Client {
    pub(super) session: SessionId,
    /// It says that its last connect failed, instead of repeating its id.
    pub(super) cometd: bool,
    /// Subscriptions whose reply has come, each with a number of its own.
    pub(super) subscribed: RefCell<BTreeMap<&'static str, usize>>,
    pub(super) subscriptions: Cell<usize>,
    /// What must come, with the subscriptions that bring it.
    pub(super) owed: RefCell<BTreeMap<u64, BTreeSet<(&'static str, usize)>>>,
    /// What came, in order, with repetitions.
    pub(super) received: RefCell<Vec<u64>>,
    /// Nothing was lost or repeated on purpose so far: nothing may come twice.
    pub(super) undisturbed: Cell<bool>,
    /// The last event of its last stream.
    pub(super) last_event: RefCell<Option<LastEvent>>,
    pub(super) next_id: Cell<u64>,
    /// What it did, to be read when a run fails.
    pub(super) history: RefCell<Vec<String>>,
}

impl Client {
    pub(super) fn new(session: SessionId, cometd: bool) -> Self {
        Self {
            session,
            cometd,
            subscribed: RefCell::default(),
            subscriptions: Cell::default(),
            owed: RefCell::default(),
            received: RefCell::default(),
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
