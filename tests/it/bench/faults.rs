//! What a server does wrong is seen, counted and told; and a stall is seen by all who were due in it.

use std::time::Duration;

use serde_json::Value;

use super::scripted::{Fate, serve};
use super::{count, measured, round, url};

/// 200 messages to each of three.
async fn faulty(fate: impl Fn(u64) -> Fate + Send + Sync + 'static) -> (Option<i32>, Value) {
    let addr = serve(fate).await;
    let words = "fan-out --clients 3 --rate 200 --warm-up 0 --duration 1s --drain 1s --quiet --url";
    let (code, report) = measured(&format!("{words} {}", url(addr))).await;
    let round = round(&report).clone();
    assert_eq!(count(&round, "published"), 200, "{round:#}");
    (code, round)
}

fn every_tenth(fate: Fate) -> impl Fn(u64) -> Fate {
    move |number| if number % 10 == 5 { fate } else { Fate::Delivered }
}

#[tokio::test]
async fn no_faults() {
    let (code, round) = faulty(|_| Fate::Delivered).await;
    assert_eq!((code, count(&round, "delivered"), count(&round, "expected")), (Some(0), 600, 600), "{round:#}");
}

#[tokio::test]
async fn lost_messages() {
    let (code, round) = faulty(every_tenth(Fate::Lost)).await;
    assert_eq!((code, count(&round, "lost"), count(&round, "delivered")), (Some(1), 60, 540), "{round:#}");
}

#[tokio::test]
async fn the_last_message_lost() {
    let (code, round) = faulty(|number| if number == 199 { Fate::Lost } else { Fate::Delivered }).await;
    assert_eq!((code, count(&round, "lost")), (Some(1), 3), "{round:#}");
}

#[tokio::test]
async fn repeated_messages() {
    let (code, round) = faulty(every_tenth(Fate::Repeated)).await;
    assert_eq!((code, count(&round, "duplicate"), count(&round, "lost")), (Some(0), 60, 0), "{round:#}");
    assert_eq!(count(&round, "delivered"), 600, "{round:#}");
}

#[tokio::test]
async fn swapped_messages() {
    let (code, round) = faulty(every_tenth(Fate::Swapped)).await;
    assert_eq!((code, count(&round, "out_of_order"), count(&round, "lost")), (Some(0), 60, 0), "{round:#}");
}

#[tokio::test]
async fn a_refused_publish_is_not_expected() {
    let (code, round) = faulty(every_tenth(Fate::Refused)).await;
    assert_eq!((code, count(&round, "refused"), count(&round, "lost")), (Some(0), 20, 0), "{round:#}");
    assert_eq!(count(&round, "expected"), 540, "{round:#}");
}

#[tokio::test]
async fn an_unanswered_publish_is_a_fault() {
    let (code, round) = faulty(every_tenth(Fate::Ignored)).await;
    assert_eq!((code, count(&round, "unanswered"), count(&round, "lost")), (Some(1), 20, 0), "{round:#}");
}

/// A generator that waits for the server before it sends the next message would see one slow message of 200.
#[tokio::test]
async fn a_stall_is_seen_by_all_who_were_due() {
    let stall = Duration::from_millis(500);
    let (code, round) = faulty(move |number| if number == 50 { Fate::Stalled(stall) } else { Fate::Delivered }).await;
    assert_eq!((code, count(&round, "lost")), (Some(0), 0), "{round:#}");
    let at = |name: &str| round["latency_us"][name].as_f64().expect("a time");
    // 100 of the 200 were due during the stall.
    assert!(at("max") >= 499_000.0 && at("p99") >= 470_000.0 && at("p90") >= 300_000.0, "{round:#}");
    assert!(round["publish_latency_us"]["p90"].as_f64().expect("a time") >= 300_000.0, "{round:#}");
}

/// As many as fit are under way, and no more.
#[tokio::test]
async fn at_the_rate_max_a_stall_stops_the_publisher() {
    let stall = Duration::from_millis(400);
    let addr = serve(move |number| if number == 20 { Fate::Stalled(stall) } else { Fate::Delivered }).await;
    let words = "fan-out --clients 2 --rate max --in-flight 4 --warm-up 0 --duration 1s --quiet --url";
    let (code, report) = measured(&format!("{words} {}", url(addr))).await;
    let round = round(&report);
    assert_eq!((code, count(round, "lost")), (Some(0), 0), "{round:#}");
    let slow = round["latency_us"]["max"].as_f64().expect("a time");
    assert!(slow >= 400_000.0, "{round:#}");
    assert!(round["latency_us"]["p90"].as_f64().expect("a time") < 300_000.0, "four of thousands: {round:#}");
}
