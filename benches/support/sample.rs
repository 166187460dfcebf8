//! What the micro benches share: for how long they measure, and the messages that they use.
#![allow(dead_code, reason = "not every bench uses all of it")]

use std::time::Duration;

use criterion::Criterion;

pub const CHANNEL: &str = "/bench/room";
/// Bytes of a message's data, unless the size is what is measured.
pub const PAYLOAD: usize = 200;

/// Short rounds: nobody should shrink from running all of them.
pub fn criterion() -> Criterion {
    let (warm_up, measurement) = (Duration::from_millis(300), Duration::from_millis(1200));
    Criterion::default().without_plots().sample_size(20).warm_up_time(warm_up).measurement_time(measurement)
}

/// A JSON object of so many bytes, nearly all of them one text.
pub fn text(bytes: usize) -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(bytes.saturating_sub(11)))
}

/// A JSON array of about so many bytes, of small objects.
pub fn records(bytes: usize) -> String {
    let record = r#"{"symbol":"WEFT","price":104.25,"bid":[104.2,17],"open":true}"#;
    format!("[{}]", vec![record; bytes.div_ceil(record.len() + 1)].join(","))
}

/// A publish as Faye's client sends it.
pub fn publish(id: usize, data: &str) -> String {
    format!(r#"{{"channel":"{CHANNEL}","data":{data},"clientId":"3e2b1981c0ffee00c0ffee003e2b1981","id":"{id:x}"}}"#)
}

/// The delivered form of a publish: a JSON array of one message.
pub fn array() -> bytes::Bytes {
    format!("[{{\"channel\":\"{CHANNEL}\",\"data\":{}}}]", text(PAYLOAD)).into()
}
