//! Acknowledged messages, as CometD's clients speak them.

use std::time::Duration;

use super::*;
use crate::support::bayeux::publish;
use crate::support::node::node;
use crate::support::nothing_within;

fn ack(number: &Value) -> Value {
    json!({"ack": number})
}

#[tokio::test]
async fn unacknowledged_messages_come_again_by_polling() {
    let node = node(|_| ()).await;
    let mut session = Session::new(node.addr(), json!({"ack": true})).await;
    assert_eq!(session.granted, json!({"ack": true}));
    let first = session.poll(ack(&json!(0))).await;
    assert!(first.reply["ext"]["ack"].is_u64(), "{}", first.reply);
    session.subscribed("/a").await;
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/a", json!(1)).await;
    publish(&mut publisher, "/a", json!(2)).await;

    let lost = session.poll(ack(&first.reply["ext"]["ack"])).await;
    assert_eq!(lost.data(), [1, 2]);
    publish(&mut publisher, "/a", json!(3)).await;
    // Under new ids, as CometD's client does when a reply does not come.
    let again = session.poll(ack(&first.reply["ext"]["ack"])).await;
    assert_eq!(again.data(), [1, 2, 3]);
    let number = &again.reply["ext"]["ack"];
    assert!(number.as_u64() > lost.reply["ext"]["ack"].as_u64(), "{number}");
    assert!(number.as_u64() < Some(1 << 53));
    let rest = session.poll(ack(&lost.reply["ext"]["ack"])).await;
    assert_eq!(rest.data(), [3]);
    let nothing = session.poll(ack(number)).await;
    assert_eq!((nothing.data(), &nothing.reply["ext"]["ack"]), (vec![], number));
}

#[tokio::test]
async fn a_connect_with_unacknowledged_messages_is_not_held() {
    let node = node(|config| config.timeout = Duration::from_secs(60)).await;
    let mut session = Session::connected(node.addr(), json!({"ack": true})).await;
    session.subscribed("/a").await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    for _ in 0..2 {
        let message = session.connect_message(ack(&json!(0)), true);
        let poll = Poll::from_replies(soon("an answer at once", session.poster.post(&message)).await);
        assert_eq!(poll.data(), [1]);
    }
}

#[tokio::test]
async fn acknowledgements_need_an_agreement() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), json!({"ack": false})).await;
    assert_eq!(session.granted, Value::Null);
    session.subscribed("/a").await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    let poll = session.poll(ack(&json!(0))).await;
    assert_eq!((poll.data(), &poll.reply["ext"]), (vec![json!(1)], &Value::Null));
    assert_eq!(session.poll(ack(&json!(0))).await.data(), Vec::<Value>::new(), "another id confirms");
}

#[tokio::test]
async fn on_a_socket_the_reply_follows_its_messages() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), json!({"ack": true})).await;
    session.subscribed("/a").await;
    let mut publisher = Poster::new(node.addr());
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(ack(&json!(0)), true)).await;
    publish(&mut publisher, "/a", json!(1)).await;
    let (messages, reply) = until_reply(&mut socket).await;
    assert_eq!(data(&messages), [1]);
    assert!(reply["ext"]["ack"].is_u64(), "{reply}");

    // No connect waits: nothing is sent that has no number yet.
    publish(&mut publisher, "/a", json!(2)).await;
    publish(&mut publisher, "/a", json!(3)).await;
    nothing_within(Duration::from_millis(200), "without a connect", socket.next()).await;
    socket.send(&session.connect_message(ack(&reply["ext"]["ack"]), true)).await;
    let (messages, next) = until_reply(&mut socket).await;
    assert_eq!(data(&messages), [2, 3]);
    // The client says on the same socket that it has less than was sent.
    socket.send(&session.connect_message(ack(&reply["ext"]["ack"]), true)).await;
    let (messages, again) = until_reply(&mut socket).await;
    assert_eq!((data(&messages), &again["ext"]["ack"]), (vec![json!(2), json!(3)], &next["ext"]["ack"]));
    // Everything is acknowledged: held, and answered in the end with the number that the client has.
    let message = session.connect_message(ack(&again["ext"]["ack"]), false);
    socket.send(&message).await;
    let (messages, empty) = until_reply(&mut socket).await;
    assert_eq!((data(&messages), &empty["ext"]["ack"]), (vec![], &again["ext"]["ack"]));
}

/// The stack that answers a ping is not the client.
#[tokio::test]
async fn pongs_do_not_acknowledge() {
    let node = node(|config| config.websocket_ping = Duration::from_millis(50)).await;
    let mut session = Session::connected(node.addr(), json!({"ack": true})).await;
    session.subscribed("/a").await;
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(ack(&json!(0)), true)).await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    let (messages, _) = until_reply(&mut socket).await;
    assert_eq!(data(&messages), [1]);
    // Reading answers pings; enough for those that would confirm, and for a commit.
    nothing_within(Duration::from_millis(2500), "nothing more", socket.next()).await;
    drop(socket);
    assert_eq!(session.poll(ack(&json!(0))).await.data(), [1]);
}

#[tokio::test]
async fn no_number_is_told_that_was_not_reached() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), json!({"ack": true})).await;
    session.subscribed("/a").await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    let absurd = json!(9_000_000_000_000_000_u64);
    let reply = session.poll(ack(&absurd)).await.reply;
    assert!(reply["ext"]["ack"].as_u64() < absurd.as_u64(), "{reply}");
    let mut socket = Socket::open(node.addr()).await;
    for _ in 0..2 {
        socket.send(&session.connect_message(ack(&absurd), false)).await;
        let (_, reply) = until_reply(&mut socket).await;
        assert!(reply["ext"]["ack"].as_u64() < absurd.as_u64(), "{reply}");
    }
}
