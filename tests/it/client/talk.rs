//! Without faults: subscribing, publishing, refusals, extensions, the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use serde_json::json;
use weft::client::{ClientError, ClientExtension, Event, Refusal, Replay, Transport};
use weft::{Client, Message, RequestInfo, Verdict};

use super::{TRANSPORTS, connected, event, numbers, over, publish, quick, subscribed};
use crate::support::node::{node, node_with_extension};
use crate::support::{eventually, nothing_within, soon};

fn url(node: &crate::support::node::TestNode, mount: &str) -> String {
    format!("http://{}{mount}", node.addr())
}

#[tokio::test]
async fn messages_come_once_and_in_order_on_every_link_and_mount() {
    let node = node(|_| {}).await;
    for mount in ["/bayeux", "/cometd"] {
        for transport in TRANSPORTS {
            let (listener, speaker) = (
                connected(over(transport, &url(&node, mount))).await,
                connected(over(transport, &url(&node, mount))).await,
            );
            assert_eq!(listener.transport(), Some(transport));
            let mut all = subscribed(&listener, "/chat/**").await;
            let mut one = subscribed(&listener, "/chat/a").await;
            for number in 0..50 {
                publish(&speaker, if number % 2 == 0 { "/chat/a" } else { "/chat/b" }, number).await;
            }
            assert_eq!(numbers(&mut all, 50).await, (0..50).collect::<Vec<_>>(), "{mount} {transport:?}");
            assert_eq!(numbers(&mut one, 25).await, (0..50).step_by(2).collect::<Vec<_>>());
            speaker.publish("/chat/a", &json!({"text": "hello"})).await.expect("stored");
            let message = soon("the last one", all.next()).await.expect("comes");
            assert_eq!((message.channel(), message.raw().get()), ("/chat/a", r#"{"text":"hello"}"#));
            assert!(!message.is_replay());
        }
    }
}

#[tokio::test]
async fn many_publishes_at_a_time_keep_their_order() {
    let node = node(|_| {}).await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &url(&node, "/bayeux"))).await;
        let mut all = subscribed(&client, "/n").await;
        let sending = async {
            let mut pending = Vec::new();
            for number in 0..2_500u64 {
                let data = serde_json::value::to_raw_value(&number).expect("JSON");
                pending.push(client.enqueue("/n", data).await.expect("it has its place"));
            }
            for acknowledgement in pending {
                acknowledgement.await.expect("stored");
            }
        };
        let ((), received) = tokio::join!(soon("all are stored", sending), numbers(&mut all, 2_500));
        let wrong = received.into_iter().zip(0..).find(|(received, expected)| received != expected);
        assert_eq!(wrong, None, "{transport:?}");
    }
}

#[tokio::test]
async fn a_subscription_is_a_stream_and_ends_with_its_client() {
    let node = node(|_| {}).await;
    let client = connected(quick(&url(&node, "/bayeux"))).await;
    let room = subscribed(&client, "/room").await;
    let mut events = client.events();
    publish(&client, "/room", 1).await;
    publish(&client, "/room", 2).await;
    let mut room = room.map(|message| message.data::<u64>().expect("a number"));
    assert_eq!(soon("one", room.next()).await, Some(1));
    soon("the client closes", client.close()).await;
    assert_eq!(soon("what was there", room.next()).await, Some(2));
    assert_eq!(soon("the end", room.next()).await, None);
    event(&mut events, "the end", |event| matches!(event, Event::Stopped { .. })).await;
    assert_eq!(client.publish("/room", &3).await, Err(ClientError::Closed));
    assert!(matches!(client.subscribe("/room").await, Err(ClientError::Closed)));
    // The server knows.
    let sessions = || async {
        let status = crate::support::http::get(node.addr(), "/status.json", &[]).await.json();
        // The node's own session stays.
        (status["sessions"] == 1).then_some(())
    };
    eventually(Duration::from_secs(10), "the session has ended", sessions).await;
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes() {
    let node = node(|_| {}).await;
    let client = connected(quick(&url(&node, "/bayeux"))).await;
    let first = subscribed(&client, "/room").await;
    let mut second = subscribed(&client, "/room").await;
    drop(first);
    publish(&client, "/room", 1).await;
    assert_eq!(numbers(&mut second, 1).await, [1]);
    drop(second);
    // Asked for again at once: what was before does not come, what follows does.
    let mut again = subscribed(&client, "/room").await;
    publish(&client, "/room", 2).await;
    assert_eq!(numbers(&mut again, 1).await, [2]);
}

#[tokio::test]
async fn what_the_server_refuses_is_told() {
    let node = node_with_extension(Refusing, |config| config.limits.body_bytes = 4096).await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &url(&node, "/bayeux"))).await;
        let refused = Err(ClientError::Refused(Refusal {
            code: 403,
            arguments: vec!["/secret".to_owned()],
            text: "Forbidden".to_owned(),
        }));
        assert_eq!(client.publish("/secret", &1).await, refused);
        assert_eq!(client.subscribe("/secret").await.map(drop), refused);
        for wrong in ["no", "/a b", "/a/*", ""] {
            assert!(matches!(client.publish(wrong, &1).await, Err(ClientError::Refused(_))), "{wrong}");
        }
        // Too large for the server: it takes the connection away, and only what is to blame fails.
        let mut room = subscribed(&client, "/room").await;
        let large = "x".repeat(5000);
        let (before, blamed, after) =
            tokio::join!(client.publish("/room", &1), client.publish("/room", &large), client.publish("/room", &2));
        assert_eq!((before, after), (Ok(()), Ok(())), "{transport:?}");
        assert!(matches!(&blamed, Err(ClientError::Refused(refusal)) if refusal.code == 413), "{blamed:?}");
        assert_eq!(numbers(&mut room, 2).await, [1, 2]);
    }
}

struct Refusing;

impl weft::Extension for Refusing {
    fn incoming<'a>(&'a self, message: &'a mut Message, _request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        let about = message.subscription.as_deref().map_or(message.channel.clone(), |raw| raw.get().replace('"', ""));
        if about == "/secret" {
            message.refuse("403:/secret:Forbidden");
        }
        ready(Verdict::Pass).boxed()
    }
}

#[tokio::test]
async fn a_handshake_that_is_refused_ends_connecting() {
    struct Closed(&'static str);
    impl weft::Extension for Closed {
        fn incoming<'a>(&'a self, message: &'a mut Message, _request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
            if message.channel == "/meta/handshake" {
                let advice = serde_json::value::RawValue::from_string(self.0.to_owned()).expect("JSON");
                message.refuse_with_advice("403::Members only", advice);
            }
            ready(Verdict::Pass).boxed()
        }
    }
    let retry = node_with_extension(Closed(r#"{"reconnect":"handshake","interval":10}"#), |_| {}).await;
    let error = soon("an answer", quick(&url(&retry, "/bayeux")).connect()).await.expect_err("refused");
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.text == "Members only"), "{error}");
    let never = node_with_extension(Closed(r#"{"reconnect":"none"}"#), |_| {}).await;
    let error = soon("an answer", quick(&url(&never, "/bayeux")).connect()).await.expect_err("stopped");
    assert_eq!(error, ClientError::Stopped("403 Members only".to_owned()));
}

#[tokio::test]
async fn extensions_see_everything_and_may_drop_it() {
    #[derive(Clone, Default)]
    struct Signing(Arc<Mutex<Vec<String>>>);
    impl ClientExtension for Signing {
        fn outgoing(&self, message: &mut Message) -> bool {
            self.0.lock().push(format!("> {}", message.channel));
            message.rest.push(("token".to_owned(), weft::bayeux::json::quote("secret")));
            !message.channel.starts_with("/dropped")
        }
        fn incoming(&self, message: &mut Message) -> bool {
            self.0.lock().push(format!("< {}", message.channel));
            message.channel != "/unseen"
        }
    }
    let node = node(|_| {}).await;
    let seen = Signing::default();
    let client = connected(quick(&url(&node, "/bayeux")).extension(seen.clone())).await;
    let mut all = subscribed(&client, "/**").await;
    let speaker = connected(quick(&url(&node, "/bayeux"))).await;
    publish(&speaker, "/unseen", 1).await;
    publish(&client, "/seen", 2).await;
    let dropped = soon("an answer", client.publish("/dropped", &3)).await;
    assert!(matches!(dropped, Err(ClientError::Refused(_))), "{dropped:?}");
    let message = soon("the message", all.next()).await.expect("comes");
    assert_eq!(message.channel(), "/seen");
    assert_eq!(message.message().rest.iter().filter(|(name, _)| name == "token").count(), 1);
    let seen = seen.0.lock();
    for line in ["> /meta/handshake", "< /meta/handshake", "> /meta/subscribe", "> /meta/connect", "< /unseen"] {
        assert!(seen.iter().any(|seen| seen == line), "{line} in {seen:?}");
    }
}

#[tokio::test]
async fn headers_go_with_every_request() {
    #[derive(Clone, Default)]
    struct Noting(Arc<Mutex<Vec<Option<String>>>>);
    impl weft::Extension for Noting {
        fn incoming<'a>(&'a self, message: &'a mut Message, request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
            if message.channel.starts_with("/meta/connect") {
                let header = request.headers.get("x-who").map(|value| value.to_str().expect("text").to_owned());
                self.0.lock().push(header);
            }
            ready(Verdict::Pass).boxed()
        }
    }
    for transport in TRANSPORTS {
        let noted = Noting::default();
        let node = node_with_extension(noted.clone(), |_| {}).await;
        let client = connected(over(transport, &url(&node, "/bayeux")).header("X-Who", "me")).await;
        soon("closed", client.close()).await;
        let noted = noted.0.lock();
        assert!(!noted.is_empty() && noted.iter().all(|who| who.as_deref() == Some("me")), "{noted:?}");
    }
    let wrong = Client::builder("http://127.0.0.1:1/").header("a b", "c").start();
    assert!(matches!(wrong, Err(ClientError::Header(_))));
}

#[tokio::test]
async fn a_kept_channel_is_replayed() {
    let node = node(|config| {
        let (channels, age) = ("/kept".to_owned(), Duration::from_secs(3600));
        config.retention = vec![weft::node::RetentionConfig { channels, age, length: 100, replay: true }];
    })
    .await;
    let client = connected(quick(&url(&node, "/bayeux"))).await;
    for number in 0..5 {
        publish(&client, "/kept", number).await;
    }
    let mut all = client.replay("/kept", Replay::All).await.expect("accepted");
    publish(&client, "/kept", 5).await;
    assert_eq!(numbers(&mut all, 6).await, [0, 1, 2, 3, 4, 5]);
    let refused = client.replay("/not-kept", Replay::All).await.map(drop);
    assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn who_does_not_read_loses_nothing() {
    let node = node(|_| {}).await;
    for transport in TRANSPORTS {
        let client = connected(over(transport, &url(&node, "/bayeux")).queue(2)).await;
        let speaker = connected(quick(&url(&node, "/bayeux"))).await;
        let mut slow = subscribed(&client, "/n").await;
        for number in 0..1_000 {
            publish(&speaker, "/n", number).await;
        }
        nothing_within(Duration::from_millis(50), "an end", client.events().next()).await;
        assert_eq!(numbers(&mut slow, 1_000).await, (0..1_000).collect::<Vec<_>>(), "{transport:?}");
    }
}

#[tokio::test]
async fn addresses_that_are_none() {
    for wrong in ["", "localhost:8000", "ftp://x/", "http://"] {
        assert!(matches!(Client::builder(wrong).start(), Err(ClientError::Url(_))), "{wrong}");
    }
    // Nobody listens on port 1.
    let limit = Duration::from_millis(300);
    let away = Client::builder("http://127.0.0.1:1/bayeux").connect_timeout(limit).connect();
    let why = soon("the limit", away).await.map(drop).expect_err("nobody is there");
    assert!(matches!(&why, ClientError::Unreachable(reason) if reason.contains("refused")), "{why}");
    let late = Client::builder("http://127.0.0.1:1/bayeux").publish_timeout(limit).start().expect("starts");
    assert_eq!(soon("the limit", late.publish("/a", &1)).await, Err(ClientError::TimedOut));
    assert_eq!(late.transport(), None::<Transport>);
}

#[tokio::test]
async fn the_example_prints_what_comes() {
    use tokio::io::{AsyncBufReadExt, BufReader};

    let node = node(|_| {}).await;
    // Cargo builds examples beside the tests, unless it is told to build one test alone.
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_weft")).with_file_name("examples").join("subscribe");
    assert!(program.exists(), "run `cargo build --examples` first");
    let mut child = tokio::process::Command::new(program)
        .args([&url(&node, "/bayeux"), "/example/*"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the example starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = async || soon("a line", lines.next_line()).await.expect("text").expect("it runs");
    assert_eq!(line().await, "subscribed to /example/*");
    publish(&connected(quick(&url(&node, "/bayeux"))).await, "/example/a", 7).await;
    assert_eq!(line().await, "/example/a 7");
}
