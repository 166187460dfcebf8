//! The protocol of Socket.IO, against a scripted server that insists on answers to its pings.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::{assert_complete, clean, measured};

type Rooms = Arc<Mutex<Vec<(String, mpsc::UnboundedSender<String>)>>>;

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let rooms = Rooms::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(client(stream, rooms.clone()));
        }
    });
    addr
}

async fn client(stream: TcpStream, rooms: Rooms) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        while let Some(text) = outgoing.recv().await {
            if sink.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    });
    // Whoever is gone needs nothing.
    let say = |text: String| drop(sender.send(text));
    say(r#"0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#.to_owned());
    let mut pinged = false;
    while let Some(Ok(Message::Text(text))) = source.next().await {
        match text.as_str() {
            "40" => say("2".to_owned()),
            "3" => {
                pinged = true;
                say(r#"40{"sid":"b"}"#.to_owned());
            }
            "41" => return,
            event => {
                assert!(pinged, "the ping is answered before anything else is said");
                let event = event.strip_prefix("42").expect("an event");
                let digits = event.find('[').expect("arguments");
                let (id, arguments) = event.split_at(digits);
                let arguments: Value = serde_json::from_str(arguments).expect("JSON");
                let channel = arguments[1].as_str().expect("a channel");
                if arguments[0] == "subscribe" {
                    rooms.lock().push((channel.to_owned(), sender.clone()));
                } else {
                    let message = format!("42{}", json!(["message", channel, arguments[2]]));
                    for (_, member) in rooms.lock().iter().filter(|(room, _)| room == channel) {
                        let _ = member.send(message.clone());
                    }
                }
                say(format!("43{id}[]"));
            }
        }
    }
}

#[tokio::test]
async fn fan_out_and_pairs() {
    let addr = serve().await;
    let brief = "--warm-up 0 --duration 500ms --protocol socket.io --quiet --url";
    let round = clean(&format!("fan-out --clients 5 --rate 100 {brief} http://{addr}")).await;
    assert_complete(&round, 5);
    assert_eq!(round["publish_latency_us"]["count"], 50);
    let round = clean(&format!("one-to-one --clients 5 --rate max {brief} http://{addr}/")).await;
    assert_complete(&round, 1);
    let (code, report) =
        measured(&format!("storm --clients 20 --protocol socket.io --quiet --url http://{addr}")).await;
    assert_eq!((code, &super::round(&report)["connects"]["count"]), (Some(0), &20.into()), "{report:#}");
}
