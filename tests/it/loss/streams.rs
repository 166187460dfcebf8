//! Loss probes over EventSource: streams that are cut under load and reopened with the id of the last event.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{CHANNEL, Place, Tally, publish_numbers};
use crate::support::bayeux::Client;
use crate::support::events::EventStream;
use crate::support::http::Cut;
use crate::support::soon;

const COUNT: u64 = 2000;
/// How many messages come between two cuts.
const STRETCH: usize = 200;
/// When nothing has come for so long, nothing will.
const QUIET: Duration = Duration::from_secs(4);

async fn stream_cut_under_load(place: Place, cut: Cut) {
    let node = place.start().await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe(CHANNEL).await;
    let publisher = publish_numbers(node.addr(), COUNT, Some(Duration::from_millis(1)));
    let mut tally = Tally::default();
    let mut last_event_id: Option<String> = None;
    tally
        .fill(COUNT, publisher, async |tally| {
            heartbeat(&mut client).await;
            let mut stream = EventStream::open(node.addr().pick(), &client.id, last_event_id.as_deref()).await;
            let goal = (tally.distinct() + STRETCH).min(COUNT as usize);
            while tally.distinct() < goal {
                let Ok(next) = timeout(QUIET, stream.next()).await else { return false };
                let event = next.expect("the node keeps the stream open");
                tally.add(&event.messages);
                last_event_id = event.id.or(last_event_id.take());
            }
            stream.cut(cut);
            true
        })
        .await;
    println!("stream cut under load ({cut:?}): {} duplicates", tally.assert_complete(COUNT));
}

/// What keeps a session with a stream alive: a connect by POST, answered at once.
async fn heartbeat(client: &mut Client) {
    let id = client.next_message_id();
    let connect = client.connect_message(&id, "eventsource");
    let replies = soon("the heartbeat is answered at once", client.poster.post(&connect)).await;
    assert_eq!(replies.len(), 1, "a heartbeat carries no messages: {replies:?}");
    assert_eq!(replies[0]["successful"], true, "{replies:?}");
    assert_eq!(replies[0]["advice"], json!({"reconnect": "retry", "interval": 2000, "timeout": 0}));
}

pub async fn stream_ended(place: Place) {
    stream_cut_under_load(place, Cut::Fin).await;
}

pub async fn stream_reset(place: Place) {
    stream_cut_under_load(place, Cut::Rst).await;
}
