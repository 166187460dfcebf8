//! Random operations on three nodes that share an engine: clients that poll, repeat, overlap, cut their polls, switch to
//! sockets and streams and lose replies, in Faye's way and in CometD's, with acknowledgements and with resume, under new
//! sessions too, and with replays; publishers that send again what was not acknowledged; subscriptions that come and go;
//! nodes that crash or stop in order; feeds and connections that are cut; a Redis that stands still. Afterwards every
//! message that a client was owed has come, each channel's in the order in which they were stored, twice only where
//! something failed, and never twice to a client that resumes.
//!
//! Each run follows from its seed. `SIMULATION_SEED=n` replays one run, `SIMULATION_RUNS=n` searches through more. On the
//! memory engine a seed gives the same run each time; a real Redis adds its own timing to it.

mod client;
mod connections;
mod faults;
mod outlet;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use self::client::{Client, Kind, Replaying};
use super::*;
use crate::support::within;

const CHANNELS: [&str; 4] = ["/a/b", "/a/c", "/d", "/e/f/g"];
const PATTERNS: [&str; 7] = ["/a/b", "/a/*", "/a/**", "/d", "/**", "/e/**", "/e/f/g"];
const NODES: u64 = 3;
const KINDS: [Kind; 6] = [Kind::Faye, Kind::CometD, Kind::Ack, Kind::Resume, Kind::Faye, Kind::Resume];
const STEPS: usize = 120;

struct Run {
    world: World,
    nodes: RefCell<Vec<Rc<Member>>>,
    random: RefCell<fastrand::Rng>,
    clients: Vec<Client>,
    /// Channel of each number published.
    published: RefCell<Vec<&'static str>>,
    /// Acknowledged numbers of the channel that is kept, in the order of their acknowledgement.
    kept: RefCell<Vec<u64>>,
    /// Where each acknowledged number was stored.
    stored: RefCell<HashMap<u64, Position>>,
    /// Nodes started so far: each has random delays of its own.
    started: Cell<u64>,
    seed: u64,
}

/// The channel that is kept for subscribers to come.
const KEPT: &str = "/d";
const RETENTION: Retention = Retention { age: Duration::from_secs(3600), length: 100_000 };

/// A node, and whether it has crashed.
struct Member {
    node: TestNode,
    crashed: CancellationToken,
}

impl Member {
    /// What comes of a call; nothing if the node crashes before.
    async fn call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = call => Some(outcome),
            () = self.crashed.cancelled() => None,
        }
    }
}

impl Run {
    fn chance(&self, percent: u32) -> bool {
        self.random.borrow_mut().u32(0..100) < percent
    }

    fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().usize(0..bound)
    }

    fn node(&self) -> Rc<Member> {
        self.nodes.borrow()[self.below(NODES as usize)].clone()
    }

    async fn start_node(&self) -> Rc<Member> {
        let number = self.started.replace(self.started.get() + 1);
        let limits = Limits { outbox_messages: 5, outbox_bytes: 1 << 20 };
        let node = self.world.node_with(limits, Gates::jittery(self.seed ^ number)).await;
        Rc::new(Member { node, crashed: CancellationToken::new() })
    }

    async fn publish(&self) {
        let channel = CHANNELS[self.below(CHANNELS.len())];
        let number = self.published.borrow().len() as u64;
        self.published.borrow_mut().push(channel);
        let parsed = Channel::parse(channel).expect("valid");
        // Owed by each subscription that is there before it is stored and still is afterwards.
        let before: Vec<_> = self.clients.iter().map(|client| client.matching(&parsed)).collect();
        let array: bytes::Bytes = format!("[{{\"channel\":\"{channel}\",\"data\":{number}}}]").into();
        let fingerprint = Some(Fingerprint(u128::from(number).to_le_bytes()));
        loop {
            let member = self.node();
            let retention = (channel == KEPT).then_some(RETENTION);
            let publication = Publication { fingerprint, retention, ..Publication::new(parsed.clone(), array.clone()) };
            match member.call(member.node.store.publish(publication)).await {
                Some(Ok(Published::Stored(position))) => {
                    self.stored.borrow_mut().insert(number, position);
                    break;
                }
                // An earlier try of this one; where it was stored nobody knows.
                Some(Ok(Published::Repeated)) => break,
                // Sent again, through whichever node.
                Some(Err(_)) | None if self.chance(60) => {}
                // Not acknowledged, not owed: it may come all the same.
                Some(Err(_)) | None => return,
            }
        }
        if channel == KEPT {
            self.kept.borrow_mut().push(number);
        }
        for (client, before) in self.clients.iter().zip(before) {
            let bring: BTreeSet<_> = client.matching(&parsed).intersection(&before).copied().collect();
            if !bring.is_empty() {
                client.owed.borrow_mut().insert(number, bring);
            }
        }
    }

    async fn resubscribe(&self, client: &Client) {
        let pattern = PATTERNS[self.below(PATTERNS.len())];
        let parsed = Pattern::parse(pattern).expect("valid");
        let number = client.subscribed.borrow().get(pattern).copied();
        if let Some(number) = number.filter(|_| self.chance(50)) {
            client.subscribed.borrow_mut().remove(pattern);
            client.started.borrow_mut().remove(pattern);
            if pattern == KEPT {
                *client.replaying.borrow_mut() = None;
            }
            client.note(format!("unsubscribe {pattern}"));
            // What only this pattern brought need not come any more.
            client.owed.borrow_mut().retain(|_, bring| {
                bring.remove(&(pattern, number));
                !bring.is_empty()
            });
            loop {
                let member = self.node();
                if let Some(Ok(_)) = member.call(member.node.store.unsubscribe(&client.session(), &parsed)).await {
                    return;
                }
            }
        }
        let replays = pattern == KEPT && number.is_none();
        let wish = replays.then_some(ReplayWish { after: None, retention: RETENTION });
        let expected = self.kept.borrow().clone();
        if replays {
            *client.replaying.borrow_mut() =
                Some(Replaying { since: Position(0), expected, received: Vec::new(), upto: Position(0) });
        }
        loop {
            let member = self.node();
            if let Some(Ok(outcome)) =
                member.call(member.node.store.subscribe(&client.session(), &parsed, 100, wish)).await
            {
                let (Subscribe::Added { since, replay } | Subscribe::Kept { since, replay }) = outcome else {
                    panic!("{outcome:?}: {}", client.history())
                };
                client.started.borrow_mut().insert(pattern, since);
                if let Some(replaying) = client.replaying.borrow_mut().as_mut().filter(|_| replays) {
                    replaying.since = since;
                    // As a client knows it, from the reply. One that was through before its answer came has had it all.
                    let start = replay.map_or(since, |start| start.from);
                    replaying.upto = replaying.upto.max(start);
                }
                break;
            }
        }
        client.subscriptions.set(client.subscriptions.get() + 1);
        let number = client.subscriptions.get();
        client.subscribed.borrow_mut().entry(pattern).or_insert(number);
        client.note(format!("subscribed {pattern}"));
    }

    fn assert_served(&self, client: &Client) {
        let received = client.received.borrow();
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        let lost: Vec<_> = client.owed.borrow().keys().filter(|number| !distinct.contains(number)).copied().collect();
        assert!(lost.is_empty(), "lost {lost:?}: {}", client.history());
        if let Some(replaying) = client.replaying.borrow().as_ref() {
            let distinct: BTreeSet<u64> = replaying.received.iter().copied().collect();
            let lost: Vec<_> = replaying.expected.iter().filter(|number| !distinct.contains(number)).collect();
            assert!(lost.is_empty(), "of a replay, lost {lost:?}: {}", client.history());
            if client.undisturbed.get() || client.kind == Kind::Resume {
                let (all, twice) = (&replaying.received, replaying.received.len() - distinct.len());
                assert_eq!(twice, 0, "replayed twice, of {all:?}: {}", client.history());
            }
        }
        let mut first_seen = BTreeSet::new();
        let mut newest: HashMap<&str, Position> = HashMap::new();
        let (stored, published) = (self.stored.borrow(), self.published.borrow());
        for number in received.iter().filter(|number| first_seen.insert(**number)) {
            let Some(position) = stored.get(number) else { continue };
            let before = newest.insert(published[*number as usize], *position);
            assert!(before.is_none_or(|before| before < *position), "{number} out of order: {}", client.history());
        }
        if client.undisturbed.get() || client.kind == Kind::Resume {
            assert_eq!(received.len(), distinct.len(), "twice without a failure: {}", client.history());
        }
    }
}

async fn run(seed: u64, world: World) {
    let random = RefCell::new(fastrand::Rng::with_seed(seed));
    let mut run = Run {
        world,
        nodes: RefCell::default(),
        random,
        clients: Vec::new(),
        published: RefCell::default(),
        stored: RefCell::default(),
        kept: RefCell::default(),
        started: Cell::new(0),
        seed,
    };
    for _ in 0..NODES {
        let node = run.start_node().await;
        run.nodes.borrow_mut().push(node);
    }
    for kind in KINDS {
        let session = SessionId::random();
        let creation = Creation { traits: kind.traits(), ..Creation::new(&session, LIFETIME, 1000) };
        let created = run.node().node.store.create(creation).await;
        let Ok(Create::Created(start)) = created else { panic!("expected a session, got {created:?}") };
        run.clients.push(Client::new(kind, session, start));
    }
    let run = Rc::new(run);
    let local = tokio::task::LocalSet::new();
    let mut actors = Vec::new();
    for index in 0..KINDS.len() {
        let run = run.clone();
        actors.push(local.spawn_local(async move {
            let client = &run.clients[index];
            for _ in 0..STEPS / 4 {
                match run.below(12) {
                    0 | 1 => run.resubscribe(client).await,
                    2 | 3 => run.socket(client).await,
                    // No client that acknowledges knows streams.
                    4 if client.kind != Kind::Ack => run.stream(client).await,
                    5 if client.kind == Kind::Resume && run.chance(50) => run.start_over(client).await,
                    _ => run.poll(client).await,
                }
            }
        }));
    }
    for trouble in [5, 0] {
        let run = run.clone();
        actors.push(local.spawn_local(async move {
            for _ in 0..STEPS / 2 {
                run.publish().await;
                if run.chance(30) {
                    tokio::time::sleep(Duration::from_millis(run.below(10) as u64)).await;
                }
                if run.chance(2 * trouble) {
                    run.trouble().await;
                }
            }
        }));
    }
    let everything = async {
        for actor in actors {
            actor.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        for client in &run.clients {
            // What is still due comes with the next polls.
            let mut empty = 0;
            while empty < 2 {
                let member = run.nodes.borrow()[empty].clone();
                let poll = member.node.poll_with(&client.session(), &client.id(), Duration::ZERO, false, client.word());
                let numbers = match poll.await {
                    Ok(Answer::Messages(numbers, receipt, told)) => {
                        receipt.written();
                        client.receive(&numbers, &told.positions, told.replayed);
                        client.acked.set(told.upto.get(PartitionId::default()));
                        numbers
                    }
                    Ok(Answer::Empty) => Vec::new(),
                    // The poll before it may have left something under way.
                    Ok(Answer::Hangup | Answer::Unavailable) => continue,
                    Ok(other) => panic!("{}: {}", other.name(), client.history()),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                client.note(format!("finally {numbers:?}"));
                empty = if numbers.is_empty() { empty + 1 } else { 0 };
            }
            run.assert_served(client);
        }
    };
    local.run_until(within(Duration::from_secs(600), "the run ends", everything)).await;
}

/// Runs the seeds that the environment names, or so many; panics with those that failed.
fn search(runs: u64, one: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_RUNS").unwrap_or(runs),
    };
    let mut failed = BTreeMap::new();
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| one(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned();
            failed.insert(
                seed,
                text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default(),
            );
        }
    }
    assert!(failed.is_empty(), "failing seeds (replay with SIMULATION_SEED=n): {failed:#?}");
}

fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all();
    builder
}

#[test]
fn nothing_is_lost_in_random_runs() {
    search(300, |seed| {
        let runtime = runtime().start_paused(true).build().expect("a runtime");
        runtime.block_on(async { run(seed, World::on_memory()).await });
    });
}

#[test]
fn nothing_is_lost_in_random_runs_on_redis() {
    search(50, |seed| {
        let runtime = runtime().build().expect("a runtime");
        runtime.block_on(async { run(seed, World::on_redis().await).await });
    });
}
