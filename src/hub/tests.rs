//! What only the hub itself can show: everything else is tried through sessions, in `tests/it/races`.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::bayeux::Channel;
use crate::engine::memory::MemoryEngine;
use crate::engine::{NodeId, PartitionId};

/// Counts what it is offered, and how often it is told of a hole.
#[derive(Default)]
struct Counts {
    offered: AtomicUsize,
    missed: AtomicUsize,
}

impl Receiver for Counts {
    fn offer(&self, _: &Pattern, deliveries: &[Arc<Delivery>]) -> bool {
        self.offered.fetch_add(deliveries.len(), Ordering::Relaxed);
        false
    }

    fn push(&self, _: &mut Vec<u8>) {}

    fn wake(&self) {}

    fn missed(&self, _: bool) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_of(previous: u64, positions: &[u64]) -> Run {
    let delivery = |position: &u64| {
        let channel = Channel::parse("/a").expect("valid");
        Arc::new(Delivery::new(PartitionId::default(), Position(*position), channel, "[{}]".into()))
    };
    let log = Pattern::parse("/a").expect("valid");
    let deliveries = positions.iter().map(delivery).collect();
    Run { log, previous: Position(previous), deliveries, unbroken: true }
}

/// The feed lags behind an attach that started warm: what it still brings holds the attach's head in its middle.
#[tokio::test]
async fn a_run_that_goes_past_the_head_of_a_warm_start_is_no_hole() {
    let (node, _feed) = MemoryEngine::default().connect(NodeId::random());
    let store = Arc::new(Store::memory(node, Duration::from_secs(5)));
    let metrics = Arc::new(Metrics::new().expect("names are distinct"));
    let hub = Hub::new(store, Duration::from_secs(30), metrics);
    let (counts, pattern) = (Arc::new(Counts::default()), Pattern::parse("/a").expect("valid"));
    let receiver: Arc<dyn Receiver> = counts.clone();
    let moment = hub.moment();
    hub.join(hub.member_id(), &receiver, &pattern);
    let told = |head| {
        let head = Head { position: Position(head), alone: true };
        Told { pattern: &pattern, head, from: Position(15) }
    };
    assert!(hub.start_warm(moment, [told(20)].into_iter()));
    let due = &mut Vec::new();
    hub.fan_out(&run_of(15, &[18, 20, 22]), due).await;
    assert_eq!((counts.offered.load(Ordering::Relaxed), counts.missed.load(Ordering::Relaxed)), (3, 0));
    hub.fan_out(&run_of(22, &[24]), due).await;
    assert_eq!(counts.missed.load(Ordering::Relaxed), 0);
    hub.fan_out(&run_of(26, &[28]), due).await;
    assert_eq!(counts.missed.load(Ordering::Relaxed), 1, "26 is missing");
    assert!(!hub.start_warm(hub.moment(), [told(20)].into_iter()), "the feed brought more");
}
