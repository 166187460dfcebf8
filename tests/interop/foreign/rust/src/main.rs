//! Drives the crate `cometd-client`: commands come as JSON lines on stdin, answers and events go out as such on stdout.
//!
//! The crate tells of nothing but messages and its own end. It has no publish, no unsubscribe and no way to learn its
//! session's id, and a subscription is asked for, not awaited.

use std::collections::HashMap;

use cometd_client::types::{CometdClientEvent, Data};
use cometd_client::{CometdClient, CometdClientBuilder};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

type Client = CometdClient<Value>;

struct Session {
    client: Client,
    events: JoinHandle<()>,
}

// One thread: lines never mix.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut sessions: HashMap<u64, Session> = HashMap::new();
    say(json!({ "event": "ready" }));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).expect("a command is JSON");
        let mut answer = match obey(&mut sessions, &command).await {
            Ok(()) => json!({ "ok": true }),
            Err(error) => json!({ "ok": false, "error": error }),
        };
        answer["tag"] = command["tag"].clone();
        say(answer);
    }
}

async fn obey(sessions: &mut HashMap<u64, Session>, command: &Value) -> Result<(), String> {
    let number = command["client"].as_u64().ok_or("a command names its client")?;
    match command["do"].as_str().unwrap_or_default() {
        "open" => {
            let session = open(number, command["url"].as_str().unwrap_or_default())?;
            sessions.insert(number, session);
        }
        "subscribe" => {
            let session = sessions.get(&number).ok_or("no such client")?;
            session.client.subscribe(&[command["channel"].as_str().unwrap_or_default()]).await;
        }
        "disconnect" => {
            let session = sessions.remove(&number).ok_or("no such client")?;
            // The crate's way to disconnect. Its events end when it has done so.
            drop(session.client);
            session.events.await.map_err(|error| error.to_string())?;
        }
        other => return Err(format!("cannot {other}")),
    }
    Ok(())
}

fn open(number: u64, url: &str) -> Result<Session, String> {
    // It joins `handshake`, `connect` and so on to the URL, as a browser would resolve a link.
    let endpoint = format!("{url}/").parse().map_err(|error| format!("{url}: {error}"))?;
    let client: Client = CometdClientBuilder::new(&endpoint).build().map_err(|error| error.to_string())?;
    let mut received = client.rx();
    // It has no other.
    say(json!({ "event": "transport", "client": number, "transport": "long-polling" }));
    let events = tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            match event {
                CometdClientEvent::Message(messages) => {
                    for Data { channel, message } in messages.iter() {
                        say(json!({ "event": "message", "client": number, "channel": channel, "data": message }));
                    }
                }
                CometdClientEvent::Error(error) => {
                    say(json!({ "event": "ended", "client": number, "error": error.to_string() }));
                }
            }
        }
    });
    Ok(Session { client, events })
}

fn say(line: Value) {
    println!("{line}");
}
