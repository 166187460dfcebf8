//! Random faults between clients and a cluster: three nodes on one Redis behind a proxy, clients over each link, two that
//! publish and four that listen, all through the proxy. Connections are cut or stand still, replies are lost,
//! WebSockets refused for a while, nodes stopped and replaced, Redis stands still. Every acknowledged publish has to come to
//! each listener exactly once, in the order of its publisher and in one order for all.
//!
//! The faults follow from the seed; the network adds its own timing. `CLIENT_SEED=n` replays one run, `CLIENT_RUNS=n`
//! searches through more.

use std::collections::BTreeSet;
use std::time::Duration;

use weft::client::Transport::{LongPolling, WebSocket};
use weft::client::{ClientBuilder, Transport};

use super::{connected, quick, subscribed};
use crate::support::node::{TestNode, node};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::within;

const RUNS: u64 = 4;
const STEPS: usize = 60;
const LISTENERS: [&[Transport]; 4] =
    [&[WebSocket], &[LongPolling], &[WebSocket, LongPolling], &[LongPolling, WebSocket]];
const SPEAKERS: [&[Transport]; 2] = [&[WebSocket], &[LongPolling]];
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn nothing_is_lost_or_doubled() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("CLIENT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CLIENT_RUNS").unwrap_or(RUNS),
    };
    for seed in seeds {
        println!("CLIENT_SEED={seed}");
        within(LIMIT * 2, "a run", run(seed)).await;
    }
}

struct World {
    redis: Redis,
    nodes: Vec<TestNode>,
    proxy: Proxy,
    random: fastrand::Rng,
    log: Vec<String>,
}

async fn start(redis: &Redis) -> TestNode {
    node(|config| {
        config.engine = weft::node::EngineKind::Redis;
        config.redis.url = redis.url();
        config.timeout = Duration::from_secs(5);
    })
    .await
}

fn patient(url: &str, transports: &[Transport]) -> ClientBuilder {
    quick(url)
        .transports(transports)
        .hold(Duration::from_millis(400))
        .liveness(Duration::from_millis(300), Duration::from_millis(300))
        .patience(Duration::from_secs(3))
        .upgrade(Duration::from_millis(200))
        .publish_timeout(LIMIT)
}

impl World {
    fn point_proxy(&self) {
        self.proxy.set_targets(self.nodes.iter().map(TestNode::addr));
    }

    async fn fault(&mut self) {
        let what = match self.random.u32(0..12) {
            0..3 => {
                self.proxy.cut();
                "cut".to_owned()
            }
            3 => {
                self.proxy.freeze();
                "freeze".to_owned()
            }
            4..8 => {
                self.proxy.lose_reply();
                "lose a reply".to_owned()
            }
            8 => {
                let refuse = self.random.bool();
                self.proxy.refuse_sockets(refuse);
                format!("refuse sockets: {refuse}")
            }
            9 => {
                let at = self.random.usize(0..self.nodes.len());
                let new = start(&self.redis).await;
                let old = std::mem::replace(&mut self.nodes[at], new);
                self.point_proxy();
                if self.random.bool() {
                    old.stop().await;
                    format!("node {at} stops and is replaced")
                } else {
                    // Without a word to anybody.
                    self.proxy.cut();
                    drop(old);
                    format!("node {at} dies and is replaced")
                }
            }
            10 => {
                let pause = Duration::from_millis(self.random.u64(50..700));
                self.redis.signal("STOP");
                tokio::time::sleep(pause).await;
                self.redis.signal("CONT");
                format!("Redis stands still for {pause:?}")
            }
            _ => "nothing".to_owned(),
        };
        self.log.push(what);
    }
}

async fn run(seed: u64) {
    let redis = Redis::start().await;
    let nodes = vec![start(&redis).await, start(&redis).await, start(&redis).await];
    let proxy = Proxy::start(nodes.iter().map(TestNode::addr)).await;
    let mut world = World { redis, nodes, proxy, random: fastrand::Rng::with_seed(seed), log: Vec::new() };
    let url = world.proxy.url();

    let mut listeners = Vec::new();
    for transports in LISTENERS {
        let client = connected(patient(&url, transports)).await;
        let narrow = subscribed(&client, "/n/0").await;
        let wide = subscribed(&client, "/n/*").await;
        listeners.push((client, narrow, wide));
    }
    let mut speakers = Vec::new();
    for transports in SPEAKERS {
        speakers.push(connected(patient(&url, transports)).await);
    }

    // (speaker, number), and whether it was acknowledged.
    let mut publishes = Vec::new();
    for step in 0..STEPS {
        for (speaker, client) in speakers.iter().enumerate() {
            let (client, channel) = (client.clone(), format!("/n/{}", step % 2));
            let sent = tokio::spawn(async move { client.publish(&channel, &(speaker, step)).await });
            publishes.push(((speaker, step), sent));
        }
        world.fault().await;
        let pause = Duration::from_millis(world.random.u64(0..60));
        // Part of the schedule that the seed makes, not a wait for something.
        tokio::time::sleep(pause).await;
    }
    world.proxy.refuse_sockets(false);
    let mut acknowledged = BTreeSet::new();
    for (what, sent) in publishes {
        let outcome = within(LIMIT, "a publish settles", sent).await.expect("no panic");
        assert!(outcome.is_ok(), "seed {seed}: {what:?} failed with {outcome:?}; {:#?}", world.log);
        acknowledged.insert(what);
    }

    let mut orders = Vec::new();
    for (number, (client, narrow, wide)) in listeners.iter_mut().enumerate() {
        let mut all = Vec::new();
        for (subscription, owed) in [
            (wide, acknowledged.clone()),
            (narrow, acknowledged.iter().copied().filter(|(_, step)| step % 2 == 0).collect::<BTreeSet<_>>()),
        ] {
            let mut came = Vec::new();
            while came.len() < owed.len() {
                let next = tokio::time::timeout(LIMIT, subscription.next()).await;
                let missing = || owed.difference(&came.iter().copied().collect()).copied().collect::<Vec<_>>();
                let Ok(Some(message)) = next else {
                    panic!("seed {seed}: listener {number} misses {:?}; {:#?}", missing(), world.log);
                };
                let what: (usize, usize) = message.data().expect("a pair");
                assert!(!came.contains(&what), "seed {seed}: {what:?} comes twice to {number}; {:#?}", world.log);
                came.push(what);
            }
            for speaker in 0..SPEAKERS.len() {
                for channel in 0..2 {
                    let of = |(by, step): &&(usize, usize)| *by == speaker && step % 2 == channel;
                    let steps: Vec<_> = came.iter().filter(of).map(|(_, step)| *step).collect();
                    assert!(steps.is_sorted(), "seed {seed}: {steps:?} of {speaker} at {number}; {:#?}", world.log);
                }
            }
            all.push(came);
        }
        // One order of each channel for all.
        let even: Vec<_> = all[0].iter().copied().filter(|(_, step)| step % 2 == 0).collect();
        assert_eq!(even, all[1], "seed {seed}: two subscriptions of listener {number}");
        orders.push(all.swap_remove(0));
        within(LIMIT, "closing", client.close()).await;
    }
    for channel in 0..2 {
        let of = |order: &[(usize, usize)]| {
            order.iter().copied().filter(|(_, step)| step % 2 == channel).collect::<Vec<_>>()
        };
        for order in &orders {
            assert_eq!(of(order), of(&orders[0]), "seed {seed}: one order for all");
        }
    }
}
