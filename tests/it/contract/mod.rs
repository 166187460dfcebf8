//! The contract of `weft::engine::Engine`, as one suite that every engine has to pass. A test is a function of a
//! fixture; the list at the end runs all of them against each engine.

mod attach;
mod delivery;
mod logs;
mod repeats;
mod replay;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use weft::bayeux::{Channel, Pattern};
use weft::engine::memory::{MemoryEngine, MemoryLimits, MemoryNode};
use weft::engine::redis::{RedisNode, RedisSettings};
use weft::engine::*;

use crate::support::redis::Redis;

/// A session's life in these tests; time is paused, so it costs nothing.
pub const LIFETIME: Duration = Duration::from_secs(90);
/// More than any test makes.
pub const MANY: usize = 1000;

/// What tests ask of an engine beyond its contract.
pub trait TestEngine: Engine {
    /// Moves its clock on.
    fn advance(&self, time: Duration) -> impl Future<Output = ()>;
    /// Returns when everything announced before is in the feed.
    fn fence(&self) -> impl Future<Output = ()>;
}

impl TestEngine for MemoryNode {
    async fn advance(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    async fn fence(&self) {}
}

impl TestEngine for RedisNode {
    async fn advance(&self, time: Duration) {
        RedisNode::advance(self, time).await.expect("moved on");
    }

    async fn fence(&self) {
        RedisNode::fence(self).await.expect("the feed is live");
    }
}

/// Bounds that tests reach.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub log_entries: usize,
    pub retained: usize,
    pub fingerprints: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let MemoryLimits { log_entries, retained, fingerprints, .. } = MemoryLimits::default();
        Self { log_entries, retained, fingerprints }
    }
}

/// An empty engine to which nodes can be connected.
pub trait Fixture {
    type Engine: TestEngine;

    fn new() -> impl Future<Output = Self>;
    /// An engine with these bounds.
    fn bounded(bounds: Bounds) -> impl Future<Output = Self>;
    fn node(&self) -> impl Future<Output = (Self::Engine, Feed)>;
}

struct Memory(MemoryEngine);

impl Fixture for Memory {
    type Engine = MemoryNode;

    async fn new() -> Self {
        Self(MemoryEngine::default())
    }

    async fn bounded(bounds: Bounds) -> Self {
        let Bounds { log_entries, retained, fingerprints } = bounds;
        Self(MemoryEngine::new(MemoryLimits { log_entries, retained, fingerprints, ..MemoryLimits::default() }))
    }

    async fn node(&self) -> (MemoryNode, Feed) {
        self.0.connect(NodeId::random())
    }
}

/// A server, and how its logs are bounded.
struct OnRedis(Redis, Bounds);

impl Fixture for OnRedis {
    type Engine = RedisNode;

    async fn new() -> Self {
        Self::bounded(Bounds::default()).await
    }

    async fn bounded(bounds: Bounds) -> Self {
        // Redis trims whole blocks: of one entry here, so that it is exact.
        Self(Redis::start_with(&["--stream-node-max-entries", "1"]).await, bounds)
    }

    async fn node(&self) -> (RedisNode, Feed) {
        let adjust = |settings: &mut RedisSettings| {
            settings.log_entries = self.1.log_entries;
            settings.retained = self.1.retained;
            settings.fingerprints = self.1.fingerprints;
        };
        self.0.node(adjust).await
    }
}

pub fn pattern(name: &str) -> Pattern {
    Pattern::parse(name).expect(name)
}

/// Stores `data` on a channel.
pub async fn publish(engine: &impl TestEngine, channel: &str, data: &str) -> Position {
    let channel = Channel::parse(channel).expect(channel);
    let array = format!("[{{\"channel\":\"{channel}\",\"data\":{data}}}]").into();
    stored(engine.publish(Publication::new(channel, array)).await)
}

/// Where it was stored.
pub fn stored(published: Result<Published, EngineError>) -> Position {
    match published {
        Ok(Published::Stored(position)) => position,
        other => panic!("expected a position, got {other:?}"),
    }
}

/// A session subscribed to these patterns.
pub async fn session(engine: &impl TestEngine, patterns: &[&str]) -> SessionId {
    let session = SessionId::random();
    assert!(matches!(engine.create(Creation::new(&session, LIFETIME, MANY)).await, Ok(Create::Created(_))));
    for name in patterns {
        assert!(
            matches!(
                engine.subscribe(&session, &pattern(name), MANY, None).await,
                Ok(Subscribe::Added { replay: None, .. })
            ),
            "{name}"
        );
    }
    session
}

/// A poll under this id.
pub async fn poll(engine: &impl TestEngine, session: &SessionId, id: &str) -> Attach {
    let link = Link::Poll { connect_id: Some(id), retry: false, claim: None };
    engine.attach(AttachRequest { session, link }).await.expect("attached")
}

pub async fn attach(engine: &impl TestEngine, session: &SessionId, link: Link<'_>) -> Attached {
    match engine.attach(AttachRequest { session, link }).await {
        Ok(Attach::Attached(attached)) => {
            is_what_a_read_gives(engine, session, &attached).await;
            attached
        }
        other => panic!("expected an attachment, got {other:?}"),
    }
}

/// What an attach gives of the logs has to be all that there is to read, whatever a test does.
async fn is_what_a_read_gives(engine: &impl TestEngine, session: &SessionId, attached: &Attached) {
    let Some(unread) = &attached.unread else { return };
    assert_eq!(attached.ceiling, None);
    assert!(attached.subscriptions.iter().all(|one| one.replay.is_none()));
    match read(engine, session, attached, MANY).await {
        Read::Snapshot(snapshot) => {
            assert_eq!(&snapshot.deliveries, unread);
            assert!(!snapshot.truncated && snapshot.lost.is_none());
        }
        // Tests of epochs and of ended sessions.
        Read::Stale | Read::Unknown | Read::Outdated => {}
        Read::Gap(_) => panic!("a gap that the attach has not seen"),
    }
}

pub async fn attach_poll(engine: &impl TestEngine, session: &SessionId, id: &str) -> Attached {
    attach(engine, session, Link::Poll { connect_id: Some(id), retry: false, claim: None }).await
}

/// Reads all logs of an attachment past its cursor.
pub async fn read(engine: &impl TestEngine, session: &SessionId, attached: &Attached, max_messages: usize) -> Read {
    let cursor = attached.cursor.get(PartitionId::default());
    let from: Vec<_> = attached.subscriptions.iter().map(|one| (one.pattern.clone(), one.since.max(cursor))).collect();
    let request = ReadRequest {
        session,
        epoch: attached.epoch,
        version: attached.version,
        from: &from,
        max_messages,
        max_bytes: 1 << 20,
    };
    engine.read(request).await.expect("read")
}

pub async fn snapshot(engine: &impl TestEngine, session: &SessionId, attached: &Attached) -> Snapshot {
    match read(engine, session, attached, MANY).await {
        Read::Snapshot(snapshot) => snapshot,
        other => panic!("expected a snapshot, got {other:?}"),
    }
}

pub fn positions(deliveries: &[Arc<Delivery>]) -> Vec<Position> {
    deliveries.iter().map(|delivery| delivery.position).collect()
}

/// Records that a reply carries everything up to `upto`.
pub async fn record(
    engine: &impl TestEngine,
    session: &SessionId,
    attached: &Attached,
    id: Option<&str>,
    upto: Position,
) -> Record {
    record_reach(engine, session, attached, id, &Cursor::single(upto).into()).await
}

/// As [`record`], for a reply that carries part of a replay too.
pub async fn record_reach(
    engine: &impl TestEngine,
    session: &SessionId,
    attached: &Attached,
    id: Option<&str>,
    upto: &Reach,
) -> Record {
    let (epoch, version) = (attached.epoch, attached.version);
    engine.record(RecordRequest { session, epoch, version, connect_id: id, upto }).await.expect("an outcome")
}

pub fn commit(session: &SessionId, attached: &Attached, upto: Position, progress: Progress) -> Commit {
    let (epoch, version) = (attached.epoch, attached.version);
    Commit { session: session.clone(), epoch, version, upto: Cursor::single(upto).into(), progress }
}

/// Lets time pass as it does for a running engine: swept all the while. Gives who ended.
pub async fn pass(engine: &impl TestEngine, time: Duration) -> Vec<EndedSession> {
    let mut ended = Vec::new();
    for _ in 0..time.as_secs_f64().ceil() as usize {
        engine.advance(Duration::from_secs(1)).await;
        ended.extend(engine.sweep(MANY).await.expect("swept"));
    }
    ended
}

/// What the feed holds now, but for its own state.
pub async fn drain(engine: &impl TestEngine, feed: &mut Feed) -> Vec<FeedEvent> {
    engine.fence().await;
    let state = |event: &FeedEvent| matches!(event, FeedEvent::Broken | FeedEvent::Restored);
    std::iter::from_fn(|| feed.try_recv().ok()).filter(|event| !state(event)).collect()
}

macro_rules! suites {
    ($($module:ident :: $test:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    $module::$test(<Memory as Fixture>::new().await).await;
                }
            )*
        }

        mod redis {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    $module::$test(<OnRedis as Fixture>::new().await).await;
                }
            )*
        }
    };
}

suites!(
    sessions::sessions_expire_unless_heard_of,
    sessions::sessions_are_bounded,
    sessions::redis_away_longer_than_session,
    sessions::subscriptions_are_bounded,
    sessions::expire_vs_attach,
    sessions::expire_vs_subscribe,
    sessions::late_record_no_resurrection,
    sessions::an_ended_session_leaves_nothing,
    sessions::disconnect_while_attached_elsewhere,
    sessions::resubscribe_keeps_since,
    sessions::subscribing_tells_the_attached_node_before_later_messages,
    sessions::stale_epochs_write_nothing,
    sessions::inactive_sessions_end,
    sessions::unknown_subscriptions_confirm_nothing,
    attach::another_id_confirms,
    attach::a_connect_without_id_confirms,
    attach::the_same_id_is_a_retry_that_never_grows,
    attach::a_retry_by_the_clients_word_is_a_retry,
    attach::released_replies_confirm_nothing,
    attach::old_id_copy_after_new_poll,
    attach::ids_that_cycle_do_not_starve,
    attach::the_newest_eight_ids_are_remembered,
    attach::a_page_loaded_again_gets_the_lost_reply,
    attach::constant_connect_id_ends,
    attach::a_socket_clears_the_record_of_its_own_id,
    attach::opening_a_stream_confirms_nothing,
    attach::a_streams_last_event_confirms_within_the_clock,
    attach::a_streams_last_event_does_not_confirm_a_poll,
    attach::heartbeats_without_a_stream_confirm_nothing,
    attach::a_poll_that_crosses_the_opening_of_a_stream_leaves_it_alone,
    attach::retries_under_new_ids_are_never_taken_for_a_constant_id,
    attach::the_answered_connect_is_over,
    attach::a_copy_that_carries_forbids_the_empty_reply,
    attach::heartbeats_confirm_what_was_written_one_heartbeat_ago,
    attach::a_superseded_stream_stays_closed,
    attach::another_nodes_attach_is_told_to_the_first,
    attach::commit_after_detach,
    logs::positions_rise_and_are_the_same_in_every_log,
    logs::a_message_is_read_once_however_many_patterns_match,
    logs::two_logs_one_snapshot,
    logs::an_attach_gives_the_little_that_is_unread,
    logs::an_attach_sees_a_gap,
    logs::truncated_read_ceiling,
    logs::messages_before_the_subscription_are_not_read,
    logs::the_feed_carries_what_is_listened_to_with_its_predecessor,
    logs::a_log_lives_as_long_as_a_subscriber,
    logs::trimmed_log_is_gap,
    logs::trimmed_empty_log_is_gap,
    logs::a_gap_is_seen_beside_a_log_that_is_read_in_part,
    logs::no_false_gap_after_unsubscribe,
    logs::service_channels_reach_service_patterns_only,
    delivery::an_acknowledgement_confirms_up_to_its_number,
    delivery::nothing_else_confirms_where_acknowledgements_are_in_use,
    delivery::claims_count_only_where_they_were_agreed_on,
    delivery::claims_are_clamped_to_the_clock,
    delivery::a_position_is_where_it_starts,
    delivery::a_gap_is_told_and_the_session_goes_on,
    delivery::a_gap_says_up_to_where,
    delivery::a_new_session_goes_on_where_the_old_one_was,
    delivery::a_new_session_is_told_what_it_cannot_know,
    delivery::a_log_waits_for_who_may_return,
    delivery::a_log_does_not_wait_for_who_disconnected,
    delivery::making_a_session_again_makes_it_anew,
    replay::everything_that_is_kept_is_replayed,
    replay::a_replay_starts_past_a_position,
    replay::positions_that_are_no_longer_kept_are_a_gap,
    replay::only_the_newest_messages_are_replayed,
    replay::only_young_messages_are_replayed,
    replay::a_replay_under_way_does_not_age,
    replay::a_replay_that_is_overtaken_is_told,
    replay::channels_are_kept_without_subscribers,
    replay::a_kept_channel_ends_with_its_age,
    replay::kept_channels_are_bounded,
    replay::a_channel_without_a_log_replays_nothing,
    replay::a_replay_is_read_in_chunks_up_to_its_subscription,
    replay::a_replay_is_confirmed_apart,
    replay::progress_of_an_older_replay_counts_nothing,
    replay::a_repeated_connect_replays_no_more_than_before,
    replay::an_acknowledgement_does_not_confirm_a_replay,
    replay::subscribing_again_replays_nothing,
    replay::a_kept_log_reaches_back_for_who_resumes,
    repeats::a_repeated_publish_is_stored_once,
    repeats::a_publish_resent_elsewhere_is_stored_once,
    repeats::other_content_is_another_message,
    repeats::repetitions_are_forgotten_after_the_window,
    repeats::fingerprints_are_bounded,
);
