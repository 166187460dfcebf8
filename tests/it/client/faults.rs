//! Each thing that breaks, by itself: noticed in time, nothing lost, nothing twice.

use std::time::Duration;

use tokio::time::Instant;
use weft::Client;
use weft::client::{Event, Transport};

use super::{TRANSPORTS, connected, event, numbers, over, publish, quick, subscribed};
use crate::support::node::{TestNode, node};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::{eventually, soon, within};

/// A node with a proxy before it, and a client that publishes beside the proxy.
async fn behind_proxy() -> (TestNode, Proxy, Client) {
    let node = node(|_| {}).await;
    let proxy = Proxy::start([node.addr()]).await;
    let speaker = connected(quick(&format!("http://{}/bayeux", node.addr()))).await;
    (node, proxy, speaker)
}

#[tokio::test]
async fn a_cut_link_is_replaced() {
    let (_node, proxy, speaker) = behind_proxy().await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &proxy.url())).await;
        let mut all = subscribed(&client, "/n").await;
        let mut events = client.events();
        let session = client.session();
        for number in 0..20 {
            publish(&speaker, "/n", 2 * number).await;
            if number % 5 == 0 {
                proxy.cut();
            }
            publish(&speaker, "/n", 2 * number + 1).await;
        }
        assert_eq!(numbers(&mut all, 40).await, (0..40).collect::<Vec<_>>(), "{transport:?}");
        event(&mut events, "resumed", |event| *event == Event::Resumed { transport }).await;
        assert_eq!(client.session(), session);
    }
}

#[tokio::test]
async fn lost_replies_are_not_lost_messages() {
    let (_node, proxy, speaker) = behind_proxy().await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &proxy.url())).await;
        let mut all = subscribed(&client, "/n").await;
        for number in 0..20 {
            proxy.lose_reply();
            publish(&speaker, "/n", number).await;
            // Its own publish may lose its answer: it is stored once.
            publish(&client, "/n", 100 + number).await;
        }
        let expected: Vec<_> = (0..20).flat_map(|number| [number, 100 + number]).collect();
        assert_eq!(numbers(&mut all, 40).await, expected, "{transport:?}");
    }
}

#[tokio::test]
async fn a_half_open_link_is_noticed_within_ten_seconds() {
    let (_node, proxy, speaker) = behind_proxy().await;
    for transport in TRANSPORTS {
        // With the settings that everybody has.
        let client = connected(Client::builder(&proxy.url()).transports(&[transport])).await;
        let mut all = subscribed(&client, "/n").await;
        proxy.freeze();
        let frozen = Instant::now();
        let (published, received) = tokio::join!(
            async {
                publish(&speaker, "/n", 1).await;
                within(Duration::from_secs(10), "a publish over the dead link", client.publish("/n", &2)).await
            },
            within(Duration::from_secs(10), "both messages", async {
                [all.next().await, all.next().await]
                    .map(|message| message.expect("comes").data::<u64>().expect("number"))
            })
        );
        assert_eq!((published, received), (Ok(()), [1, 2]), "{transport:?}");
        assert!(frozen.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_blocked_socket_gives_way_and_is_tried_again() {
    let (_node, proxy, speaker) = behind_proxy().await;
    proxy.refuse_sockets(true);
    let client = connected(quick(&proxy.url()).upgrade(Duration::from_millis(100))).await;
    assert_eq!(client.transport(), Some(Transport::LongPolling));
    let mut all = subscribed(&client, "/n").await;
    publish(&speaker, "/n", 1).await;
    let mut events = client.events();
    proxy.refuse_sockets(false);
    let upgraded = Event::Resumed { transport: Transport::WebSocket };
    let publishing = async {
        for number in 2..100 {
            publish(&speaker, "/n", number).await;
        }
    };
    tokio::join!(publishing, event(&mut events, "an upgrade", |event| *event == upgraded));
    assert_eq!(numbers(&mut all, 99).await, (1..100).collect::<Vec<_>>());
    assert_eq!(client.transport(), Some(Transport::WebSocket));
}

#[tokio::test]
async fn a_session_that_the_server_forgot_is_made_anew_and_told() {
    for transport in TRANSPORTS {
        let first = node(|_| {}).await;
        let proxy = Proxy::start([first.addr()]).await;
        let client = connected(over(transport, &proxy.url())).await;
        let mut all = subscribed(&client, "/n").await;
        let mut events = client.events();
        publish(&client, "/n", 1).await;
        assert_eq!(numbers(&mut all, 1).await, [1]);
        // Another node that knows nothing: the memory engine dies with its node.
        let second = node(|_| {}).await;
        proxy.set_targets([second.addr()]);
        soon("the first node stops", first.stop()).await;
        let previous = client.session();
        let new = event(&mut events, "a session", |event| matches!(event, Event::NewSession { .. })).await;
        assert!(matches!(new, Event::NewSession { previous: before, .. } if before == previous));
        event(&mut events, "a gap", |event| matches!(event, Event::Gap { .. })).await;
        publish(&client, "/n", 2).await;
        assert_eq!(numbers(&mut all, 1).await, [2], "{transport:?}");
    }
}

#[tokio::test]
async fn a_session_that_ended_elsewhere_goes_on_without_a_gap() {
    let (node, proxy, speaker) = behind_proxy().await;
    let client = connected(quick(&proxy.url())).await;
    let mut all = subscribed(&client, "/n").await;
    let mut events = client.events();
    publish(&speaker, "/n", 1).await;
    assert_eq!(numbers(&mut all, 1).await, [1]);
    // Somebody ends the session while its client is away.
    proxy.set_targets([]);
    proxy.cut();
    let session = client.session().expect("connected");
    let goodbye = serde_json::json!({"channel": "/meta/disconnect", "clientId": session});
    crate::support::bayeux::Poster::new(node.addr()).post(&goodbye).await;
    publish(&speaker, "/n", 2).await;
    proxy.set_targets([node.addr()]);
    event(&mut events, "a session", |event| matches!(event, Event::NewSession { .. })).await;
    let told = event(&mut events, "what became of it", |event| matches!(event, Event::Recovered | Event::Gap { .. }));
    // It was ended on purpose: its logs may be gone, and then that is told.
    let told = told.await;
    publish(&speaker, "/n", 3).await;
    let expected: &[u64] = if told == Event::Recovered { &[2, 3] } else { &[3] };
    assert_eq!(numbers(&mut all, expected.len()).await, expected, "{told:?}");
}

#[tokio::test]
async fn another_node_takes_over() {
    let redis = Redis::start().await;
    let start = || {
        node(|config| {
            config.engine = weft::node::EngineKind::Redis;
            config.redis.url = redis.url();
        })
    };
    let (first, second) = (start().await, start().await);
    let proxy = Proxy::start([first.addr()]).await;
    let speaker = connected(quick(&format!("http://{}/bayeux", second.addr()))).await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &proxy.url())).await;
        let mut all = subscribed(&client, "/n").await;
        publish(&speaker, "/n", 1).await;
        let session = client.session();
        // The node goes as a killed one does, for its clients: without a word.
        proxy.set_targets([second.addr()]);
        proxy.cut();
        publish(&speaker, "/n", 2).await;
        assert_eq!(numbers(&mut all, 2).await, [1, 2], "{transport:?}");
        assert_eq!(client.session(), session);
        proxy.set_targets([first.addr()]);
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_not_asked_in_a_loop() {
    let (node, proxy, speaker) = behind_proxy().await;
    let client = connected(quick(&proxy.url())).await;
    let mut all = subscribed(&client, "/n").await;
    let mut events = client.events();
    proxy.set_targets([]);
    proxy.cut();
    let before = proxy.accepted();
    let tenth = |event: &Event| matches!(event, Event::Retry { attempt: 10.., .. });
    let began = Instant::now();
    event(&mut events, "a tenth attempt", tenth).await;
    // 20 ms, 40, 80, 160 and 200 from then on, of each at least the half.
    assert!(began.elapsed() > Duration::from_millis(650), "{:?}", began.elapsed());
    assert!(proxy.accepted() - before < 30, "{} connections", proxy.accepted() - before);
    publish(&speaker, "/n", 1).await;
    proxy.set_targets([node.addr()]);
    assert_eq!(numbers(&mut all, 1).await, [1]);
}

#[tokio::test]
async fn everything_settles_when_the_server_never_comes_back() {
    let (_node, proxy, _speaker) = behind_proxy().await;
    let client = connected(quick(&proxy.url()).publish_timeout(Duration::from_secs(1))).await;
    proxy.set_targets([]);
    proxy.cut();
    let publishes = futures_util::future::join_all((0..2_000u64).map(|number| {
        let client = client.clone();
        async move { client.publish("/n", &number).await }
    }));
    let (publishes, subscription) =
        tokio::join!(soon("all settle", publishes), soon("settles", client.subscribe("/n")));
    assert!(publishes.iter().all(Result::is_err) && subscription.is_err());
    soon("closing ends", client.close()).await;
}

#[tokio::test]
async fn closing_waits_for_nothing_but_its_goodbye() {
    let (_node, proxy, _speaker) = behind_proxy().await;
    let client = connected(quick(&proxy.url())).await;
    proxy.set_targets([]);
    proxy.cut();
    // More than have a place, with the usual patience of a minute.
    let publishes: Vec<_> = (0..2_000u64)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.publish("/n", &number).await })
        })
        .collect();
    // The first is told when it has its place: then the others wait for one.
    eventually(Duration::from_secs(5), "all are under way", async || {
        let full = tokio::time::timeout(Duration::from_millis(50), client.subscribe("/full")).await;
        full.is_err().then_some(())
    })
    .await;
    within(Duration::from_secs(5), "closing", client.close()).await;
    for publish in publishes {
        assert!(soon("an outcome", publish).await.expect("no panic").is_err());
    }
}

#[tokio::test]
async fn links_that_do_not_last_are_not_replaced_in_a_loop() {
    let (_node, proxy, _speaker) = behind_proxy().await;
    for transport in TRANSPORTS {
        let client = connected(Client::builder(&proxy.url()).transports(&[transport])).await;
        let mut events = client.events();
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..4 {
            proxy.cut();
            let retry = event(&mut events, "a retry", |event| matches!(event, Event::Retry { .. })).await;
            if let Event::Retry { pause, .. } = retry {
                longest = longest.max(pause);
            }
            event(&mut events, "a link", |event| matches!(event, Event::Resumed { .. })).await;
        }
        // One without a pause, and then 250 ms, 500, 1,000, at least the half of each.
        assert!(longest >= Duration::from_millis(500), "{transport:?}: {longest:?}");
        assert!(began.elapsed() >= Duration::from_millis(850), "{transport:?}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn over_tls() {
    let node = node(|_| {}).await;
    let (proxy, certificate) = crate::support::proxy::tls(node.addr()).await;
    for transport in TRANSPORTS {
        let url = format!("https://localhost:{}/bayeux", proxy.addr.port());
        let client = connected(over(transport, &url).root_certificates(&certificate)).await;
        let mut all = subscribed(&client, "/n").await;
        publish(&client, "/n", 1).await;
        assert_eq!(numbers(&mut all, 1).await, [1]);
        let stranger = over(transport, &url).connect_timeout(Duration::from_millis(300)).connect();
        assert!(soon("an answer", stranger).await.is_err(), "an unknown certificate");
    }
}
