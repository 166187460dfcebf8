//! Loss probes over long-polling: the gap between two polls, polls that are cut, repeated or overtaken.

use std::time::Duration;

use serde_json::json;

use super::{CHANNEL, Place, Tally, publish_numbers};
use crate::support::bayeux::{Client, Poll, Poster, publish};
use crate::support::http::Cut;
use crate::support::{SOON, eventually, nothing_within, soon};

/// Long enough for a poll to reach the node and be held.
const REACHED: Duration = Duration::from_millis(20);

async fn polls_back_to_back(place: Place, count: u64, spacing: Option<Duration>, patterns: &[&str]) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    for pattern in patterns {
        client.subscribe(pattern).await;
    }
    let mut tally = Tally::default();
    let publisher = publish_numbers(node.addr(), count, spacing);
    tally
        .fill(count, publisher, async |tally| {
            let poll = client.poll().await;
            tally.add(&poll.messages);
            !poll.messages.is_empty()
        })
        .await;
    tally.assert_exact(count);
    assert_eq!(client.poll_at_once().await.messages, [] as [serde_json::Value; 0], "nothing comes again");
}

pub async fn burst(place: Place) {
    polls_back_to_back(place, 1000, None, &[CHANNEL]).await;
}

pub async fn one_millisecond_apart(place: Place) {
    polls_back_to_back(place, 1000, Some(Duration::from_millis(1)), &[CHANNEL]).await;
}

pub async fn three_milliseconds_apart(place: Place) {
    polls_back_to_back(place, 1000, Some(Duration::from_millis(3)), &[CHANNEL]).await;
}

pub async fn one_copy_with_overlapping_patterns(place: Place) {
    polls_back_to_back(place, 300, None, &[CHANNEL, "/loss/*", "/loss/**", "/**"]).await;
}

/// Batches of ten: the order inside a request counts as much as that between requests.
pub async fn batches_keep_their_order(place: Place) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let mut poster = Poster::new(node.addr());
    let publisher = tokio::spawn(async move {
        for first in (0..1000).step_by(10) {
            let batch: Vec<_> =
                (first..first + 10).map(|n| json!({"channel": CHANNEL, "data": n, "id": n + 1})).collect();
            let replies = soon("the acknowledgements", poster.post(&json!(batch))).await;
            let ids: Vec<_> = replies.iter().map(|reply| reply["id"].clone()).collect();
            assert_eq!(
                ids,
                (first + 1..first + 11).map(|id| json!(id)).collect::<Vec<_>>(),
                "replies in request order"
            );
            assert!(replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");
        }
    });
    let mut tally = Tally::default();
    tally
        .fill(1000, publisher, async |tally| {
            let poll = client.poll().await;
            tally.add(&poll.messages);
            !poll.messages.is_empty()
        })
        .await;
    tally.assert_exact(1000);
}

/// Which message id the poll after a cut one carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// The same, as Faye's client does.
    SameId,
    /// A new one.
    NewId,
}

/// A poll is held, its connection is cut, then a message is published: the next poll must bring it.
async fn polls_dropped(place: Place, cut: Cut, retry: Retry) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let mut publisher = Poster::new(node.addr());
    for number in 0..100 {
        let id = client.next_message_id();
        let before = node.connections().await;
        let mut connection = client.begin_poll(&id).await.take();
        nothing_within(REACHED, "the poll is held", connection.answer_begins()).await;
        connection.cut(cut);
        if retry == Retry::NewId {
            // A client that comes with a new id says that it has what was written: only a node that knows of the cut keeps
            // the message for it.
            eventually(SOON, "the node notices the cut", async || (node.connections().await <= before).then_some(()))
                .await;
        }
        publish(&mut publisher, CHANNEL, json!(number)).await;
        let poll = match retry {
            Retry::SameId => client.connect(&id, None).await.accepted(),
            Retry::NewId => client.poll().await,
        };
        assert_eq!(poll.data(), [json!(number)], "after the poll was cut for the {number}. time");
    }
}

pub async fn poll_ended_and_retried(place: Place) {
    polls_dropped(place, Cut::Fin, Retry::SameId).await;
}

pub async fn poll_reset_and_retried(place: Place) {
    polls_dropped(place, Cut::Rst, Retry::SameId).await;
}

pub async fn poll_ended_and_followed_by_another(place: Place) {
    polls_dropped(place, Cut::Fin, Retry::NewId).await;
}

pub async fn poll_reset_and_followed_by_another(place: Place) {
    polls_dropped(place, Cut::Rst, Retry::NewId).await;
}

/// A second poll on another connection: the first is answered at once, empty and successful, and the message goes to
/// the second. A fresh session each time, because a node may slow down sessions whose polls overtake each other often.
pub async fn overlapping_polls(place: Place) {
    let node = place.start_holding(Duration::from_secs(30)).await;
    let mut publisher = Poster::new(node.addr());
    for number in 0..20 {
        let mut client = Client::connected(node.addr()).await;
        client.subscribe(CHANNEL).await;
        let mut older = client.begin_poll("older").await;
        nothing_within(REACHED, "the older poll is held", older.finish()).await;
        let mut newer = client.begin_poll("newer").await;

        let poll = Poll::from_replies(soon("the older poll is answered at once", older.finish()).await).accepted();
        assert_eq!((&poll.reply["id"], poll.data()), (&json!("older"), vec![]));
        publish(&mut publisher, CHANNEL, json!(number)).await;
        let poll = Poll::from_replies(soon("the newer poll is answered", newer.finish()).await).accepted();
        assert_eq!((&poll.reply["id"], poll.data()), (&json!("newer"), vec![json!(number)]));
    }
}

/// What Faye's client does first: a connect that shares its request with the subscribe.
pub async fn connect_and_subscribe_in_one_batch(place: Place) {
    let node = place.start().await;
    for _ in 0..20 {
        let mut client = Client::handshake(node.addr()).await;
        let mut connect = client.connect_message("first", "long-polling");
        connect["advice"] = json!({"timeout": 0});
        let subscribe = client.subscribe_message(CHANNEL);
        let replies = soon("the batch is answered", client.poster.post(&json!([connect, subscribe]))).await;
        assert_eq!(replies.len(), 2, "{replies:?}");
        assert!(replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");

        let mut tally = Tally::default();
        let publisher = publish_numbers(node.addr(), 20, None);
        tally
            .fill(20, publisher, async |tally| {
                let poll = client.poll().await;
                tally.add(&poll.messages);
                !poll.messages.is_empty()
            })
            .await;
        tally.assert_exact(20);
    }
}

/// The reply is on its way, but the client never reads it and polls again with the same id: the same messages again,
/// however often, until another id confirms them.
async fn replies_lost(place: Place, cut: Cut) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let mut publisher = Poster::new(node.addr());
    for round in 0..20 {
        let numbers: Vec<_> = (0..3).map(|n| json!(round * 3 + n)).collect();
        for number in &numbers {
            publish(&mut publisher, CHANNEL, number.clone()).await;
        }
        let id = client.next_message_id();
        for _ in 0..2 {
            let mut lost = client.begin_poll(&id).await.take();
            lost.answer_begins().await;
            lost.cut(cut);
        }
        let poll = client.connect(&id, None).await.accepted();
        assert_eq!(poll.data(), numbers, "the retry brings the same messages");
        assert_eq!(client.poll_at_once().await.data(), [json!(null); 0], "another id confirms them");
    }
}

pub async fn reply_ended_unread(place: Place) {
    replies_lost(place, Cut::Fin).await;
}

pub async fn reply_reset_unread(place: Place) {
    replies_lost(place, Cut::Rst).await;
}
