//! Nodes that are killed and restarted, feeds that are cut, a Redis that stands still, dies, and comes back empty.

use std::time::Duration;

use super::crowd::{Crowd, Published};
use super::local::{Cluster, signal};

/// Half of the crowd each.
const SOCKETS: usize = 50;
const POLLS: usize = 50;
/// 200 messages a second.
const PACE: Duration = Duration::from_millis(5);
/// How long connects are held: short, so that idle polls end within a run too.
const TIMEOUT: [&str; 2] = ["--timeout", "5s"];

/// Runs `trouble` in the middle of a stream of messages; gives the cluster, what was published, and how many deliveries
/// came again.
async fn under_load(what: &str, trouble: impl AsyncFn(&Cluster)) -> (Cluster, Crowd, Published, usize) {
    let cluster = Cluster::start(&TIMEOUT).await;
    let crowd = Crowd::gather(&cluster.nodes(), SOCKETS, POLLS).await;
    let published = crowd
        .publish(0, PACE, async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            trouble(&cluster).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        })
        .await;
    let again = crowd.assert_served(&published).await;
    println!(
        "{what}: {} messages to {} subscribers, {} publishes failed, 0 lost, {again} deliveries twice",
        published.acknowledged.len(),
        crowd.len(),
        published.failed.len(),
    );
    (cluster, crowd, published, again)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_killed() {
    let (cluster, crowd, ..) = under_load("node killed", async |cluster| {
        signal("KILL", cluster.node_pid(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.command(&["start-node", "2"]).await;
    })
    .await;
    crowd.assert_sessions_lived();
    crowd.dismiss().await;
    cluster.stop().await;
}

/// A node stands still while others serve its sessions, and goes on as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_stands_still() {
    let (cluster, crowd, ..) = under_load("node stopped for 4 s", async |cluster| {
        signal("STOP", cluster.node_pid(2));
        tokio::time::sleep(Duration::from_secs(4)).await;
        signal("CONT", cluster.node_pid(2));
    })
    .await;
    crowd.assert_sessions_lived();
    crowd.dismiss().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_duplicates_nothing() {
    let (cluster, crowd, _, again) = under_load("rolling restart", async |cluster| {
        for node in ["1", "2", "3"] {
            cluster.command(&["stop-node", node]).await;
            cluster.command(&["start-node", node]).await;
        }
    })
    .await;
    crowd.assert_sessions_lived();
    assert_eq!(again, 0, "a node that stops in order repeats nothing");
    crowd.dismiss().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_cut_every_second() {
    let (cluster, crowd, published, again) = under_load("feeds cut", async |cluster| {
        for _ in 0..5 {
            let killed: i64 = cluster.redis(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            assert!(killed >= 1, "there are feeds to cut");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    crowd.assert_sessions_lived();
    assert_eq!((again, published.failed.len()), (0, 0), "nodes repair themselves, and clients notice nothing");
    crowd.dismiss().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stands_still() {
    let (cluster, crowd, published, _) = under_load("Redis stopped for 5 s", async |cluster| {
        signal("STOP", cluster.redis_pid());
        tokio::time::sleep(Duration::from_secs(5)).await;
        signal("CONT", cluster.redis_pid());
    })
    .await;
    crowd.assert_sessions_lived();
    assert!(published.slowest < Duration::from_secs(7), "a publish was answered after {:?}", published.slowest);
    cluster.assert_no_node_ended();
    crowd.dismiss().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_comes_back_empty() {
    let cluster = Cluster::start(&TIMEOUT).await;
    let crowd = Crowd::gather(&cluster.nodes(), SOCKETS, POLLS).await;
    let before = crowd.publish(0, PACE, tokio::time::sleep(Duration::from_secs(1))).await;
    crowd.assert_served(&before).await;

    signal("KILL", cluster.redis_pid());
    let away = crowd.publish(10_000, PACE, tokio::time::sleep(Duration::from_secs(4))).await;
    assert!(away.acknowledged.is_empty(), "nothing is acknowledged that is not stored: {:?}", away.acknowledged);
    assert!(!away.failed.is_empty(), "publishes are answered");
    assert!(away.slowest < Duration::from_secs(6), "within a bound, not after {:?}", away.slowest);
    assert!(away.failed.values().all(|said| said.contains("503:")), "{:?}", away.failed);

    cluster.command(&["start-redis"]).await;
    let took = crowd.reach_everybody(20_000, Duration::from_secs(20)).await;
    let (told, resuming) = crowd.told_of_gaps();
    println!("Redis back empty: all {} clients receive again after {took:?}", crowd.len());
    assert_eq!(told, resuming, "who resumes is told that messages may be missing");
    assert!(took < Duration::from_secs(10), "all clients receive again after {took:?}");
    cluster.assert_no_node_ended();
    crowd.dismiss().await;
    cluster.stop().await;
}
