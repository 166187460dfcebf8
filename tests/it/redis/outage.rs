//! A Redis that is away, in every way it can be: publishes are answered with an error within a bound, nodes stay up and say
//! that they are not ready, and everything goes on by itself when it is back.

use weft::{Config, LocalClient, LocalSubscription, Node};

use super::*;
use crate::support::http::get;
use crate::support::{eventually, soon, within};

/// A publish is answered within the deadline of an engine call.
const ANSWERED: Duration = Duration::from_secs(6);

/// A node, with a client that is subscribed.
struct Scene {
    node: Node,
    client: LocalClient,
    messages: LocalSubscription,
    count: u64,
}

impl Scene {
    async fn on(redis: &Redis) -> Self {
        let free = "127.0.0.1:0".parse().expect("an address");
        let mut config = Config { listen: free, internal_listen: free, ..Config::default() };
        config.redis.url = redis.url();
        let node = Node::start(config).await.expect("the node starts");
        soon("the node is ready", node.ready()).await;
        let client = node.client().await.expect("a client");
        let messages = client.subscribe("/a").await.expect("subscribed");
        Self { node, client, messages, count: 0 }
    }

    async fn publish(&mut self) -> Result<(), weft::server::LocalError> {
        self.count += 1;
        within(ANSWERED, "a publish is answered", self.client.publish("/a", &self.count)).await
    }

    async fn assert_away(&mut self, how: &str) {
        let error = self.publish().await.expect_err("nothing can be stored").to_string();
        assert!(error.contains("503:"), "{how}: {error}");
        eventually(Duration::from_secs(15), "the node says that it is not ready", async || {
            let answer = get(self.node.internal_addr(), "/readyz", &[]).await;
            (answer.status == 503).then_some(())
        })
        .await;
        assert_eq!(get(self.node.internal_addr(), "/healthz", &[]).await.status, 200, "{how}");
    }

    /// Everything flows again: the subscription from before brings what is published now.
    async fn assert_back(&mut self, how: &str) {
        within(Duration::from_secs(15), "the node is ready again", self.node.ready()).await;
        within(Duration::from_secs(10), "a publish is stored", async { while self.publish().await.is_err() {} }).await;
        loop {
            let (_, message) = within(Duration::from_secs(10), how, self.messages.next()).await.expect("it goes on");
            if message.data.expect("data").get().parse() == Ok(self.count) {
                return;
            }
        }
    }
}

/// Makes trouble, looks, ends it, looks again.
async fn away(how: &str, redis: &mut Redis, begin: impl AsyncFn(&mut Redis), end: impl AsyncFn(&mut Redis)) {
    let mut scene = Scene::on(redis).await;
    scene.publish().await.expect("stored");
    begin(redis).await;
    scene.assert_away(how).await;
    end(redis).await;
    scene.assert_back(how).await;
    assert!(within(Duration::from_secs(30), "the node stops", scene.node.stop()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused() {
    let mut redis = Redis::start().await;
    away("refused", &mut redis, async |redis| redis.kill().await, async |redis| redis.restart().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung() {
    let mut redis = Redis::start().await;
    away("hung", &mut redis, async |redis| redis.signal("STOP"), async |redis| redis.signal("CONT")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_replica() {
    let mut redis = Redis::start().await;
    let begin = async |redis: &mut Redis| redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let end = async |redis: &mut Redis| redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    away("read-only replica", &mut redis, begin, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    let mut redis = Redis::start().await;
    let begin = async |redis: &mut Redis| redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let end = async |redis: &mut Redis| redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    away("out of memory", &mut redis, begin, end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy() {
    let mut redis = Redis::start_with(&["--lua-time-limit", "50"]).await;
    let begin = async |redis: &mut Redis| {
        redis.ask_in_background(&["EVAL", "while true do end", "0"]);
        eventually(Duration::from_secs(10), "Redis is busy", async || {
            let asked = redis.try_ask::<String>(&["PING"]).await;
            asked.is_err_and(|error| error.to_string().contains("BUSY")).then_some(())
        })
        .await;
    };
    let end = async |redis: &mut Redis| redis.ask::<()>(&["SCRIPT", "KILL"]).await;
    away("busy", &mut redis, begin, end).await;
}

/// Redis loads its data: slowly, because it was told to take its time over each key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading() {
    let mut redis = Redis::start().await;
    let mut scene = Scene::on(&redis).await;
    redis.ask::<()>(&["EVAL", "for i = 1, 400 do redis.call('SET', 'ballast:' .. i, i) end", "0"]).await;
    redis.ask::<()>(&["SAVE"]).await;
    redis.restart_loading(&["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]).await;
    scene.assert_away("loading").await;
    redis.answers().await;
    scene.assert_back("loading").await;
}

/// Redis cuts a feed that it cannot get rid of: the log tells what it should have brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_buffer_limit() {
    let redis = Redis::start().await;
    let mut scene = Scene::on(&redis).await;
    redis.ask::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 0 0"]).await;
    let large = "x".repeat(300_000);
    for _ in 0..3 {
        scene.client.publish("/a", &large).await.expect("stored");
        let (_, message) =
            within(ANSWERED, "the message comes all the same", scene.messages.next()).await.expect("it goes on");
        assert_eq!(message.data.expect("data").get().len(), large.len() + 2);
    }
    assert_eq!(scene.messages.missed(), 0);
}

/// A node that does not take in what is announced gives its feed up, rather than letting later messages pass. What waits is
/// bounded by its number and by its bytes.
#[tokio::test]
async fn overflowing_feed_is_broken() {
    for (events, bytes, most) in [(8, 1 << 20, 8), (1000, 400, 14)] {
        let redis = Redis::start().await;
        let (node, mut feed) =
            redis.node(|settings| (settings.feed_events, settings.feed_bytes) = (events, bytes)).await;
        let (_another, session) = (session(&node, &["/a"]).await, session(&node, &["/a"]).await);
        assert!(matches!(feed.recv().await, Some(FeedEvent::Restored)));
        node.listen(&[pattern("/a")]).await.expect("listening");
        for number in 0..20 {
            publish(&node, "/a", &number.to_string()).await;
        }
        let mut seen = Vec::new();
        loop {
            // Kept: what is not handed on keeps its room.
            match soon("an event", feed.recv()).await.expect("the feed goes on") {
                event @ FeedEvent::Message { .. } => seen.push(event),
                FeedEvent::Broken => break,
                other => panic!("{other:?}"),
            }
        }
        assert!((1..=most).contains(&seen.len()), "{} of 20 passed, and nothing after the first lost", seen.len());
        assert_eq!(unread(&node, &session, "1").await, (0..20).collect::<Vec<_>>());
    }
}

/// A node may start before its Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_starts_first() {
    let mut redis = Redis::start().await;
    redis.kill().await;
    let free = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config { listen: free, internal_listen: free, ..Config::default() };
    config.redis.url = redis.url();
    let node = Node::start(config).await.expect("the node starts");
    assert_eq!(get(node.internal_addr(), "/readyz", &[]).await.status, 503);
    redis.restart().await;
    within(Duration::from_secs(15), "the node is ready", node.ready()).await;
}
