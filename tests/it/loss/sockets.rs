//! Loss probes over WebSocket: sockets that vanish without a close frame, and changes of transport, under load.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{CHANNEL, Place, Tally, publish_numbers};
use crate::support::bayeux::{Client, Poster, publish};
use crate::support::nodes::Nodes;
use crate::support::websocket::Socket;

const COUNT: u64 = 2000;
/// How many messages come between two cuts or changes.
const STRETCH: usize = 100;
/// When nothing has come for so long, nothing will.
const QUIET: Duration = Duration::from_secs(4);

/// A socket that a session is attached to; always has a connect under way, as Faye's client does.
struct Attached {
    socket: Socket,
}

impl Attached {
    async fn open(nodes: Nodes, client: &mut Client) -> Self {
        let mut attached = Self { socket: Socket::open(nodes.pick()).await };
        attached.connect(client).await;
        attached
    }

    async fn connect(&mut self, client: &mut Client) {
        let id = client.next_message_id();
        self.socket.send(&client.connect_message(&id, "websocket")).await;
    }

    /// The next delivered messages; `None` when none came for long.
    async fn next(&mut self, client: &mut Client) -> Option<Vec<Value>> {
        timeout(QUIET, self.deliveries(client)).await.ok()
    }

    async fn deliveries(&mut self, client: &mut Client) -> Vec<Value> {
        loop {
            let messages = self.socket.next().await.expect("the node keeps the socket open");
            let (connects, deliveries): (Vec<_>, Vec<_>) =
                messages.into_iter().partition(|message| message["channel"] == "/meta/connect");
            for reply in connects {
                assert_eq!(reply["successful"], true, "{reply}");
                self.connect(client).await;
            }
            if !deliveries.is_empty() {
                return deliveries;
            }
        }
    }

    /// Receives at least [`STRETCH`] new messages; whether anything came.
    async fn stretch(&mut self, client: &mut Client, tally: &mut Tally) -> bool {
        let goal = (tally.distinct() + STRETCH).min(COUNT as usize);
        while tally.distinct() < goal {
            match self.next(client).await {
                Some(messages) => tally.add(&messages),
                None => return false,
            }
        }
        true
    }
}

pub async fn socket_cut_under_load(place: Place) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let publisher = publish_numbers(node.addr(), COUNT, Some(Duration::from_millis(1)));
    let mut tally = Tally::default();
    tally
        .fill(COUNT, publisher, async |tally| {
            let mut attached = Attached::open(node.addr(), &mut client).await;
            let came = attached.stretch(&mut client, tally).await;
            attached.socket.cut();
            came
        })
        .await;
    println!("socket cut under load: {} duplicates", tally.assert_complete(COUNT));
}

/// From socket to long-polling and back. Every other time the old socket stays open, unread: a browser tab that
/// sleeps. What it swallowed must come by the poll.
pub async fn transport_changed_under_load(place: Place) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let publisher = publish_numbers(node.addr(), COUNT, Some(Duration::from_millis(1)));
    let mut tally = Tally::default();
    let mut asleep = Vec::new();
    tally
        .fill(COUNT, publisher, async |tally| {
            let mut attached = Attached::open(node.addr(), &mut client).await;
            let by_socket = attached.stretch(&mut client, tally).await;
            if tally.distinct() / STRETCH % 4 < 2 {
                asleep.push(attached);
            } else {
                drop(attached);
            }
            poll_a_stretch(&mut client, tally).await || by_socket
        })
        .await;
    println!("transport changed under load: {} duplicates", tally.assert_complete(COUNT));
}

/// A reader that stops until more was published than the kernel takes for it, and then reads all: whoever writes, the
/// fan-out or the connection's own task, nothing is missing, nothing comes twice, and the order holds.
pub async fn socket_reads_by_fits_and_starts(place: Place) {
    const FITS: usize = 4;
    const MESSAGES: usize = 120;
    let node = place.start_holding(Duration::from_secs(60)).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let mut attached = Attached { socket: Socket::open_narrow(node.addr().pick()).await };
    attached.connect(&mut client).await;
    let mut poster = Poster::new(node.addr());
    let padding = "x".repeat(64 * 1024);
    let mut received = Vec::new();
    for fit in 1..=FITS {
        // The first of them is read at once: the socket is attached, and the fan-out writes to it.
        for number in (fit - 1) * MESSAGES..fit * MESSAGES {
            publish(&mut poster, CHANNEL, json!([number, padding])).await;
            if number == 0 {
                received.extend(attached.next(&mut client).await.expect("the first message"));
            }
        }
        while received.len() < fit * MESSAGES {
            let next = attached.next(&mut client).await;
            received.extend(next.unwrap_or_else(|| panic!("only {} of {}", received.len(), fit * MESSAGES)));
        }
    }
    let numbers: Vec<_> = received.iter().map(|message| message["data"][0].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (0..(FITS * MESSAGES) as u64).collect::<Vec<_>>());
}

/// A publisher sends what it has, one frame after the other, and goes without waiting for the replies.
pub async fn publishes_before_a_close_are_stored(place: Place) {
    const MESSAGES: u64 = 50;
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    for closes in [true, false] {
        let mut socket = Socket::open(node.addr().pick()).await;
        for number in 0..MESSAGES {
            socket.send(&json!([{ "channel": CHANNEL, "data": number }])).await;
        }
        match closes {
            true => socket.close().await,
            false => socket.end().await,
        }
        let mut tally = Tally::default();
        while tally.distinct() < MESSAGES as usize {
            let poll = client.poll().await;
            assert!(!poll.messages.is_empty(), "only {} of {MESSAGES}, closes: {closes}", tally.distinct());
            tally.add(&poll.messages);
        }
        tally.assert_complete(MESSAGES);
    }
}

/// Polls until [`STRETCH`] new messages have come; whether any came.
async fn poll_a_stretch(client: &mut Client, tally: &mut Tally) -> bool {
    let before = tally.distinct();
    while tally.distinct() < (before + STRETCH).min(COUNT as usize) {
        let poll = client.poll().await;
        if poll.messages.is_empty() {
            // A superseded socket's connect is not this poll: an empty answer means that the hold time is over.
            break;
        }
        tally.add(&poll.messages);
    }
    tally.distinct() > before
}
