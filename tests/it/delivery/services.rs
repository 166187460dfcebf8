//! Services: what clients publish below `/service` is answered by code of the embedding program.

use serde_json::value::{RawValue, to_raw_value};
use weft::node::Config;
use weft::{Call, Node};

use super::*;
use crate::support::http::{Connection, json_request};

async fn doubling(call: Call) -> Result<Box<RawValue>, String> {
    match call.data.get().parse::<i64>() {
        Ok(number) => Ok(to_raw_value(&(2 * number)).expect("a number is JSON")),
        Err(_) => Err("400:data:Not a number".to_owned()),
    }
}

fn config() -> Config {
    let free = || "127.0.0.1:0".parse().expect("an address");
    Config { listen: free(), internal_listen: free(), ..Config::default() }
}

async fn start() -> Node {
    let who = |call: Call| async move {
        let channel = call.channel.as_str().to_owned();
        Ok(to_raw_value(&(channel, call.session.map(|id| id.as_str().to_owned()))).expect("it is JSON"))
    };
    Node::builder(config())
        .service("/service/double", doubling)
        .service("/service/who/*", who)
        .start()
        .await
        .expect("up")
}

async fn post(node: &Node, mount: &str, messages: Value) -> Vec<Value> {
    let mut connection = Connection::open(node.public_addr()).await;
    connection.send(&json_request(mount, messages.to_string().as_bytes())).await;
    let response = soon("an answer", connection.response()).await;
    response.json().as_array().expect("an array").clone()
}

#[tokio::test]
async fn a_call_is_answered_beside_its_reply() {
    let node = start().await;
    let session = Session::new(node.public_addr(), Value::Null).await;
    let call = json!({"channel": "/service/double", "clientId": session.id, "id": "7", "data": 21});
    let answer = json!({"id": "7", "channel": "/service/double", "successful": true, "data": 42});
    let replies = post(&node, "/bayeux", call.clone()).await;
    assert_eq!((&replies[0]["successful"], &replies[1]), (&json!(true), &answer), "Faye's order: {replies:?}");
    let replies = post(&node, "/cometd", call.clone()).await;
    assert_eq!((&replies[0], &replies[1]["successful"]), (&answer, &json!(true)), "CometD's order: {replies:?}");
    assert!(replies[1]["data"].is_null());

    let mut socket = Socket::open(node.public_addr()).await;
    socket.send(&json!([call])).await;
    let frame = soon("a frame", socket.next()).await.expect("the socket is open");
    assert_eq!(frame[1], answer);
}

#[tokio::test]
async fn the_most_special_service_gets_the_caller_and_the_channel() {
    let node = start().await;
    let session = Session::new(node.public_addr(), Value::Null).await;
    let call = json!({"channel": "/service/who/x", "clientId": session.id, "id": "1", "data": 0});
    let replies = post(&node, "/bayeux", call).await;
    assert_eq!(replies[1]["data"], json!(["/service/who/x", session.id]));
    let replies = post(&node, "/bayeux", json!({"channel": "/service/who/x/y", "id": "1", "data": 0})).await;
    assert_eq!((replies.len(), &replies[0]["successful"]), (1, &json!(true)), "nobody answers: {replies:?}");
}

#[tokio::test]
async fn a_refusal_is_the_publishs_error() {
    let node = start().await;
    let replies = post(&node, "/bayeux", json!({"channel": "/service/double", "id": "1", "data": "x"})).await;
    assert_eq!((replies.len(), &replies[0]["error"]), (1, &json!("400:data:Not a number")));
    // CometD's dialect wants a session for each publish.
    let replies = post(&node, "/cometd", json!({"channel": "/service/double", "id": "1", "data": 1})).await;
    assert_eq!((replies.len(), &replies[0]["error"]), (1, &json!("402::session_unknown")));
}

#[tokio::test]
async fn a_handler_that_panics_is_a_failed_call() {
    async fn broken(call: Call) -> Result<Box<RawValue>, String> {
        panic!("on purpose: {}", call.channel)
    }
    let node = Node::builder(config()).service("/service/broken", broken).start().await.expect("up");
    let calls = json!([{"channel": "/service/broken", "id": "1", "data": 1}, {"channel": "/a", "id": "2", "data": 1}]);
    let replies = post(&node, "/bayeux", calls).await;
    assert_eq!(replies[0]["error"], "500::Service failed");
    assert_eq!(replies[1]["successful"], true, "and nothing else is");
}

#[tokio::test]
async fn services_have_a_place_of_their_own() {
    let echo = |call: Call| async move { Ok(call.data) };
    for (channels, error) in [
        ("/other/echo", "service `/other/echo`: a service's channel begins with /service/"),
        ("/service", "service `/service`: a service's channel begins with /service/"),
        ("service", "service `service`: not a channel name"),
    ] {
        let started = Node::builder(config()).service(channels, echo).start().await;
        assert_eq!(started.err().expect(channels).to_string(), error);
    }
    let twice = Node::builder(config()).service("/service/e", echo).service("/service/e", echo).start().await;
    assert_eq!(twice.err().expect("refused").to_string(), "service `/service/e`: the channel has a service");
}

#[tokio::test]
async fn the_echo_service_can_be_switched_on() {
    let mut config = config();
    config.services.echo = "/service/echo".to_owned();
    let node = Node::start(config).await.expect("up");
    let replies = post(&node, "/bayeux", json!({"channel": "/service/echo", "id": "1", "data": {"a": [1, 2]}})).await;
    assert_eq!(replies[1]["data"], json!({"a": [1, 2]}));
}
