//! What an idle poll costs: round trips to Redis, counted by Redis.

use super::*;

/// How often the nodes have called Redis so far: scripts, and everything else but the feeds' pings.
async fn calls(redis: &Redis) -> (u64, u64) {
    let stats: String = redis.ask(&["INFO", "commandstats"]).await;
    let (mut scripts, mut others) = (0, 0);
    for line in stats.lines() {
        let Some((command, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else {
            continue;
        };
        let count: u64 = rest.split(',').next().and_then(|count| count.parse().ok()).expect("a count");
        match command {
            "evalsha" => scripts += count,
            "subscribe" | "unsubscribe" | "publish" | "script|load" | "eval" => others += count,
            _ => {}
        }
    }
    (scripts, others)
}

/// A client with fifty subscriptions that polls one node after the other.
pub async fn idle_polls_cost_two_round_trips(world: World) {
    let SharedEngine::Redis(redis) = &world.engine else { return };
    let nodes = [world.node().await, world.node().await, world.node().await];
    let patterns: Vec<_> = (0..50).map(|number| format!("/channel/{number}")).collect();
    let session = nodes[0].session(&patterns.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // Once around, so that every node listens.
    for (number, node) in nodes.iter().enumerate() {
        assert!(node.poll_now(&session, &format!("first{number}")).await.is_empty());
    }
    let before = calls(redis).await;
    const CYCLES: u64 = 30;
    for number in 0..CYCLES {
        let node = &nodes[number as usize % nodes.len()];
        assert!(node.poll_now(&session, &number.to_string()).await.is_empty());
    }
    let after = calls(redis).await;
    let (scripts, others) = (after.0 - before.0, after.1 - before.1);
    println!("{CYCLES} idle polls, 50 subscriptions, 3 nodes: {scripts} scripts, {others} other commands");
    assert_eq!(scripts, 2 * CYCLES, "attach and conclude");
    assert!(others <= CYCLES, "nothing but the word to the node that held the session before: {others}");
}

/// Polls go to one node after the other, each answered by a message, whether somebody else is subscribed or not: no node reads
/// the log, although it has not heard of what others delivered.
pub async fn polls_answered_on_many_nodes_read_nothing(world: World) {
    let SharedEngine::Redis(redis) = &world.engine else { return };
    let nodes = [world.node().await, world.node().await, world.node().await];
    for (alone, session) in [(false, nodes[0].session(&["/a"]).await), (true, nodes[0].lone_session(&["/b"]).await)] {
        const CYCLES: u64 = 30;
        let mut before = calls(redis).await;
        for number in 0..CYCLES + 3 {
            // Once around, so that every node listens, if it has to.
            if number == 3 && !alone {
                before = calls(redis).await;
            }
            let poll = nodes[number as usize % nodes.len()].poll(&session, &number.to_string());
            world.quiesce().await;
            let channel = if alone { "/b" } else { "/a" };
            nodes[(number as usize + 1) % nodes.len()].publish(channel, number).await;
            let answer = soon("the poll is answered", poll).await.expect("no panic");
            let Answer::Messages(numbers, receipt, _) = answer else { panic!("messages, but {}", answer.name()) };
            receipt.written();
            assert_eq!(numbers, [number]);
        }
        world.quiesce().await;
        let (after, cycles) = (calls(redis).await, if alone { CYCLES + 3 } else { CYCLES });
        assert_eq!(after.0 - before.0, 3 * cycles, "attach, publish and record; alone: {alone}");
        println!("{cycles} cycles, alone {alone}: {} other commands", after.1 - before.1);
    }
}
