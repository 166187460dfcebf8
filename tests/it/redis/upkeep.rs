//! What stays in Redis, and for how long.

use super::*;

/// Every key goes by itself when all nodes are gone.
#[tokio::test]
async fn every_key_has_a_time_to_live() {
    let mut redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    // A loss makes the key of the era too.
    publish(&node, "/x", "0").await;
    redis.restart().await;
    let session = session(&node, &["/a", "/a/*"]).await;
    publish(&node, "/a", "1").await;
    publish(&node, "/a/b", "2").await;
    crate::contract::attach_poll(&node, &session, "1").await;
    node.sweep(MANY).await.expect("swept");
    let keys: Vec<String> = redis.ask(&["KEYS", "*"]).await;
    for kind in [
        "clock",
        "era",
        "meta",
        "deadlines",
        "logs",
        "session:",
        "subscriptions:",
        "subscribers:/a",
        "head:/a",
        "log:/a",
    ] {
        assert!(keys.iter().any(|key| key.contains(kind)), "no {kind} in {keys:?}");
    }
    for key in &keys {
        let left: i64 = redis.ask(&["TTL", key]).await;
        assert!(left > 0, "{key} has no time to live: {left}");
    }
}

/// A channel that nobody publishes to, whose subscriber only polls: its keys outlive their first time to live.
#[tokio::test]
async fn subscriber_set_survives_ttl() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    let keys = ["subscribers:/a", "head:/a", "log:/a"].map(|name| format!("{{weft:0}}:{name}"));
    for key in &keys {
        redis.ask::<()>(&["EXPIRE", key, "20"]).await;
    }
    node.advance(Duration::from_secs(60)).await.expect("moved on");
    node.touch(&session, None).await.expect("alive");
    for key in &keys {
        assert_eq!(redis.ask::<i64>(&["TTL", key]).await, 20, "{key} is refreshed now and then, not each time");
    }
    node.advance(Duration::from_secs(80)).await.expect("moved on");
    node.touch(&session, None).await.expect("alive");
    for key in &keys {
        assert!(redis.ask::<i64>(&["TTL", key]).await > 300, "{key} is refreshed");
    }
    assert_eq!(unread(&node, &session, "1").await, [1]);
}

/// Nodes with other time-outs, while a cluster is changed: the keys are extended by the life that they were given.
#[tokio::test]
async fn keys_are_extended_by_the_life_they_have() {
    let redis = Redis::start().await;
    let (short, _feed) = redis.node(|settings| settings.key_ttl = Duration::from_secs(90)).await;
    let (long, _feed) = redis.node(|settings| settings.key_ttl = Duration::from_secs(900)).await;
    let session = session(&short, &["/a"]).await;
    let key = format!("{{weft:0}}:session:{}", session.as_str());
    long.advance(Duration::from_secs(20)).await.expect("moved on");
    long.touch(&session, None).await.expect("alive");
    let life = redis.ask::<i64>(&["TTL", &key]).await;
    assert!((60..=90).contains(&life), "it is not due yet: {life}");
    long.advance(Duration::from_secs(15)).await.expect("moved on");
    long.touch(&session, None).await.expect("alive");
    assert!(redis.ask::<i64>(&["TTL", &key]).await > 800);
    // The other way round nothing lives for less than before.
    for _ in 0..3 {
        short.touch(&session, None).await.expect("alive");
        publish(&short, "/a", "1").await;
        short
            .subscribe(&crate::contract::session(&short, &[]).await, &pattern("/a"), MANY, None)
            .await
            .expect("subscribed");
        for key in [&key, "{weft:0}:subscribers:/a", "{weft:0}:head:/a"] {
            assert!(redis.ask::<i64>(&["TTL", key]).await > 800, "{key}");
        }
        long.advance(Duration::from_secs(31)).await.expect("moved on");
    }
    // What a node with short lives adds to a session is extended in time by the others.
    long.touch(&session, None).await.expect("alive");
    short.subscribe(&session, &pattern("/new"), MANY, None).await.expect("subscribed");
    let subscriptions = format!("{{weft:0}}:subscriptions:{}", session.as_str());
    assert!(redis.ask::<i64>(&["TTL", &subscriptions]).await > 800);
    long.advance(Duration::from_secs(31)).await.expect("moved on");
    long.touch(&session, None).await.expect("alive");
    for key in ["{weft:0}:subscribers:/new", "{weft:0}:head:/new"] {
        assert!(redis.ask::<i64>(&["TTL", key]).await > 800, "{key}");
    }
}

/// A set of subscribers that Redis lost comes back with the next sign of life.
#[tokio::test]
async fn a_lost_subscriber_set_is_repaired() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let (one, other) = (session(&node, &["/a"]).await, session(&node, &["/a"]).await);
    redis.ask::<()>(&["DEL", "{weft:0}:subscribers:/a"]).await;
    node.advance(Duration::from_secs(140)).await.expect("moved on");
    node.touch(&one, None).await.expect("alive");
    node.touch(&other, None).await.expect("alive");
    assert_eq!(redis.ask::<i64>(&["SCARD", "{weft:0}:subscribers:/a"]).await, 2);
}

/// Subscribers that Redis lost could not leave: others find them, and the log goes with the last.
#[tokio::test]
async fn orphaned_subscribers_are_removed() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let (lost, living) = (session(&node, &["/a", "/b"]).await, session(&node, &["/b"]).await);
    publish(&node, "/a", "1").await;
    for key in ["session:", "subscriptions:"] {
        redis.ask::<()>(&["DEL", &format!("{{weft:0}}:{key}{lost}")]).await;
    }
    node.advance(Duration::from_secs(1)).await.expect("moved on");
    node.sweep(MANY).await.expect("swept");
    assert_eq!(
        redis.ask::<i64>(&["EXISTS", "{weft:0}:subscribers:/a", "{weft:0}:log:/a", "{weft:0}:head:/a"]).await,
        0
    );
    assert_eq!(redis.ask::<Vec<String>>(&["SMEMBERS", "{weft:0}:subscribers:/b"]).await, [living.as_str()]);
}

/// A log that nobody publishes to any more gives its memory back.
#[tokio::test]
async fn old_entries_go_without_new_ones() {
    let redis = Redis::start_with(&["--stream-node-max-entries", "1"]).await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    for number in 0..10 {
        publish(&node, "/a", &number.to_string()).await;
    }
    assert_eq!(unread(&node, &session, "1").await.len(), 10);
    for _ in 0..5 {
        node.advance(Duration::from_secs(60)).await.expect("moved on");
        node.touch(&session, None).await.expect("alive");
        node.sweep(MANY).await.expect("swept");
    }
    assert!(redis.ask::<i64>(&["XLEN", "{weft:0}:log:/a"]).await <= 1);
}

/// A message costs the same memory whoever subscribes.
#[tokio::test]
async fn a_log_does_not_grow_with_its_subscribers() {
    let mut sizes = Vec::new();
    for subscribers in [1, 300] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        for _ in 0..subscribers {
            session(&node, &["/a"]).await;
        }
        for number in 0..100 {
            publish(&node, "/a", &number.to_string()).await;
        }
        // As it is stored: what it takes of the allocator is rounded up by 2 KiB.
        redis.ask::<()>(&["CONFIG", "SET", "rdbcompression", "no"]).await;
        let log: Vec<u8> = redis.ask(&["DUMP", "{weft:0}:log:/a"]).await;
        let head: i64 = redis.ask(&["MEMORY", "USAGE", "{weft:0}:head:/a"]).await;
        sizes.push((log.len(), head));
    }
    // The encoding of positions differs by some bytes from run to run; a byte for each subscriber would be more.
    let ((one_log, one_head), (many_log, many_head)) = (sizes[0], sizes[1]);
    assert!(one_log.abs_diff(many_log) < 299, "bytes of the log with 1 and 300 subscribers: {one_log}, {many_log}");
    assert_eq!(one_head, many_head, "bytes of the head with 1 and 300 subscribers");
}

/// The same number of commands whoever subscribes.
#[tokio::test]
async fn a_publish_costs_a_constant_number_of_commands() {
    let mut counts = Vec::new();
    // The only subscriber's node is asked for: two more.
    for subscribers in [1, 2, 300] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        for _ in 0..subscribers {
            let session = session(&node, &["/a"]).await;
            crate::contract::attach_poll(&node, &session, "1").await;
        }
        publish(&node, "/a", "0").await;
        redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
        for number in 0..10 {
            publish(&node, "/a", &number.to_string()).await;
        }
        let stats: String = redis.ask(&["INFO", "commandstats"]).await;
        let calls = |line: &str| {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let ours = !matches!(command, "ping" | "info" | "config|resetstat" | "hello" | "client|setinfo");
            ours.then(|| (command.to_owned(), rest.split(',').next().unwrap_or_default().to_owned()))
        };
        counts.push(stats.lines().filter_map(calls).collect::<std::collections::BTreeMap<_, _>>());
    }
    assert_eq!(counts[1], counts[2], "commands with 2 and 300 subscribers");
    let all = |counts: &std::collections::BTreeMap<_, String>| -> u64 {
        counts.values().map(|count| count.parse::<u64>().expect("a number")).sum()
    };
    assert!(all(&counts[0]) <= all(&counts[1]) + 20, "commands with 1 and 2 subscribers: {counts:?}");
    println!("ten publishes: {:?}", counts[2]);
}

/// Several clusters share a Redis, by prefix or by database, and hear nothing of each other.
#[tokio::test]
async fn clusters_share_a_redis() {
    let redis = Redis::start().await;
    let (one, mut one_feed) = redis.node(|_| {}).await;
    let other = redis.node(|settings| settings.prefix = "other".to_owned()).await;
    let third = redis.node(|settings| settings.url += "?db=3").await;
    let mine = session(&one, &["/a"]).await;
    one.listen(&[pattern("/a")]).await.expect("listening");
    for (node, _feed) in [&other, &third] {
        let theirs = session(node, &["/a"]).await;
        publish(node, "/a", "7").await;
        assert_eq!(unread(node, &theirs, "1").await, [7]);
        assert_eq!(node.touch(&mine, None).await, Ok(Touch::Unknown));
        assert_eq!(node.sessions().await, Ok(1));
    }
    assert!(unread(&one, &mine, "1").await.is_empty());
    assert!(crate::contract::drain(&one, &mut one_feed).await.is_empty());
}

/// A figure of `INFO memory`, in bytes.
async fn memory(redis: &Redis, name: &str) -> usize {
    let info: String = redis.ask(&["INFO", "memory"]).await;
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).expect("it is said")
}

/// Large messages behind small ones, whose size a script cannot know: it takes a few of them into its memory, not all.
#[tokio::test]
async fn a_read_of_mixed_sizes_is_bounded() {
    const LARGE: usize = 512 * 1024;
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    let large = format!("\"{}\"", "x".repeat(LARGE));
    for number in 0..100 {
        publish(&node, "/a", if number < 4 { "1" } else { &large }).await;
    }
    // It only rises: what publishing took stands in it already.
    let before = memory(&redis, "used_memory_peak").await;
    let attached = crate::contract::attach_poll(&node, &session, "1").await;
    let taken = crate::contract::snapshot(&node, &session, &attached).await.deliveries.len();
    assert!((1..=5).contains(&taken), "{taken}");
    let peak = memory(&redis, "used_memory_peak").await;
    assert!(peak < before + 24 * LARGE, "{before} bytes, and {peak} at the most");
}

/// However the messages are spread over many logs, a read gives about what it may, and looks at little more.
#[tokio::test]
async fn a_read_of_many_logs_is_bounded() {
    const LOGS: usize = 40;
    const MANY_LOGS: usize = 400;
    const MOST: usize = 50;
    // Each log with its number of messages, in the order in which they are published.
    let even: Vec<_> = (0..LOGS).rev().map(|log| (log, 60)).collect();
    let one_is_busy = vec![(7, 2400)];
    let the_others_later: Vec<_> = [(7, 2000)].into_iter().chain((8..LOGS).map(|log| (log, 5))).collect();
    let in_turn: Vec<_> = (0..20).flat_map(|_| (0..LOGS).map(|log| (log, if log == 3 { 81 } else { 1 }))).collect();
    // More logs than may be looked at for one answer.
    let in_long_turn: Vec<_> = (0..4).flat_map(|_| (0..MANY_LOGS).map(|log| (log * 7 % MANY_LOGS, 1))).collect();
    for (spread, logs, layout) in [
        ("even", LOGS, even),
        ("one", LOGS, one_is_busy),
        ("others later", LOGS, the_others_later),
        ("in turn", LOGS, in_turn),
        ("in long turn", MANY_LOGS, in_long_turn),
    ] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let patterns: Vec<_> = (0..logs).map(|number| format!("/a/{number}")).collect();
        let names: Vec<_> = patterns.iter().map(String::as_str).collect();
        let session = session(&node, &names).await;
        let mut published = Vec::new();
        for (log, count) in layout {
            for number in 0..count {
                published.push(publish(&node, names[log], &number.to_string()).await);
            }
        }
        let attached = crate::contract::attach_poll(&node, &session, "1").await;
        let since =
            |name: &&str| attached.subscriptions.iter().find(|one| one.pattern.as_str() == *name).map(|one| one.since);
        let starts: Vec<_> = names.iter().map(|name| (pattern(name), since(name).expect("subscribed"))).collect();
        let (mut frontier, mut seen, mut reads) = (Position::default(), Vec::new(), 0);
        loop {
            let from: Vec<_> = starts.iter().map(|(pattern, since)| (pattern.clone(), frontier.max(*since))).collect();
            let request = ReadRequest {
                session: &session,
                epoch: attached.epoch,
                version: attached.version,
                from: &from,
                max_messages: MOST,
                max_bytes: 1 << 20,
            };
            redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
            let Ok(Read::Snapshot(snapshot)) = node.read(request).await else { panic!("a snapshot") };
            let looked = calls_of(&redis, "xrange").await;
            assert!(
                looked <= (logs + 4 * MOST) as u64,
                "{spread}: {looked} for {} messages",
                snapshot.deliveries.len()
            );
            assert!(snapshot.lost.is_none() && snapshot.deliveries.len() <= MOST, "{spread}: {snapshot:?}");
            assert!(!snapshot.deliveries.is_empty() || !snapshot.truncated, "{spread}");
            seen.extend(snapshot.deliveries.iter().map(|delivery| delivery.position));
            frontier = snapshot.upto.get(Default::default());
            reads += 1;
            if !snapshot.truncated {
                break;
            }
        }
        assert!(seen == published, "{spread}: each once and in order: {} of {}", seen.len(), published.len());
        assert!(reads <= published.len() / MOST * 5 / 4 + 1, "{spread}: {reads} reads of {} messages", seen.len());
    }
}

/// Many overdue sessions with many subscriptions: ended in pieces, all of them.
#[tokio::test]
async fn large_sweeps_go_in_pieces() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let patterns: Vec<_> = (0..100).map(|number| format!("/a/{number}")).collect();
    let names: Vec<_> = patterns.iter().map(String::as_str).collect();
    for _ in 0..20 {
        session(&node, &names).await;
    }
    assert_eq!(node.sweep(MANY).await, Ok(vec![]));
    let ended = crate::contract::pass(&node, crate::contract::LIFETIME + Duration::from_secs(1)).await;
    assert_eq!(ended.len(), 20);
    assert!(ended.iter().all(|one| one.patterns.len() == 100));
    assert_eq!(node.sessions().await, Ok(0));
    let left: Vec<String> = redis.ask(&["KEYS", "*/a/*"]).await;
    assert!(left.is_empty(), "{left:?}");
}

/// At Redis' limit of memory nothing new is taken, but sessions live on, are served, and end.
#[tokio::test]
async fn sessions_live_and_end_without_memory() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let (living, dying) = (session(&node, &["/a"]).await, session(&node, &["/a", "/b"]).await);
    let position = publish(&node, "/a", "1").await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(
        node.create(Creation::new(&SessionId::random(), Duration::from_secs(90), MANY)).await,
        Err(EngineError::OutOfMemory)
    );
    assert_eq!(node.subscribe(&living, &pattern("/c"), MANY, None).await, Err(EngineError::OutOfMemory));
    assert_eq!(node.touch(&living, None).await, Ok(Touch::Alive));
    let attached = crate::contract::attach_poll(&node, &living, "1").await;
    assert_eq!(crate::contract::snapshot(&node, &living, &attached).await.deliveries.len(), 1);
    assert_eq!(crate::contract::record(&node, &living, &attached, Some("1"), position).await, Record::Recorded);
    assert!(unread(&node, &living, "2").await.is_empty());
    assert_eq!(node.end(&dying, Ended::Disconnected).await.expect("ended").expect("there was one").patterns.len(), 2);
    assert_eq!(node.sweep(MANY).await, Ok(vec![]));
}

/// One script reads no more than it gives, however many logs there are.
#[tokio::test]
async fn many_logs_are_read_within_bounds() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let patterns: Vec<_> = (0..200).map(|number| format!("/many/{number}")).collect();
    let session = session(&node, &patterns.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut published = Vec::new();
    for number in 0..4000_u64 {
        published.push(publish(&node, &patterns[number as usize % 200], &number.to_string()).await);
    }
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let mut attached = crate::contract::attach_poll(&node, &session, "1").await;
    let mut read = Vec::new();
    loop {
        let snapshot = crate::contract::snapshot(&node, &session, &attached).await;
        assert!(snapshot.deliveries.len() <= 256);
        read.extend(crate::contract::positions(&snapshot.deliveries));
        attached.cursor.raise_all(&snapshot.upto);
        if !snapshot.truncated {
            break;
        }
    }
    assert_eq!(read, published);
}
