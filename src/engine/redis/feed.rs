//! The feed: one connection on which Redis announces messages and news about sessions, with a loop of its own that
//! connects again for ever.
//!
//! States: *down* (connecting; the hub was told `Broken`), *live* (the hub was told `Restored`). Announcements go straight
//! from the connection into the hub's bounded queue. When that is full, the connection is given up: nothing after the
//! first lost announcement may pass, and the sessions read the logs. So nothing is lost, and nothing waits without bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lane::pause;
use super::reply;
use super::settings::redacted;
use super::shared::{Shared, hint, warn_of_eviction};
use crate::bayeux::Pattern;
use crate::engine::{EngineError, FeedEvent};
use crate::metrics::RedisLink;

/// Requests that may wait; callers wait for a place.
const QUEUE: usize = 1024;
/// Requests that are answered together: after a break every session asks for its logs.
const BATCH: usize = 256;
/// Channels of one command.
const CHANNELS: usize = 1000;
/// A feed that lived for less was hardly one.
const STEADY: Duration = Duration::from_secs(3);
/// How often the connection is tried.
const PING: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<(), EngineError>>;

enum Wanted {
    /// The announcements of these logs.
    Listen(Vec<Pattern>),
    /// No more announcements of these.
    Unlisten(Vec<Pattern>),
    /// That everything announced before is in the hub's queue.
    Fence,
}

/// The feed as the engine sees it. Cheap to clone.
#[derive(Clone)]
pub(super) struct FeedHandle {
    requests: mpsc::Sender<(Wanted, Answer)>,
    state: watch::Receiver<bool>,
    /// Keeps the feed down, for tests.
    held_down: Arc<watch::Sender<bool>>,
}

/// The task behind a [`FeedHandle`].
pub(super) struct FeedLoop {
    shared: Arc<Shared>,
    client: Client,
    events: mpsc::Sender<FeedEvent>,
    /// Bytes that may still wait there.
    room: Arc<Semaphore>,
    requests: mpsc::Receiver<(Wanted, Answer)>,
    state: watch::Sender<bool>,
    held_down: watch::Receiver<bool>,
}

/// One connection, as its driver and the loop share it.
struct Line {
    shared: Arc<Shared>,
    events: mpsc::Sender<FeedEvent>,
    /// Bytes that may still wait in the hub's queue.
    room: Arc<Semaphore>,
    /// False from the first lost announcement on.
    open: AtomicBool,
    lost: CancellationToken,
}

impl FeedHandle {
    pub(super) fn new(shared: Arc<Shared>, client: Client, events: mpsc::Sender<FeedEvent>) -> (Self, FeedLoop) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let (state, watched) = watch::channel(false);
        let (held_down, watch_held) = watch::channel(false);
        let handle = Self { requests: sender, state: watched, held_down: Arc::new(held_down) };
        let room = Arc::new(Semaphore::new(shared.settings.feed_bytes));
        (handle, FeedLoop { shared, client, events, room, requests, state, held_down: watch_held })
    }

    async fn ask(&self, wanted: Wanted) -> Result<(), EngineError> {
        let stopped = || EngineError::Unavailable("the node stops".to_owned());
        let (answer, outcome) = oneshot::channel();
        self.requests.send((wanted, answer)).await.map_err(|_| stopped())?;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Returns when Redis has confirmed these logs; waits while the feed is down.
    pub(super) async fn listen(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        self.ask(Wanted::Listen(logs.to_vec())).await
    }

    pub(super) async fn unlisten(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        if !*self.state.borrow() {
            // Nothing is on a feed that is down.
            return Ok(());
        }
        self.ask(Wanted::Unlisten(logs.to_vec())).await
    }

    pub(super) async fn fence(&self) -> Result<(), EngineError> {
        self.ask(Wanted::Fence).await
    }

    /// Waits until the feed is live.
    pub(super) async fn live(&self) {
        // An error means that the node stops, and whoever waits with it.
        let _ = self.state.clone().wait_for(|live| *live).await;
    }

    /// Takes the feed down, or lets it come up again, and waits for that.
    pub(super) async fn hold_down(&self, down: bool) {
        self.held_down.send_replace(down);
        let _ = self.state.clone().wait_for(|live| *live != down).await;
    }
}

impl FeedLoop {
    /// Keeps the feed up, until the last handle is gone or nobody reads it any more.
    pub(super) async fn run(mut self) {
        let (mut failed, mut connected) = (0, false);
        while !self.events.is_closed() && !self.requests.is_closed() {
            // An error means that the last handle is gone.
            if self.held_down.wait_for(|down| !*down).await.is_err() {
                return;
            }
            match self.connect().await {
                Ok((connection, line, generation)) => {
                    if failed > 0 {
                        tracing::info!("Redis is back");
                    }
                    if std::mem::replace(&mut connected, true) {
                        self.shared.metrics.reconnected(RedisLink::Feed);
                    }
                    let since = Instant::now();
                    // An error means that nobody reads the feed any more.
                    let _ = self.events.send(FeedEvent::Restored).await;
                    self.state.send_replace(true);
                    let reason = self.serve(connection, &line, generation).await;
                    line.open.store(false, Ordering::Release);
                    let _ = self.events.send(FeedEvent::Broken).await;
                    self.state.send_replace(false);
                    // One that breaks again and again at once is given time.
                    failed = if since.elapsed() < STEADY { failed + 1 } else { 0 };
                    match reason {
                        Some(reason) if failed > 0 => {
                            tracing::warn!(reason, "the feed broke; sessions will read what they missed");
                            tokio::time::sleep(pause(failed - 1)).await;
                        }
                        Some(reason) => tracing::warn!(reason, "the feed broke; sessions will read what they missed"),
                        None => return,
                    }
                }
                Err(error) => {
                    if failed == 0 {
                        let (redis, hint) = (redacted(&self.shared.settings.url), hint(&error));
                        tracing::warn!(%redis, %error, hint, "Redis cannot be used; trying again");
                    }
                    let pause = tokio::time::sleep(pause(failed));
                    failed += 1;
                    pause.await;
                }
            }
        }
    }

    /// A new connection, its line, and the generation of the server.
    async fn connect(&self) -> Result<(MultiplexedConnection, Arc<Line>, u64), RedisError> {
        let line = Arc::new(Line {
            shared: self.shared.clone(),
            events: self.events.clone(),
            room: self.room.clone(),
            open: AtomicBool::new(true),
            lost: CancellationToken::new(),
        });
        let driver = line.clone();
        let push = move |info: PushInfo| -> Result<(), ()> {
            driver.take(info);
            Ok(())
        };
        let settings = &self.shared.settings;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.command_timeout))
            .set_push_sender(push);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let generation = self.shared.meet(&mut connection).await?;
        warn_of_eviction(&mut connection).await;
        connection.subscribe(self.shared.keys.node_channel(&self.shared.node)).await?;
        Ok((connection, line, generation))
    }

    /// Serves requests while the connection lasts; gives the reason for its end, or nothing when the last handle is gone.
    async fn serve(
        &mut self,
        mut connection: MultiplexedConnection,
        line: &Line,
        generation: u64,
    ) -> Option<&'static str> {
        let mut requests = Vec::with_capacity(BATCH);
        let mut held_down = self.held_down.clone();
        // What was doubted was the connection before.
        let _ = self.shared.doubt.notified().now_or_never();
        let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                () = line.lost.cancelled() => return Some("connection lost, or the node fell behind"),
                () = self.shared.doubt.notified() => return Some("doubtful"),
                () = self.shared.another_server(generation) => return Some("another server answers"),
                held = async { held_down.wait_for(|down| *down).await.is_ok() } => return held.then_some("held down"),
                count = self.requests.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return None;
                    }
                    self.answer(&mut connection, &mut requests).await
                }
                _ = ping.tick() => redis::cmd("PING").exec_async(&mut connection).await,
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "feed connection failed");
                return Some("a command failed");
            }
        }
    }

    /// Answers requests in their order, neighbours of one kind together.
    async fn answer(
        &self,
        connection: &mut MultiplexedConnection,
        requests: &mut Vec<(Wanted, Answer)>,
    ) -> Result<(), RedisError> {
        // Whoever does not wait any more wants nothing.
        requests.retain(|(_, answer)| !answer.is_closed());
        let mut outcome = Ok(());
        let mut requests = requests.drain(..).peekable();
        while let Some((wanted, answer)) = requests.next() {
            let mut answers = vec![answer];
            if outcome.is_ok() {
                outcome = match wanted {
                    Wanted::Fence => redis::cmd("PING").exec_async(connection).await,
                    Wanted::Unlisten(logs) => {
                        for channels in self.channels(&logs) {
                            outcome = outcome.and(connection.unsubscribe(channels).await);
                        }
                        outcome
                    }
                    Wanted::Listen(mut logs) => {
                        let another = |next: &(Wanted, Answer)| matches!(next.0, Wanted::Listen(_));
                        while let Some((Wanted::Listen(more), answer)) = requests.next_if(another) {
                            logs.extend(more);
                            answers.push(answer);
                        }
                        // After a break many ask for the same.
                        logs.sort_unstable();
                        logs.dedup();
                        for channels in self.channels(&logs) {
                            outcome = outcome.and(connection.subscribe(channels).await);
                        }
                        outcome
                    }
                };
            }
            for answer in answers {
                let said = outcome.as_ref().copied().map_err(super::shared::engine_error);
                // An error means that nobody waits for it any more.
                let _ = answer.send(said);
            }
        }
        outcome
    }

    /// The channels of these logs, as many together as one command takes.
    fn channels(&self, logs: &[Pattern]) -> impl Iterator<Item = Vec<String>> {
        logs.chunks(CHANNELS).map(|logs| logs.iter().map(|log| self.shared.keys.log_channel(log)).collect())
    }
}

impl Line {
    /// Called by the connection's driver for everything that is not a reply: must not block.
    fn take(&self, info: PushInfo) {
        match info.kind {
            PushKind::Message if self.open.load(Ordering::Acquire) => {
                let Some(event) = self.event(info.data) else {
                    tracing::warn!("announcement that no node made; is something else publishing to our channels?");
                    return;
                };
                if !self.pass(event) {
                    self.open.store(false, Ordering::Release);
                    self.lost.cancel();
                }
            }
            PushKind::Disconnection => self.lost.cancel(),
            _ => {}
        }
    }

    /// Puts an event into the hub's queue; false when there is no room.
    fn pass(&self, mut event: FeedEvent) -> bool {
        if let FeedEvent::Message { delivery, room, .. } = &mut event {
            // What is larger than everything takes everything.
            let bytes = delivery.array.len().min(self.shared.settings.feed_bytes);
            let Ok(taken) = self.room.clone().try_acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)) else {
                return false;
            };
            *room = Some(taken);
        }
        self.events.try_send(event).is_ok()
    }

    fn event(&self, data: Vec<Value>) -> Option<FeedEvent> {
        let [Value::BulkString(channel), Value::BulkString(payload)] = <[Value; 2]>::try_from(data).ok()? else {
            return None;
        };
        let channel = std::str::from_utf8(&channel).ok()?;
        let payload = Bytes::from(payload);
        let (log, start) = match self.shared.keys.log_of(channel) {
            Some(log) => (log, 0),
            // This node alone has to know of it.
            None if payload.starts_with(b"log ") => reply::told_alone(&payload)?,
            None => return reply::control(std::str::from_utf8(&payload).ok()?).map(FeedEvent::Control),
        };
        let (previous, delivery) = reply::announcement(&payload.slice(start..))?;
        // Mostly it is the log of the channel itself, whose name is checked.
        let log = match delivery.channel.as_str() == log {
            true => delivery.channel.to_pattern(),
            false => Pattern::parse(log).ok()?,
        };
        self.shared.saw(delivery.position);
        Some(FeedEvent::Message { log, previous, delivery, room: None })
    }
}
