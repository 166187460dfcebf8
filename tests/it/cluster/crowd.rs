//! Many clients under load that behave as people's clients do when nodes break: they repeat what was not answered, open
//! sockets again, shake hands when they are told to, and send each request to another node. A third of them acknowledge,
//! a third resume.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::support::bayeux::MOUNT;
use crate::support::eventually;
use crate::support::http::{Connection, json_request};
use crate::support::nodes::Nodes;

/// The channel of the crowd.
pub const CHANNEL: &str = "/crowd/news";
/// Who publish at the same time; `number % PUBLISHERS` tells which.
const PUBLISHERS: u64 = 4;
/// Pause before something is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// No request takes longer than a poll that is held, and some engine calls.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a subscriber confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// By number.
    Acks,
    /// It says where it is, and drops what is not newer.
    Resumes,
}

/// What one subscriber saw.
#[derive(Debug)]
pub struct Seen {
    kind: Kind,
    /// How often it was told that messages are missing.
    pub gaps: usize,
    /// Numbers in the order in which they came, with repetitions.
    pub received: Vec<u64>,
    distinct: HashSet<u64>,
    /// How often it shook hands.
    pub handshakes: usize,
    /// How often it was told that its session is unknown.
    pub unknown: usize,
}

/// The crowd: subscribers by socket and by poll.
pub struct Crowd {
    nodes: Nodes,
    seen: Vec<Arc<Mutex<Seen>>>,
    /// Told whenever one of them received something.
    heard: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// How the publisher fared.
#[derive(Debug, Default)]
pub struct Published {
    /// Numbers that were acknowledged, in order.
    pub acknowledged: Vec<u64>,
    /// Numbers that were not, with what was said instead, if anything.
    pub failed: BTreeMap<u64, String>,
    /// The longest time that an answer took.
    pub slowest: Duration,
}

impl Crowd {
    /// Gathers subscribers; returns when all are subscribed.
    pub async fn gather(nodes: &Nodes, sockets: usize, polls: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Self { nodes: nodes.clone(), seen: Vec::new(), heard: Arc::default(), tasks: Vec::new(), stop };
        for number in 0..sockets + polls {
            let kind = [Kind::Plain, Kind::Acks, Kind::Resumes][number % 3];
            let seen = Arc::new(Mutex::new(Seen::of(kind)));
            let (wire, heard, stop) = (Wire::new(nodes), crowd.heard.clone(), crowd.stop.clone());
            let member = Member { wire, kind, seen: seen.clone(), heard, stop, next_id: 0, acked: 0, position: None };
            crowd.seen.push(seen);
            let by_socket = number < sockets;
            crowd.tasks.push(tokio::spawn(async move { member.live(by_socket).await }));
        }
        eventually(Duration::from_secs(60), "all are subscribed", || {
            let ready = crowd.seen.iter().all(|seen| seen.lock().handshakes > 0);
            std::future::ready(ready.then_some(()))
        })
        .await;
        crowd
    }

    /// Publishes numbers from `first` on at this pace until `until` is done, each to another node. Several publishers take
    /// turns; each waits for one answer before its next message.
    pub async fn publish(&self, first: u64, every: Duration, until: impl Future<Output = ()>) -> Published {
        let over = AtomicBool::new(false);
        let over = &over;
        let publishers = (0..PUBLISHERS).map(|publisher| async move {
            let mut wire = Wire::new(&self.nodes);
            let mut published = Published::default();
            let mut pace = tokio::time::interval(every * PUBLISHERS as u32);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in (first + publisher..).step_by(PUBLISHERS as usize) {
                pace.tick().await;
                if over.load(Ordering::Acquire) {
                    break;
                }
                published.send(&mut wire, number).await;
            }
            published
        });
        let (published, ()) = tokio::join!(futures_util::future::join_all(publishers), async {
            until.await;
            over.store(true, Ordering::Release);
        });
        published.into_iter().fold(Published::default(), |mut all, one| {
            all.acknowledged.extend(one.acknowledged);
            all.failed.extend(one.failed);
            all.slowest = all.slowest.max(one.slowest);
            all
        })
    }

    /// Publishes until everybody has received a message, for at most so long; gives how long that took.
    pub async fn reach_everybody(&self, first: u64, limit: Duration) -> Duration {
        let start = Instant::now();
        let mut wire = Wire::new(&self.nodes);
        for number in first.. {
            let mut published = Published::default();
            published.send(&mut wire, number).await;
            let everybody = self.until_all(|seen| seen.distinct.contains(&number));
            if timeout(Duration::from_millis(200), everybody).await.is_ok() {
                return start.elapsed();
            }
            let deaf = self.seen.iter().filter(|seen| !seen.lock().distinct.contains(&number)).count();
            assert!(start.elapsed() < limit, "{deaf} clients do not receive after {limit:?}");
        }
        start.elapsed()
    }

    /// Waits until every subscriber has seen all that was acknowledged, and panics if one has not; gives how many came more
    /// than once. First arrivals must be in order.
    pub async fn assert_served(&self, published: &Published) -> usize {
        let missing = |seen: &Seen| -> Vec<u64> {
            published.acknowledged.iter().copied().filter(|number| !seen.distinct.contains(number)).collect()
        };
        let served = self.until_all(|seen| published.acknowledged.iter().all(|number| seen.distinct.contains(number)));
        if timeout(Duration::from_secs(30), served).await.is_err() {
            let lost: Vec<_> = self.seen.iter().map(|seen| missing(&seen.lock())).collect();
            let total: usize = lost.iter().map(Vec::len).sum();
            let some: Vec<_> = lost.iter().enumerate().filter(|(_, lost)| !lost.is_empty()).take(5).collect();
            panic!("{total} of {} deliveries are lost: {some:?}", published.acknowledged.len() * self.seen.len());
        }
        let mut again = 0;
        let acknowledged: HashSet<_> = published.acknowledged.iter().copied().collect();
        for seen in &self.seen {
            let seen = seen.lock();
            let mut met = HashSet::new();
            let first: Vec<u64> = seen.received.iter().copied().filter(|number| met.insert(*number)).collect();
            let repeated = seen.received.len() - first.len();
            assert!(seen.kind != Kind::Resumes || repeated == 0, "a client that resumes processed {repeated} twice");
            again += repeated;
            // A publisher's messages keep its order; what was not acknowledged may have been stored later.
            for publisher in 0..PUBLISHERS {
                let its = |number: &u64| number % PUBLISHERS == publisher && acknowledged.contains(number);
                let ordered: Vec<u64> = first.iter().copied().filter(its).collect();
                assert!(ordered.is_sorted(), "out of order: {ordered:?}");
            }
        }
        again
    }

    /// Waits until this is true of every subscriber.
    async fn until_all(&self, is_so: impl Fn(&Seen) -> bool) {
        loop {
            // Before the look: what is received from here on ends the wait.
            let heard = self.heard.notified();
            if self.seen.iter().all(|seen| is_so(&seen.lock())) {
                return;
            }
            heard.await;
        }
    }

    /// Panics if anybody was told that its session is unknown, or that messages are missing.
    pub fn assert_sessions_lived(&self) {
        for seen in &self.seen {
            let seen = seen.lock();
            assert_eq!((seen.unknown, seen.handshakes), (0, 1), "told that its session is unknown");
            assert_eq!(seen.gaps, 0, "told of a gap");
        }
    }

    /// How many subscribers that resume were told of a gap, of how many.
    pub fn told_of_gaps(&self) -> (usize, usize) {
        let resume = || self.seen.iter().filter(|seen| seen.lock().kind == Kind::Resumes);
        (resume().filter(|seen| seen.lock().gaps > 0).count(), resume().count())
    }

    /// How many subscribers there are.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Sends everybody home.
    pub async fn dismiss(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.abort();
            if let Err(error) = task.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl Seen {
    fn of(kind: Kind) -> Self {
        Self { kind, gaps: 0, received: Vec::new(), distinct: HashSet::new(), handshakes: 0, unknown: 0 }
    }
}

impl Published {
    async fn send(&mut self, wire: &mut Wire, number: u64) {
        let start = Instant::now();
        let outcome = wire.post(&json!({"channel": CHANNEL, "data": number})).await;
        self.slowest = self.slowest.max(start.elapsed());
        match outcome {
            Ok(replies) if replies[0]["successful"] == true => self.acknowledged.push(number),
            Ok(replies) => {
                self.failed.insert(number, replies[0].to_string());
            }
            Err(error) => {
                self.failed.insert(number, error.to_string());
            }
        }
    }
}

/// Posts to one node after the other, keeping a connection to each.
struct Wire {
    nodes: Nodes,
    connections: HashMap<SocketAddr, Connection>,
}

impl Wire {
    fn new(nodes: &Nodes) -> Self {
        Self { nodes: nodes.clone(), connections: HashMap::new() }
    }

    /// One request and its answer. An error says nothing of whether it was processed.
    async fn post(&mut self, messages: &Value) -> io::Result<Vec<Value>> {
        let node = self.nodes.pick();
        let mut connection = match self.connections.remove(&node) {
            Some(connection) => connection,
            None => Connection::try_open(node).await?,
        };
        connection.send(&json_request(MOUNT, messages.to_string().as_bytes())).await;
        let answer = timeout(PATIENCE, connection.answer()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let response = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !response.closes() {
            self.connections.insert(node, connection);
        }
        if response.status != 200 {
            return Err(io::Error::other(format!("{}: {}", response.status, response.text())));
        }
        match serde_json::from_slice(&response.body) {
            Ok(Value::Array(replies)) => Ok(replies),
            _ => panic!("an answer must be an array: {}", response.text()),
        }
    }
}

/// One subscriber.
struct Member {
    wire: Wire,
    kind: Kind,
    seen: Arc<Mutex<Seen>>,
    heard: Arc<Notify>,
    stop: Arc<AtomicBool>,
    next_id: u64,
    /// The number of the last reply.
    acked: u64,
    /// The newest position processed.
    position: Option<u64>,
}

impl Member {
    async fn live(mut self, by_socket: bool) {
        while !self.stop.load(Ordering::Acquire) {
            let session = self.session().await;
            if by_socket {
                self.by_socket(&session).await;
            } else {
                self.by_polls(&session).await;
            }
        }
    }

    /// Tries until it is answered.
    async fn insist(&mut self, message: &Value) -> Value {
        loop {
            if let Ok(mut replies) = self.wire.post(message).await {
                return replies.remove(0);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        self.next_id.to_string()
    }

    /// A session that is subscribed.
    async fn session(&mut self) -> String {
        loop {
            let ext = match (self.kind, self.position) {
                (Kind::Plain, _) => Value::Null,
                (Kind::Acks, _) => json!({"ack": true}),
                (Kind::Resumes, None) => json!({"resume": true}),
                (Kind::Resumes, Some(position)) => {
                    json!({"resume": true, "position": {"0": position}, "subscriptions": [CHANNEL]})
                }
            };
            let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "ext": ext,
                "supportedConnectionTypes": ["websocket"]});
            let reply = self.insist(&handshake).await;
            if reply["successful"] != true {
                self.wait_as_advised(&reply).await;
                continue;
            }
            self.acked = 0;
            self.position = reply["ext"]["position"]["0"].as_u64();
            let session = reply["clientId"].as_str().expect("a session id").to_owned();
            let subscribe = json!({"channel": "/meta/subscribe", "clientId": session, "subscription": CHANNEL});
            if self.insist(&subscribe).await["successful"] == true {
                self.seen.lock().handshakes += 1;
                return session;
            }
        }
    }

    async fn wait_as_advised(&self, reply: &Value) {
        let interval = reply["advice"]["interval"].as_u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(interval).max(RETRY)).await;
    }

    /// What a connect says about deliveries.
    fn says(&self) -> Value {
        match (self.kind, self.position) {
            (Kind::Acks, _) => json!({"ack": self.acked}),
            (Kind::Resumes, Some(position)) => json!({"position": {"0": position}}),
            _ => Value::Null,
        }
    }

    fn take(&mut self, messages: &[Value]) {
        let mut seen = self.seen.lock();
        for message in messages {
            if message["channel"] == "/meta/connect" {
                self.acked = message["ext"]["ack"].as_u64().unwrap_or(self.acked);
                self.position = self.position.max(message["ext"]["position"]["0"].as_u64());
                seen.gaps += usize::from(message["ext"]["gap"] == true);
            }
            // The reply to a publish is no message.
            if let Some(number) = message["data"].as_u64().filter(|_| message["channel"] == CHANNEL) {
                let position = message["ext"]["position"]["0"].as_u64();
                assert_eq!(position.is_some(), self.kind == Kind::Resumes, "{message}");
                if position.is_some() && position <= self.position {
                    continue;
                }
                self.position = self.position.max(position);
                seen.received.push(number);
                seen.distinct.insert(number);
            }
        }
        self.heard.notify_waiters();
    }

    /// Whether the session is still there, by a connect reply; waits as advised when it is not.
    async fn lives(&self, messages: &[Value]) -> bool {
        let refused = messages.iter().find(|reply| reply["channel"] == "/meta/connect" && reply["successful"] != true);
        let Some(refused) = refused else { return true };
        assert_eq!(refused["advice"]["reconnect"], "handshake", "{refused}");
        self.seen.lock().unknown += 1;
        self.wait_as_advised(refused).await;
        false
    }

    /// Polls until the session is unknown. What was not answered is repeated under the same id.
    async fn by_polls(&mut self, session: &str) {
        let mut id = self.id();
        loop {
            let connect = json!({"channel": "/meta/connect", "clientId": session, "connectionType": "long-polling",
                "id": id, "ext": self.says()});
            match self.wire.post(&connect).await {
                Ok(messages) => {
                    self.take(&messages);
                    if !self.lives(&messages).await {
                        return;
                    }
                    id = self.id();
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Opens sockets until the session is unknown.
    async fn by_socket(&mut self, session: &str) {
        let mut id = self.id();
        loop {
            if let Some(again) = self.one_socket(session, &mut id).await {
                if !again {
                    return;
                }
            } else {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// One socket to its end; whether the session lives, or nothing if it was never open.
    async fn one_socket(&mut self, session: &str, id: &mut String) -> Option<bool> {
        let node = self.wire.nodes.pick();
        let tcp = timeout(PATIENCE, TcpStream::connect(node)).await.ok()?.ok()?;
        let url = format!("ws://{node}{MOUNT}");
        let (mut socket, _) = timeout(PATIENCE, tokio_tungstenite::client_async(url, tcp)).await.ok()?.ok()?;
        let connect = |id: &str, says: Value| {
            let connect = json!({"channel": "/meta/connect", "clientId": session, "connectionType": "websocket",
                "id": id, "ext": says});
            Message::text(connect.to_string())
        };
        socket.send(connect(id, self.says())).await.ok()?;
        while let Ok(Some(Ok(frame))) = timeout(PATIENCE, socket.next()).await {
            let Message::Text(text) = frame else { continue };
            let messages: Vec<Value> = serde_json::from_str(&text).expect("JSON");
            self.take(&messages);
            if !self.lives(&messages).await {
                return Some(false);
            }
            if messages.iter().any(|reply| reply["channel"] == "/meta/connect") {
                *id = self.id();
                if socket.send(connect(id, self.says())).await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
        Some(true)
    }
}
