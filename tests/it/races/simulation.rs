//! Random operations on three nodes that share an engine: clients that poll, repeat, overlap, switch to sockets and lose
//! replies; publishers; subscriptions that come and go; feeds that break. Afterwards every message that a session was
//! owed has come, and each channel's in order.
//!
//! Each run follows from its seed. `SIMULATION_SEED=n` replays one run, `SIMULATION_RUNS=n` searches through more.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::*;

const CHANNELS: [&str; 4] = ["/a/b", "/a/c", "/d", "/e/f/g"];
const PATTERNS: [&str; 7] = ["/a/b", "/a/*", "/a/**", "/d", "/**", "/e/**", "/e/f/g"];
const CLIENTS: usize = 4;
const STEPS: usize = 120;

struct Run {
    nodes: Vec<TestNode>,
    random: RefCell<fastrand::Rng>,
    clients: Vec<Client>,
    /// Channel of each number published.
    published: RefCell<Vec<&'static str>>,
}

struct Client {
    session: SessionId,
    /// Subscriptions whose reply has come, each with a number of its own.
    subscribed: RefCell<BTreeMap<&'static str, usize>>,
    subscriptions: RefCell<usize>,
    /// What must come, with the subscriptions that bring it.
    owed: RefCell<BTreeMap<u64, BTreeSet<(&'static str, usize)>>>,
    /// What came, in order, with repetitions.
    received: RefCell<Vec<u64>>,
    /// Nothing was lost or repeated on purpose so far: nothing may come twice.
    undisturbed: RefCell<bool>,
    next_id: RefCell<u64>,
    /// What it did, to be read when a run fails.
    history: RefCell<Vec<String>>,
}

impl Run {
    fn chance(&self, percent: u32) -> bool {
        self.random.borrow_mut().u32(0..100) < percent
    }

    fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().usize(0..bound)
    }

    fn node(&self) -> &TestNode {
        &self.nodes[self.below(self.nodes.len())]
    }

    async fn publish(&self) {
        let channel = CHANNELS[self.below(CHANNELS.len())];
        let number = self.published.borrow().len() as u64;
        self.published.borrow_mut().push(channel);
        let parsed = Channel::parse(channel).expect("valid");
        // Owed by each subscription that is there before it is stored and still is afterwards.
        let before: Vec<_> = self.clients.iter().map(|client| client.matching(&parsed)).collect();
        self.node().publish(channel, number).await;
        for (client, before) in self.clients.iter().zip(before) {
            let bring: BTreeSet<_> = client.matching(&parsed).intersection(&before).copied().collect();
            if !bring.is_empty() {
                client.owed.borrow_mut().insert(number, bring);
            }
        }
    }

    async fn resubscribe(&self, client: &Client) {
        let pattern = PATTERNS[self.below(PATTERNS.len())];
        let number = client.subscribed.borrow().get(pattern).copied();
        if let Some(number) = number.filter(|_| self.chance(50)) {
            client.subscribed.borrow_mut().remove(pattern);
            client.note(format!("unsubscribe {pattern}"));
            self.node().unsubscribe(&client.session, pattern).await;
            // What only this pattern brought need not come any more.
            client.owed.borrow_mut().retain(|_, bring| {
                bring.remove(&(pattern, number));
                !bring.is_empty()
            });
        } else {
            self.node().subscribe(&client.session, pattern).await;
            *client.subscriptions.borrow_mut() += 1;
            let number = *client.subscriptions.borrow();
            client.subscribed.borrow_mut().entry(pattern).or_insert(number);
            client.note(format!("subscribed {pattern}"));
        }
    }

    /// One connect by polling, with whatever can go wrong on the way.
    async fn poll(&self, client: &Client) {
        let id = client.id();
        // Three complete writes under one id confirm: more losses than these nobody can tell from a constant id.
        let mut unnoticed = 0;
        loop {
            let hold = Duration::from_millis(self.random.borrow_mut().u64(0..20));
            let poll = self.node().poll_for(&client.session, &id, hold);
            let mut copy = None;
            if self.chance(10) {
                *client.undisturbed.borrow_mut() = false;
                copy = Some(self.node().poll_for(&client.session, &id, hold));
            }
            client.note(format!("poll {id}{}", if copy.is_some() { " and a copy" } else { "" }));
            let mut reply = poll.await.expect("no panic");
            client.note(format!("poll {id}: {}", reply.name()));
            if let Some(copy) = copy {
                // The client listens to one of the two only.
                let other = copy.await.expect("no panic");
                client.note(format!("copy of {id}: {}", other.name()));
                if matches!(reply, Answer::Hangup) {
                    reply = other;
                }
            }
            match reply {
                Answer::Messages(numbers, receipt) => {
                    if self.chance(15) {
                        *client.undisturbed.borrow_mut() = false;
                        // The reply is lost; the node notices, or does not.
                        client.note(format!("lost {numbers:?}"));
                        if self.chance(50) || unnoticed == 2 {
                            drop(receipt);
                        } else {
                            unnoticed += 1;
                            receipt.written();
                        }
                        continue;
                    }
                    receipt.written();
                    client.note(format!("received {numbers:?}"));
                    client.received.borrow_mut().extend(numbers);
                    return;
                }
                Answer::Empty => return,
                Answer::Hangup => {}
                Answer::Released | Answer::Unknown => panic!("the session must live"),
            }
        }
    }

    /// A socket for a while: takes, confirms some of it, and ends in one way or another.
    async fn socket(&self, client: &Client) {
        let node = self.node();
        let id = client.id();
        let held = node.attach(&client.session, Link::Socket { connect_id: Some(&id), retry: false }).await;
        client.note(format!("socket {id}"));
        for _ in 0..self.below(6) {
            let step = tokio::time::timeout(Duration::from_millis(20), held.next()).await;
            match step {
                Ok(Step::Ready) => {
                    let numbers = numbers(&held.take(200));
                    client.note(format!("socket received {numbers:?}"));
                    client.received.borrow_mut().extend(numbers);
                    if self.chance(60) {
                        held.confirm(&held.sent());
                    }
                }
                Ok(Step::Refresh) => node.sessions.refresh(held.attachment()).await.expect("the engine answers"),
                Ok(Step::Ended(_)) => break,
                Err(_) => {}
            }
        }
        client.note(format!("socket {id} ends {:?}", held.ended()));
        if self.chance(50) {
            // In order, but not all that was sent may have been confirmed.
            *client.undisturbed.borrow_mut() &= held.ended().is_none();
            held.confirm(&held.sent());
            held.detach(Progress::Confirmed).await.expect("detached");
        } else {
            *client.undisturbed.borrow_mut() = false;
            drop(held);
        }
    }

    async fn trouble(&self) {
        let node = self.node();
        if self.chance(50) {
            node.break_feed().await;
            self.publish().await;
            node.restore_feed().await;
        } else {
            node.sessions.commit().await;
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    }
}

impl Client {
    fn id(&self) -> String {
        *self.next_id.borrow_mut() += 1;
        format!("{}", self.next_id.borrow())
    }

    fn note(&self, what: String) {
        self.history.borrow_mut().push(what);
    }

    /// The subscriptions that bring a message of this channel.
    fn matching(&self, channel: &Channel) -> BTreeSet<(&'static str, usize)> {
        let brings = |pattern: &str| Pattern::parse(pattern).expect("valid").matches(channel);
        let subscribed = self.subscribed.borrow();
        subscribed.iter().filter(|(pattern, _)| brings(pattern)).map(|(pattern, number)| (*pattern, *number)).collect()
    }

    fn assert_served(&self, published: &[&'static str]) {
        let received = self.received.borrow();
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        let lost: Vec<_> = self.owed.borrow().keys().filter(|number| !distinct.contains(number)).copied().collect();
        let history = || self.history.borrow().join("; ");
        assert!(lost.is_empty(), "lost {lost:?}: {}", history());
        let mut first_seen = BTreeSet::new();
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for number in received.iter().filter(|number| first_seen.insert(**number)) {
            let before = newest.insert(published[*number as usize], *number);
            assert!(before.is_none_or(|before| before < *number), "{number} after {before:?}: {}", history());
        }
        if *self.undisturbed.borrow() {
            assert_eq!(received.len(), distinct.len(), "twice without a failure: {}", history());
        }
    }
}

async fn run(seed: u64) {
    let world = super::World::on_memory();
    let limits = Limits { outbox_messages: 5, outbox_bytes: 1 << 20 };
    let mut nodes = Vec::new();
    for index in 0..3 {
        nodes.push(world.node_with(limits, Gates::jittery(seed ^ index)).await);
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client {
            session: nodes[0].session(&[]).await,
            subscribed: RefCell::default(),
            subscriptions: RefCell::default(),
            owed: RefCell::default(),
            received: RefCell::default(),
            undisturbed: RefCell::new(true),
            next_id: RefCell::default(),
            history: RefCell::default(),
        });
    }
    let random = RefCell::new(fastrand::Rng::with_seed(seed));
    let world = Rc::new(Run { nodes, random, clients, published: RefCell::default() });

    let local = tokio::task::LocalSet::new();
    let mut actors = Vec::new();
    for index in 0..CLIENTS {
        let world = world.clone();
        actors.push(local.spawn_local(async move {
            let client = &world.clients[index];
            for _ in 0..STEPS / 4 {
                match world.below(10) {
                    0 | 1 => world.resubscribe(client).await,
                    2 | 3 => world.socket(client).await,
                    _ => world.poll(client).await,
                }
            }
        }));
    }
    let publisher = world.clone();
    actors.push(local.spawn_local(async move {
        for _ in 0..STEPS {
            publisher.publish().await;
            if publisher.chance(30) {
                tokio::time::sleep(Duration::from_millis(publisher.below(10) as u64)).await;
            }
            if publisher.chance(5) {
                publisher.trouble().await;
            }
        }
    }));
    let everything = async {
        for actor in actors {
            actor.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        for client in &world.clients {
            // What is still due comes with the next polls.
            let mut empty = 0;
            while empty < 2 {
                let numbers = world.nodes[empty].poll_now(&client.session, &client.id()).await;
                empty = if numbers.is_empty() { empty + 1 } else { 0 };
                client.received.borrow_mut().extend(numbers);
            }
            client.assert_served(&world.published.borrow());
        }
    };
    local.run_until(super::super::support::within(Duration::from_secs(600), "the run ends", everything)).await;
}

#[test]
fn nothing_is_lost_in_random_runs() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_RUNS").unwrap_or(300),
    };
    let mut failed = BTreeMap::new();
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            failed.insert(seed, panic.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    assert!(failed.is_empty(), "failing seeds (replay with SIMULATION_SEED=n): {failed:#?}");
}
