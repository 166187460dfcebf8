//! What CometD's clients ask about time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::support::http::{Connection, json_request};
use crate::support::node::{TestNode, node};

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("in range")
}

async fn post(node: &TestNode, mount: &str, message: Value) -> Value {
    let mut connection = Connection::open(node.addr()).await;
    connection.send(&json_request(mount, message.to_string().as_bytes())).await;
    soon("an answer", connection.response()).await.json()[0].clone()
}

fn handshake(ext: Value) -> Value {
    json!({"channel": "/meta/handshake", "version": "1.0", "id": "1", "ext": ext,
        "supportedConnectionTypes": ["long-polling"]})
}

#[tokio::test]
async fn the_time_is_told_where_cometds_clients_ask_for_it() {
    let node = node(|_| ()).await;
    let (client, before) = (now() - 5000, now());
    let asked = handshake(json!({"timesync": {"tc": client, "l": 0, "o": 0}}));
    let told = post(&node, "/cometd", asked.clone()).await["ext"]["timesync"].clone();
    let received = told["ts"].as_u64().expect("a time");
    assert!((before..=now()).contains(&received), "{told}");
    assert_eq!(told["tc"], client);
    assert_eq!(
        told["a"].as_i64(),
        Some(i64::try_from(client).expect("small") - i64::try_from(received).expect("small"))
    );
    assert!(told["p"].as_u64().expect("a duration") < 5000, "{told}");

    let right = handshake(json!({"timesync": {"tc": now() - 20, "l": 20, "o": 0}}));
    assert_eq!(post(&node, "/cometd", right).await["ext"], Value::Null, "who is right already is told nothing");
    assert_eq!(post(&node, "/bayeux", asked).await["ext"], Value::Null, "Faye's clients know nothing of it");
}

#[tokio::test]
async fn a_held_connect_says_how_long_it_was_held() {
    let node = node(|config| config.timeout = Duration::from_millis(400)).await;
    let reply = post(&node, "/cometd", handshake(Value::Null)).await;
    let connect = |id: &str| {
        json!({"channel": "/meta/connect", "clientId": reply["clientId"], "connectionType": "long-polling", "id": id,
            "ext": {"timesync": {"tc": now(), "l": 0, "o": 0}}})
    };
    post(&node, "/cometd", connect("1")).await;
    let held = post(&node, "/cometd", connect("2")).await;
    assert!(held["ext"]["timesync"]["p"].as_u64().is_some_and(|processed| processed >= 390), "{held}");
}

#[tokio::test]
async fn replies_are_stamped_where_requests_are() {
    let node = node(|_| ()).await;
    let mut stamped = handshake(Value::Null);
    stamped["timestamp"] = json!("Thu, 01 Jan 1970 00:00:00 GMT");
    let reply = post(&node, "/cometd", stamped.clone()).await;
    let stamp = reply["timestamp"].as_str().expect("a stamp");
    assert!(humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
    assert_eq!(post(&node, "/cometd", handshake(Value::Null)).await["timestamp"], Value::Null);
    assert_eq!(post(&node, "/bayeux", stamped).await["timestamp"], Value::Null);
}
