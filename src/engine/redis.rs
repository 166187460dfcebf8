//! The engine on Redis: all sessions, subscriptions and logs live there, nodes keep only what they can lose.
//!
//! Every operation is one script (`redis/scripts`), so it is atomic, and costs one round trip. Commands go over lanes, one
//! pipelined connection each; messages come back over the feed. `docs/redis.md` has the data model and the races.

mod feed;
mod keys;
mod lane;
mod publisher;
mod queue;
mod reply;
mod scripts;
mod settings;
mod shared;
mod steps;
mod words;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, Cmd, Value};
use bytes::Bytes;
use tokio::sync::mpsc;

use self::feed::{FeedHandle, FeedLoop};
use self::keys::Keys;
use self::lane::Lane;
use self::publisher::{Publisher, Writer, millis};
use self::reply::{PARTITION, Reply};
use self::scripts::Script;
use self::shared::Shared;
use self::steps::{Steps, Walker};
use super::*;
use crate::bayeux::Pattern;
use crate::metrics::Metrics;

pub use settings::{RedisSettings, RedisSettingsError, redacted};

/// Sessions that one script ends, and logs that it looks after: a script holds up everybody else.
const SWEEP_SESSIONS: usize = 50;
const SWEEP_LOGS: usize = 50;
/// Messages and bytes that one script reads: as above.
const READ_MESSAGES: usize = 256;
const READ_BYTES: usize = 256 * 1024;

/// One node's connections to Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisNode(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    sessions: Arc<Lane>,
    steps: Steps,
    /// Reads have connections of their own: long replies hold up those behind them.
    logs: Lane,
    publisher: Publisher,
    feed: FeedHandle,
}

/// The tasks of a node's connections. The node works while [`RedisTasks::run`] does.
pub struct RedisTasks {
    writer: Writer,
    walker: Walker,
    feed: FeedLoop,
}

impl RedisTasks {
    /// Runs until the last [`RedisNode`] is gone; dropped, it ends at once.
    pub async fn run(self) {
        tokio::join!(self.writer.run(), self.walker.run(), self.feed.run());
    }
}

impl RedisNode {
    /// Hands in messages to be published, in their order and next to each other, so that they share batches; gives for each
    /// where its outcome will come.
    pub(super) async fn hand_in(
        &self,
        publications: Vec<Publication>,
    ) -> Vec<impl Future<Output = Result<Published, EngineError>> + Send + use<>> {
        self.0.publisher.hand_in(publications).await.into_iter().map(queue::said).collect()
    }

    /// A node on Redis; gives its connections, its feed, and the tasks behind both. Connects when it is first used, and
    /// again whenever that is needed.
    ///
    /// # Errors
    /// When the settings contradict themselves. That Redis cannot be reached is no error: it may come.
    pub fn new(
        id: NodeId,
        settings: RedisSettings,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Feed, RedisTasks), RedisSettingsError> {
        let info = settings.connection()?;
        let keys = Keys::new(&settings.prefix, PARTITION, info.redis_settings().db());
        let (events, feed) = mpsc::channel(settings.feed_events);
        let shared = Arc::new(Shared::new(settings, id, keys, metrics));
        let lane = || Lane::new(shared.clone(), &info);
        let (sessions, logs) = (Arc::new(lane()?), lane()?);
        let (steps, walker) = Steps::new(shared.clone(), sessions.clone());
        let (publisher, writer) = Publisher::new(shared.clone(), lane()?);
        let client = Client::open(info).map_err(|error| RedisSettingsError::Client(error.to_string()))?;
        let (handle, feed_loop) = FeedHandle::new(shared.clone(), client, events);
        let inner = Inner { sessions, steps, logs, publisher, feed: handle, shared };
        Ok((Self(Arc::new(inner)), feed, RedisTasks { writer, walker, feed: feed_loop }))
    }

    /// Waits until Redis can be used.
    pub async fn available(&self) {
        self.0.feed.live().await;
    }

    /// The feed has not brought what it should: it connects anew, and the logs tell what was missed.
    pub fn doubt_feed(&self) {
        self.0.shared.doubt.notify_one();
    }

    /// Returns when everything that was announced before is in the feed.
    ///
    /// # Errors
    /// When the feed breaks meanwhile.
    pub async fn fence(&self) -> Result<(), EngineError> {
        self.0.feed.fence().await
    }

    /// The node's announcements are lost from here on until [`RedisNode::restore_feed`]: for tests of repair.
    pub async fn break_feed(&self) {
        self.0.feed.hold_down(true).await;
    }

    /// Ends [`RedisNode::break_feed`].
    pub async fn restore_feed(&self) {
        self.0.feed.hold_down(false).await;
    }

    /// Moves the clock of the scripts on, if [`RedisSettings::time_travel`] allows it: for tests.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn advance(&self, time: Duration) -> Result<(), EngineError> {
        let mut command = ::redis::cmd("INCRBY");
        command.arg(self.0.shared.keys.skew()).arg(millis(time));
        self.0.sessions.ask(&command).await.map(|_| ())
    }

    fn scripts(&self) -> &'static scripts::Scripts {
        self.0.shared.scripts
    }

    async fn run(&self, script: &Script, arguments: impl FnOnce(&mut Cmd)) -> Result<Value, EngineError> {
        self.0.sessions.run(script, arguments).await
    }

    async fn step(&self, name: &'static str, arguments: impl FnOnce(&mut Cmd)) -> Result<Bytes, EngineError> {
        self.0.steps.take(name, arguments).await
    }

    async fn commit_items(&self, items: &[Commit], detach: bool) -> Result<Vec<CommitOutcome>, EngineError> {
        let script = &self.scripts().commit;
        let reply = self.run(script, |command| {
            for item in items {
                let kind = match item.progress {
                    Progress::Confirmed => "confirmed",
                    Progress::Flushed => "flushed",
                };
                command.arg(item.session.as_str()).arg(item.epoch.0).arg(item.version.0);
                command.arg(item.upto.cursor.get(PARTITION).0).arg(kind);
                command.arg(words::replays(&item.upto.replays)).arg(flag(detach));
            }
        });
        let words: Vec<Value> = reply::read(script, reply.await?)?;
        let outcome = |word| {
            reply::outcome(
                script,
                word,
                &[
                    ("committed", CommitOutcome::Committed),
                    ("outdated", CommitOutcome::Outdated),
                    ("stale", CommitOutcome::Stale),
                    ("unknown", CommitOutcome::Unknown),
                ],
            )
        };
        words.into_iter().map(outcome).collect()
    }
}

/// A flag as the scripts take it.
fn flag(set: bool) -> &'static str {
    if set { "1" } else { "" }
}

impl Engine for RedisNode {
    async fn create(&self, creation: Creation<'_>) -> Result<Create, EngineError> {
        let script = &self.scripts().create;
        let reply = self.run(script, |command| {
            command.arg(creation.session.as_str()).arg(millis(creation.lifetime)).arg(creation.max);
            command.arg(words::traits(creation.traits));
            match creation.resumed {
                Some((at, patterns)) => {
                    command.arg(at.get(PARTITION).0);
                    for one in patterns {
                        command.arg(one.pattern.as_str()).arg(one.since.0);
                        command.arg(one.replay.map(|from| from.0.to_string()).unwrap_or_default());
                    }
                }
                None => {
                    command.arg("");
                }
            }
        });
        let mut reply = Reply::new(script, reply.await?)?;
        Ok(match &*reply.kind {
            "created" => Create::Created(Cursor::single(reply.position()?)),
            "too_many" => Create::TooMany,
            _ => return Err(reply.unexpected()),
        })
    }

    async fn touch(&self, session: &SessionId, epoch: Option<Epoch>) -> Result<Touch, EngineError> {
        let script = &self.scripts().touch;
        let epoch = epoch.map(|epoch| epoch.0.to_string()).unwrap_or_default();
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(epoch);
        });
        let words = [("alive", Touch::Alive), ("stale", Touch::Stale), ("unknown", Touch::Unknown)];
        reply::outcome(script, reply.await?, &words)
    }

    async fn heartbeat(&self, session: &SessionId, claim: Option<&Cursor>) -> Result<Touch, EngineError> {
        let script = &self.scripts().heartbeat;
        let reply = self.run(script, |command| {
            command.arg(session.as_str());
            match claim {
                Some(at) => command.arg(at.get(PARTITION).0),
                None => command.arg(""),
            };
        });
        reply::outcome(script, reply.await?, &[("alive", Touch::Alive), ("unknown", Touch::Unknown)])
    }

    async fn end(&self, session: &SessionId, why: Ended) -> Result<Option<EndedSession>, EngineError> {
        let script = &self.scripts().end;
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(why.as_str());
        });
        let patterns: Option<Vec<String>> = reply::read(script, reply.await?)?;
        Ok(patterns.map(|patterns| reply::ended(session, patterns)))
    }

    async fn note_activity(&self, session: &SessionId) -> Result<(), EngineError> {
        let reply = self.run(&self.scripts().active, |command| {
            command.arg(session.as_str()).arg("");
        });
        reply.await.map(|_| ())
    }

    async fn end_inactive(&self, session: &SessionId, limit: Duration) -> Result<Option<EndedSession>, EngineError> {
        let script = &self.scripts().active;
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(millis(limit));
        });
        let patterns: Option<Vec<String>> = reply::read(script, reply.await?)?;
        Ok(patterns.map(|patterns| reply::ended(session, patterns)))
    }

    async fn subscribe(
        &self,
        session: &SessionId,
        pattern: &Pattern,
        max: usize,
        replay: Option<ReplayWish>,
    ) -> Result<Subscribe, EngineError> {
        let script = &self.scripts().subscribe;
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(pattern.as_str()).arg(max);
            match replay.map(|wish| wish.after) {
                None => command.arg(""),
                Some(None) => command.arg("all"),
                Some(Some(after)) => command.arg(after.0),
            };
            let kept = replay.map(|wish| wish.retention);
            command.arg(kept.map_or(0, |kept| millis(kept.age))).arg(kept.map_or(0, |kept| kept.length));
        });
        let mut reply = Reply::new(script, reply.await?)?;
        Ok(match &*reply.kind {
            "added" => {
                let since = reply.position()?;
                self.0.shared.acknowledged(since);
                let (from, gap) = (reply.maybe_position()?, reply.flag()?);
                Subscribe::Added { since, replay: from.map(|from| ReplayStart { from, gap }) }
            }
            "kept" => {
                let (since, from, gap) = (reply.position()?, reply.maybe_position()?, reply.flag()?);
                Subscribe::Kept { since, replay: from.map(|from| ReplayStart { from, gap }) }
            }
            "too_many" => Subscribe::TooMany,
            "unknown" => Subscribe::Unknown,
            _ => return Err(reply.unexpected()),
        })
    }

    async fn unsubscribe(&self, session: &SessionId, pattern: &Pattern) -> Result<Unsubscribe, EngineError> {
        let script = &self.scripts().unsubscribe;
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(pattern.as_str());
        });
        reply::outcome(
            script,
            reply.await?,
            &[("removed", Unsubscribe::Removed), ("absent", Unsubscribe::Absent), ("unknown", Unsubscribe::Unknown)],
        )
    }

    async fn attach(&self, request: AttachRequest<'_>) -> Result<Attach, EngineError> {
        let (link, connect_id, retry, last, claim) = match request.link {
            Link::Poll { connect_id, retry, claim } => ("poll", connect_id, retry, None, claim),
            Link::Socket { connect_id, retry, claim } => ("socket", connect_id, retry, None, claim),
            Link::Stream { last_event } => ("stream", None, false, last_event, None),
            Link::Local => ("local", None, false, None, None),
        };
        let said = self.step("attach", |command| {
            command.arg(request.session.as_str()).arg(self.0.shared.node.as_str()).arg(link);
            command.arg(connect_id.unwrap_or_default()).arg(flag(retry));
            match last {
                Some(last) => command.arg(last.epoch.0).arg(last.cursor.get(PARTITION).0),
                None => command.arg("").arg(""),
            };
            match claim {
                Some(Claim::Ack(upto)) => command.arg("ack").arg(upto.0),
                Some(Claim::Position(at)) => command.arg("position").arg(at.get(PARTITION).0),
                None => command.arg("").arg(""),
            };
            command.arg(UNREAD_MESSAGES).arg(UNREAD_BYTES);
        });
        let attach = reply::attach(&said.await?)?;
        if let Attach::Attached(attached) = &attach {
            self.0.shared.acknowledged(attached.clock.get(PARTITION));
        }
        Ok(attach)
    }

    async fn subscriptions(&self, session: &SessionId, epoch: Epoch) -> Result<Subscriptions, EngineError> {
        let script = &self.scripts().subscriptions;
        let reply = self.run(script, |command| {
            command.arg(session.as_str()).arg(epoch.0);
        });
        let mut reply = Reply::new(script, reply.await?)?;
        Ok(match &*reply.kind {
            "current" => Subscriptions::Current(Version(reply.number()?), reply.subscriptions()?),
            "stale" => Subscriptions::Stale,
            "unknown" => Subscriptions::Unknown,
            _ => return Err(reply.unexpected()),
        })
    }

    async fn record(&self, request: RecordRequest<'_>) -> Result<Record, EngineError> {
        let said = self.step("record", |command| {
            command.arg(request.session.as_str()).arg(request.epoch.0).arg(request.version.0);
            command.arg(request.connect_id.unwrap_or_default()).arg(request.upto.cursor.get(PARTITION).0);
            command.arg(words::replays(&request.upto.replays));
        });
        reply::word(
            &said.await?,
            &[
                ("recorded", Record::Recorded),
                ("outdated", Record::Outdated),
                ("stale", Record::Stale { same_id: false }),
                ("stale_same_id", Record::Stale { same_id: true }),
                ("unknown", Record::Unknown),
            ],
        )
    }

    async fn conclude(
        &self,
        session: &SessionId,
        epoch: Epoch,
        connect_id: Option<&str>,
        vain: bool,
    ) -> Result<Conclude, EngineError> {
        let said = self.step("conclude", |command| {
            command.arg(session.as_str()).arg(epoch.0).arg(connect_id.unwrap_or_default()).arg(flag(vain));
        });
        let words = [("empty", Conclude::Empty), ("hangup", Conclude::Hangup), ("unknown", Conclude::Unknown)];
        reply::word(&said.await?, &words)
    }

    async fn release(&self, session: &SessionId, epoch: Epoch, connect_id: Option<&str>) -> Result<(), EngineError> {
        let said = self.step("release", |command| {
            command.arg(session.as_str()).arg(epoch.0).arg(connect_id.unwrap_or_default());
        });
        said.await.map(|_| ())
    }

    async fn written(&self, session: &SessionId, epoch: Epoch) -> Result<(), EngineError> {
        let said = self.step("written", |command| {
            command.arg(session.as_str()).arg(epoch.0);
        });
        said.await.map(|_| ())
    }

    async fn commit(&self, items: &[Commit]) -> Result<Vec<CommitOutcome>, EngineError> {
        self.commit_items(items, false).await
    }

    async fn detach(&self, item: &Commit) -> Result<(), EngineError> {
        self.commit_items(std::slice::from_ref(item), true).await.map(|_| ())
    }

    async fn publish(&self, publication: Publication) -> Result<Published, EngineError> {
        self.0.publisher.publish(publication).await
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Read, EngineError> {
        let script = &self.scripts().read;
        let reply = self.0.logs.run(script, |command| {
            command.arg(request.session.as_str()).arg(request.epoch.0).arg(request.version.0);
            command.arg(request.max_messages.min(READ_MESSAGES)).arg(request.max_bytes.min(READ_BYTES));
            for (pattern, from) in request.from {
                command.arg(pattern.as_str()).arg(from.0);
            }
        });
        let mut reply = Reply::new(script, reply.await?)?;
        Ok(match &*reply.kind {
            "snapshot" => {
                let (upto, truncated) = (Cursor::single(reply.position()?), reply.flag()?);
                let (deliveries, lost) = (reply.deliveries()?, reply.maybe_position()?);
                Read::Snapshot(Snapshot { deliveries, upto, truncated, lost })
            }
            "gap" => Read::Gap(reply::ended(request.session, reply.next()?)),
            "outdated" => Read::Outdated,
            "stale" => Read::Stale,
            "unknown" => Read::Unknown,
            _ => return Err(reply.unexpected()),
        })
    }

    async fn replay(&self, request: ReplayRequest<'_>) -> Result<Replay, EngineError> {
        let script = &self.scripts().replay;
        let reply = self.0.logs.run(script, |command| {
            command.arg(request.session.as_str()).arg(request.epoch.0).arg(request.version.0);
            command.arg(request.pattern.as_str()).arg(request.since.0).arg(request.from.0);
            command.arg(request.max_messages.min(READ_MESSAGES)).arg(request.max_bytes.min(READ_BYTES));
        });
        let mut reply = Reply::new(script, reply.await?)?;
        Ok(match &*reply.kind {
            "chunk" => {
                let (through, deliveries, gap) = (reply.flag()?, reply.deliveries()?, reply.flag()?);
                Replay::Chunk { deliveries, through, gap }
            }
            "gap" => Replay::Gap(reply::ended(request.session, reply.next()?)),
            "outdated" => Replay::Outdated,
            "stale" => Replay::Stale,
            "unknown" => Replay::Unknown,
            _ => return Err(reply.unexpected()),
        })
    }

    async fn listen(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        self.0.feed.listen(logs).await
    }

    async fn unlisten(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        self.0.feed.unlisten(logs).await
    }

    async fn sweep(&self, limit: usize) -> Result<Vec<EndedSession>, EngineError> {
        let script = &self.scripts().sweep;
        let settings = &self.0.shared.settings;
        let mut ended = Vec::new();
        loop {
            let sessions = SWEEP_SESSIONS.min(limit - ended.len());
            let reply = self.run(script, |command| {
                command.arg(sessions).arg(SWEEP_LOGS).arg(millis(settings.timeout)).arg(fastrand::f64());
                command.arg(millis(sweep_pause(settings.timeout))).arg(millis(settings.log_age));
            });
            let mut reply = Reply::new(script, reply.await?)?;
            let more = reply.kind == "1";
            let swept: Vec<Vec<String>> = reply.rest()?;
            ended.extend(swept.into_iter().filter_map(|mut words| {
                let patterns = words.split_off(words.len().min(1));
                words.first().map(|session| reply::ended(&SessionId::from(&**session), patterns))
            }));
            if !more || ended.len() >= limit {
                return Ok(ended);
            }
        }
    }

    async fn sessions(&self) -> Result<usize, EngineError> {
        let mut command = ::redis::cmd("ZCARD");
        command.arg(self.0.shared.keys.deadlines());
        ::redis::from_redis_value(self.0.sessions.ask(&command).await?)
            .map_err(|error| EngineError::Unavailable(error.to_string()))
    }
}
