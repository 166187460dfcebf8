//! In-process clients.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use weft::LocalClient;
use weft::server::LocalError;

use super::{next, parsed};
use crate::support::bayeux::{Client, Poster, publish};
use crate::support::node::{TestNode, node};
use crate::support::{nothing_within, soon, within};

async fn client(node: &TestNode) -> LocalClient {
    node.embedded().client().await.expect("a client")
}

#[tokio::test]
async fn two_clients_and_their_patterns() {
    let node = node(|_| ()).await;
    let (publisher, subscriber) = (client(&node).await, client(&node).await);
    assert_ne!(publisher.session(), subscriber.session());
    let mut exact = subscriber.subscribe("/a/b").await.expect("subscribed");
    let mut one = subscriber.subscribe("/a/*").await.expect("subscribed");
    let mut deep = subscriber.subscribe("/a/**").await.expect("subscribed");
    let mut own = publisher.subscribe("/a/b").await.expect("subscribed");
    for channel in ["/a/b", "/a/c", "/a/b/c", "/b/a", "/a/b"] {
        publisher.publish(channel, &json!({ "to": channel })).await.expect("published");
    }
    let channels = [
        (&mut exact, vec!["/a/b", "/a/b"]),
        (&mut one, vec!["/a/b", "/a/c", "/a/b"]),
        (&mut deep, vec!["/a/b", "/a/c", "/a/b/c", "/a/b"]),
        (&mut own, vec!["/a/b", "/a/b"]),
    ];
    publisher.publish("/a/b", &"end").await.expect("published");
    for (subscription, expected) in channels {
        for channel in expected {
            assert_eq!(next(subscription).await, (channel.to_owned(), json!({ "to": channel })));
        }
        // Each message once, whatever else the client subscribed to.
        assert_eq!(next(subscription).await, ("/a/b".to_owned(), json!("end")));
    }
    node.stop().await;
}

#[tokio::test]
async fn five_thousand_messages_in_order() {
    let node = node(|_| ()).await;
    let (publisher, subscriber) = (client(&node).await, client(&node).await);
    let mut numbers = subscriber.subscribe("/numbers").await.expect("subscribed");
    let publishing = tokio::spawn(async move {
        for number in 0..5000 {
            publisher.publish("/numbers", &number).await.expect("published");
        }
    });
    let reading = async {
        for number in 0..5000 {
            assert_eq!(next(&mut numbers).await.1, number);
        }
    };
    within(Duration::from_secs(60), "all messages", reading).await;
    publishing.await.expect("all are accepted");
}

#[tokio::test]
async fn a_subscription_that_does_not_read_loses_nothing_and_delays_nobody() {
    let node = node(|_| ()).await;
    let (publisher, slow, quick) = (client(&node).await, client(&node).await, client(&node).await);
    let mut unread = slow.subscribe("/numbers").await.expect("subscribed");
    let mut read = quick.subscribe("/numbers").await.expect("subscribed");
    for number in 0..5000 {
        publisher.publish("/numbers", &number).await.expect("published");
        assert_eq!(next(&mut read).await.1, number);
    }
    for number in 0..5000 {
        assert_eq!(next(&mut unread).await.1, number);
    }
    publisher.publish("/numbers", &"after").await.expect("published");
    assert_eq!(next(&mut unread).await.1, "after", "and nothing twice");
}

#[tokio::test]
async fn a_subscription_that_does_not_read_keeps_its_session() {
    let node = node(|config| config.timeout = Duration::from_millis(200)).await;
    let (publisher, slow) = (client(&node).await, client(&node).await);
    let session = slow.session();
    let mut unread = slow.subscribe("/numbers").await.expect("subscribed");
    for number in 0..500 {
        publisher.publish("/numbers", &number).await.expect("published");
    }
    // Sessions of others, made later, come to their end meanwhile.
    let mut events = node.embedded().events();
    let other = Client::handshake(node.addr()).await;
    let expiry = async {
        while !matches!(events.recv().await.expect("the node runs"),
            weft::ServerEvent::Disconnect { session } if session.as_str() == other.id)
        {}
    };
    soon("another session expires", expiry).await;
    for number in 0..500 {
        assert_eq!(next(&mut unread).await.1, number);
    }
    assert_eq!(slow.session(), session);
}

/// What its log no longer held is missing, and the subscription says so.
#[tokio::test]
async fn a_subscription_that_fell_behind_its_log_counts_it_and_goes_on() {
    let node = node(|config| {
        config.limits.log_entries = 10;
        config.limits.outbox_messages = 10;
    })
    .await;
    let (publisher, slow) = (client(&node).await, client(&node).await);
    let mut unread = slow.subscribe("/numbers").await.expect("subscribed");
    assert_eq!(unread.missed(), 0);
    for number in 0..2000 {
        publisher.publish("/numbers", &number).await.expect("published");
    }
    let mut received = Vec::new();
    let reading = async {
        while received.last() != Some(&json!("after")) {
            // What is published before the client is back does not come.
            publisher.publish("/numbers", &"after").await.expect("published");
            if let Ok(message) = timeout(Duration::from_millis(20), next(&mut unread)).await {
                received.push(message.1);
            }
        }
    };
    soon("the subscription goes on", reading).await;
    let mut numbers: Vec<_> = received.iter().filter_map(Value::as_u64).collect();
    assert!(numbers.len() < 2000, "it fell behind");
    assert!(numbers.is_sorted_by(|one, next| one < next), "in order, and nothing twice: {numbers:?}");
    numbers.push(2000);
    let expected = std::iter::once(0).chain(numbers.iter().map(|number| number + 1));
    let holes = numbers.iter().zip(expected).filter(|(number, expected)| *number != expected).count() as u64;
    assert!((1..=unread.missed()).contains(&holes), "{holes} holes, {} counted: {numbers:?}", unread.missed());
}

#[tokio::test]
async fn cancelling_ends_one_subscription() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut kept = client.subscribe("/a").await.expect("subscribed");
    let cancelled = client.subscribe("/a").await.expect("subscribed");
    let mut other = client.subscribe("/b").await.expect("subscribed");
    cancelled.cancel().await.expect("cancelled");
    client.publish("/a", &1).await.expect("published");
    assert_eq!(next(&mut kept).await.1, 1, "the other subscription to the pattern stays");
    kept.cancel().await.expect("cancelled");
    client.publish("/a", &2).await.expect("published");
    client.publish("/b", &3).await.expect("published");
    assert_eq!(next(&mut other).await.1, 3);
    let mut again = client.subscribe("/a").await.expect("subscribed");
    client.publish("/a", &4).await.expect("published");
    assert_eq!(next(&mut again).await.1, 4, "only what came after the new subscription");
}

#[tokio::test]
async fn subscriptions_end_with_their_client() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut subscription = client.subscribe("/a").await.expect("subscribed");
    client.publish("/a", &1).await.expect("published");
    assert_eq!(next(&mut subscription).await.1, 1);
    drop(client);
    let end = soon("the subscription of a dropped client ends", subscription.next()).await;
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn subscriptions_end_with_their_node() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut subscription = client.subscribe("/a").await.expect("subscribed");
    soon("the node stops", node.stop()).await;
    let end = soon("the subscription of a stopped node ends", subscription.next()).await;
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn a_node_stops_in_order_though_a_subscription_is_not_read() {
    let node = node(|config| config.stop_timeout = Duration::from_secs(60)).await;
    let client = client(&node).await;
    let _unread = client.subscribe("/a").await.expect("subscribed");
    for number in 0..1000 {
        client.publish("/a", &number).await.expect("published");
    }
    soon("the node stops", node.stop()).await;
}

#[tokio::test]
async fn service_channels_are_for_clients_inside() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut service = client.subscribe("/service/*").await.expect("subscribed");
    let mut remote = Client::connected(node.addr()).await;
    remote.subscribe("/**").await;

    let mut poster = Poster::new(node.addr());
    let reply =
        soon("a reply", poster.post(&json!({"channel": "/service/x", "data": "remote", "ext": {"a": 1}}))).await;
    assert_eq!(reply[0]["successful"], true, "{reply:?}");
    client.publish("/service/x", &"inside").await.expect("published");
    publish(&mut poster, "/open", json!("seen")).await;

    let (channel, message) = soon("a message", service.next()).await.expect("the client lives");
    assert_eq!(channel.as_str(), "/service/x");
    assert_eq!(parsed(message.data.as_deref()), "remote");
    assert_eq!(parsed(message.ext.as_deref()), json!({"a": 1}));
    assert_eq!(message.client_id, None);
    assert_eq!(next(&mut service).await, ("/service/x".to_owned(), json!("inside")));
    assert_eq!(remote.poll().await.data(), ["seen"], "a remote subscriber sees no service channel");

    let reply = soon("a reply", poster.post(&remote.subscribe_message("/service/x"))).await;
    assert_eq!(reply[0]["error"], "403:/service/x:Forbidden channel");
}

/// The node publishes to itself, to prove that messages flow. That is not the embedding program's business.
#[tokio::test]
async fn the_nodes_own_messages_are_not_seen() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut service = client.subscribe("/service/**").await.expect("subscribed");
    // It does so once in a second.
    nothing_within(Duration::from_millis(1500), "nobody has published", service.next()).await;
    client.publish("/service/mine", &1).await.expect("published");
    assert_eq!(next(&mut service).await, ("/service/mine".to_owned(), json!(1)));
}

#[tokio::test]
async fn inside_and_outside_are_one() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    let mut inside = client.subscribe("/both").await.expect("subscribed");
    let mut outside = Client::connected(node.addr()).await;
    outside.subscribe("/both").await;
    client.publish("/both", &1).await.expect("published");
    publish(&mut Poster::new(node.addr()), "/both", json!(2)).await;
    assert_eq!([next(&mut inside).await.1, next(&mut inside).await.1], [1, 2]);
    assert_eq!(outside.poll().await.data(), [1, 2]);
}

#[tokio::test]
async fn mistakes_are_errors() {
    let node = node(|_| ()).await;
    let client = client(&node).await;
    for channel in ["", "a", "/a/", "/a b", "/*", "/a/**"] {
        let refused = client.publish(channel, &1).await;
        assert!(
            matches!(&refused, Err(LocalError::Refused(error)) if error.starts_with("405:")),
            "{channel:?}: {refused:?}"
        );
    }
    let refused = client.publish("/meta/x", &1).await;
    assert!(matches!(&refused, Err(LocalError::Refused(error)) if error.starts_with("403:")), "{refused:?}");
    for pattern in ["", "a", "/a/*/b", "/**/a"] {
        let refused = client.subscribe(pattern).await.map(drop);
        assert!(
            matches!(&refused, Err(LocalError::Refused(error)) if error.starts_with("405:")),
            "{pattern:?}: {refused:?}"
        );
    }
    let unwritable = HashMap::from([((1, 2), 3)]);
    assert!(matches!(client.publish("/a", &unwritable).await, Err(LocalError::Payload(_))));
    let mut serves_on = client.subscribe("/a").await.expect("subscribed");
    client.publish("/a", &Value::Null).await.expect("published");
    assert_eq!(next(&mut serves_on).await.1, Value::Null);
}
