//! Subscribes, prints what comes, and says what happens to the connection.
//!
//!     cargo run --example subscribe -- http://127.0.0.1:8000/bayeux '/chat/*'

use weft::Client;
use weft::client::Event;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8000/bayeux".to_owned());
    let channel = arguments.next().unwrap_or_else(|| "/chat/*".to_owned());

    let client = Client::connect(&url).await?;
    let mut events = client.events();
    let mut messages = client.subscribe(&channel).await?;
    println!("subscribed to {channel}");
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => println!("{} {}", message.channel(), message.raw()),
                None => return Ok(()),
            },
            Some(event) = events.next() => match event {
                Event::Gap { channels } => eprintln!("messages may be missing: {channels:?}"),
                other => eprintln!("{other:?}"),
            },
        }
    }
}
