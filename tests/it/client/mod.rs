//! The Rust client against real nodes: what it promises to a program, and what breaks on the way.

mod faults;
mod simulation;
mod talk;

use std::time::Duration;

use weft::Client;
use weft::client::{ClientBuilder, Event, Events, Subscription, Transport};

use crate::support::soon;

const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::LongPolling];

/// A client over one kind of link, that does not wait long after a failure.
fn over(transport: Transport, url: &str) -> ClientBuilder {
    quick(url).transports(&[transport])
}

fn quick(url: &str) -> ClientBuilder {
    let longest = Duration::from_millis(200);
    Client::builder(url).backoff(weft::client::Backoff { first: Duration::from_millis(20), longest })
}

async fn connected(builder: ClientBuilder) -> Client {
    soon("the client is connected", builder.connect()).await.expect("connected")
}

async fn subscribed(client: &Client, pattern: &str) -> Subscription {
    soon("the subscription is accepted", client.subscribe(pattern)).await.expect("accepted")
}

async fn publish(client: &Client, channel: &str, number: u64) {
    soon("the publish is stored", client.publish(channel, &number)).await.expect("stored");
}

/// The next numbers of a subscription.
async fn numbers(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let what = format!("message {} of {count}, after {numbers:?}", numbers.len() + 1);
        let message = soon(&what, subscription.next()).await.expect("the subscription lives");
        numbers.push(message.data().expect("a number"));
    }
    numbers
}

/// Waits for an event.
async fn event(events: &mut Events, what: &str, mut is: impl FnMut(&Event) -> bool) -> Event {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(crate::support::SOON, events.next()).await;
        let Ok(Some(event)) = next else { panic!("no {what}, but {next:?} after {seen:?}") };
        if is(&event) {
            return event;
        }
        seen.push(event);
    }
}
