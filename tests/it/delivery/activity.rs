//! Clients that do nothing but stay connected, where the configuration sends them away.

use std::time::Duration;

use super::*;
use crate::support::bayeux::publish;
use crate::support::http::sample;
use crate::support::node::{TestNode, node};

const LIMIT: Duration = Duration::from_millis(600);

async fn impatient() -> TestNode {
    node(|config| {
        config.max_inactivity = LIMIT;
        config.timeout = LIMIT;
    })
    .await
}

#[tokio::test]
async fn an_inactive_client_is_told_to_stop() {
    let node = impatient().await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    let mut socket_session = Session::connected(node.addr(), Value::Null).await;
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&socket_session.connect_message(Value::Null, false)).await;
    until_reply(&mut socket).await;
    tokio::time::sleep(LIMIT).await;
    let poll = session.poll(Value::Null).await;
    assert_eq!(poll.reply["advice"]["reconnect"], "none", "{}", poll.reply);
    socket.send(&socket_session.connect_message(Value::Null, true)).await;
    let (_, reply) = until_reply(&mut socket).await;
    assert_eq!(reply["advice"]["reconnect"], "none", "{reply}");
    assert_eq!(sample(node.internal_addr(), "weft_sessions_inactive_total").await, 2.0);
    let message = session.connect_message(Value::Null, false);
    assert_eq!(session.poster.post(&message).await[0]["successful"], false, "it is over");
}

#[tokio::test]
async fn who_does_something_may_stay() {
    let node = impatient().await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    for channel in ["/a", "/b", "/c"] {
        tokio::time::sleep(LIMIT * 2 / 3).await;
        session.subscribed(channel).await;
        assert_eq!(session.poll(Value::Null).await.reply["advice"]["reconnect"], "retry");
    }
    // What others publish is no doing of its own.
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    tokio::time::sleep(LIMIT).await;
    assert_eq!(session.poll(Value::Null).await.reply["advice"]["reconnect"], "none");
}
