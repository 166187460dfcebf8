//! A server that speaks just enough Bayeux over WebSocket, and does to messages what a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// What is done to the message with this number, from 0.
#[derive(Clone, Copy)]
pub enum Fate {
    Delivered,
    /// Accepted, and delivered to nobody.
    Lost,
    Repeated,
    /// Delivered after the next one.
    Swapped,
    Refused,
    /// Nobody is served for this time, then all goes on.
    Stalled(Duration),
    /// Neither answered nor delivered.
    Ignored,
}

struct Hub {
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Value>>>,
    held_back: Mutex<Option<Value>>,
    published: AtomicU64,
    fate: Box<dyn Fn(u64) -> Fate + Send + Sync>,
}

/// Starts a server; it lives as long as the test.
pub async fn serve(fate: impl Fn(u64) -> Fate + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let hub = Arc::new(Hub {
        subscribers: Mutex::default(),
        held_back: Mutex::default(),
        published: AtomicU64::new(0),
        fate: Box::new(fate),
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(client(stream, hub.clone()));
        }
    });
    addr
}

async fn client(stream: TcpStream, hub: Arc<Hub>) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::unbounded_channel::<Value>();
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(Message::text(json!([message]).to_string())).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(Message::Text(text))) = source.next().await {
        let messages: Vec<Value> = serde_json::from_str(&text).expect("a batch");
        for message in messages {
            answer(message, &sender, &hub).await;
        }
    }
}

async fn answer(message: Value, sender: &mpsc::UnboundedSender<Value>, hub: &Hub) {
    let channel = message["channel"].as_str().expect("a channel");
    let mut reply = json!({"channel": channel, "id": message["id"], "successful": true});
    match channel {
        "/meta/handshake" => reply["clientId"] = json!("someone"),
        "/meta/subscribe" => hub.subscribers.lock().push(sender.clone()),
        // Held for ever.
        "/meta/connect" if message["advice"]["timeout"] != 0 => return,
        _ if channel.starts_with("/meta/") => {}
        _ => {
            let event = json!({"channel": channel, "data": message["data"]});
            match (hub.fate)(hub.published.fetch_add(1, Ordering::SeqCst)) {
                Fate::Lost => {}
                Fate::Ignored => return,
                Fate::Refused => reply["successful"] = json!(false),
                Fate::Swapped => *hub.held_back.lock() = Some(event),
                Fate::Repeated => {
                    hub.deliver(event.clone());
                    hub.deliver(event);
                }
                Fate::Stalled(time) => {
                    tokio::time::sleep(time).await;
                    hub.deliver(event);
                }
                Fate::Delivered => hub.deliver(event),
            }
        }
    }
    // Who is gone needs no answer.
    let _ = sender.send(reply);
}

impl Hub {
    fn deliver(&self, event: Value) {
        let late = self.held_back.lock().take();
        for event in std::iter::once(event).chain(late) {
            self.subscribers.lock().retain(|subscriber| subscriber.send(event.clone()).is_ok());
        }
    }
}
