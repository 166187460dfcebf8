//! Publishers: in an open loop, each message at its time, or as many as there is room for.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::local::{Local, PATIENCE};
use super::pacer::{Pacer, Schedule};
use super::plan::Rate;
use super::worker::Seat;

/// Requests of one thread that may be under way in an open loop by long-polling.
const REQUESTS: usize = 2_000;
/// Turns after which other tasks get a chance.
const AT_ONCE: u32 = 32;

/// The publishers of this thread, each with its number; rising.
pub(super) struct Publishers {
    local: Rc<Local>,
    seats: Vec<(u32, Seat)>,
}

impl Publishers {
    pub(super) fn new(local: Rc<Local>, mut seats: Vec<(u32, Seat)>) -> Self {
        seats.sort_by_key(|(publisher, _)| *publisher);
        Self { local, seats }
    }

    /// Publishes until the measured time is over.
    pub(super) async fn run(self) {
        match self.local.shared.load.rate {
            Rate::PerSecond(rate) => self.paced(rate).await,
            Rate::Max => self.full_speed().await,
        }
    }

    fn over(local: &Local) -> bool {
        local.shared.now() >= local.shared.measure_to.load(Ordering::Relaxed)
    }

    async fn paced(&self, rate: f64) {
        let shared = &self.local.shared;
        let load = &shared.load;
        let publishes = |stream: &u32| self.seat(stream % load.publishers).is_some();
        let own: Vec<u32> = (0..load.streams()).filter(publishes).collect();
        let schedule = Schedule::new(shared.start.load(Ordering::Relaxed), rate, load.batch, load.streams(), own);
        let Ok(pacer) = Pacer::start(Arc::clone(shared), schedule.clone()) else {
            *self.local.live().failure.lock() = Some("cannot start a thread".to_owned());
            return;
        };
        let requests = Arc::new(tokio::sync::Semaphore::new(REQUESTS));
        let mut messages = Vec::with_capacity(load.batch as usize);
        let (mut number, mut at_once) = (0, 0);
        while let Some((stream, due)) = schedule.turn(number) {
            if due >= shared.measure_to.load(Ordering::Relaxed) {
                break;
            }
            if due > shared.now() {
                pacer.rings().await;
                at_once = 0;
                continue;
            }
            messages.clear();
            messages.resize(load.batch as usize, (stream, due));
            match self.seat(stream % load.publishers) {
                Some(Seat::Socket(client)) => {
                    if !client.publish(&messages) {
                        self.local.counts.borrow_mut().unsent += u64::from(load.batch);
                    }
                }
                Some(Seat::Polling(client)) => {
                    // The semaphore is never closed.
                    let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { break };
                    let sending = client.publish(&messages);
                    tokio::task::spawn_local(async move {
                        sending.await;
                        drop(permit);
                    });
                }
                None => {}
            }
            number += 1;
            at_once += 1;
            if at_once == AT_ONCE {
                tokio::task::yield_now().await;
                at_once = 0;
            }
        }
    }

    fn seat(&self, publisher: u32) -> Option<&Seat> {
        let at = self.seats.binary_search_by_key(&publisher, |(publisher, _)| *publisher).ok()?;
        Some(&self.seats[at].1)
    }

    async fn full_speed(self) {
        let tasks =
            self.seats.into_iter().map(|(publisher, seat)| one_at_full_speed(self.local.clone(), publisher, seat));
        futures_util::future::join_all(tasks).await;
    }
}

async fn one_at_full_speed(local: Rc<Local>, publisher: u32, seat: Seat) {
    let shared = &local.shared;
    let load = &shared.load;
    let own = (load.streams() - publisher).div_ceil(load.publishers);
    let room = &shared.in_flight[publisher as usize];
    let mut place = 0_u64;
    let mut messages = Vec::with_capacity(load.batch as usize);
    loop {
        for place in place..place + u64::from(load.batch) {
            // What was not complete within that time is given up; the drain waits for it once more.
            room.room(place, PATIENCE).await;
        }
        if Publishers::over(&local) {
            return;
        }
        messages.clear();
        let due = shared.now();
        messages.extend((place..place + u64::from(load.batch)).map(|place| {
            let turn = (place % u64::from(own)) as u32;
            (publisher + turn * load.publishers, due)
        }));
        match &seat {
            Seat::Socket(client) => {
                if !client.publish(&messages) {
                    if client.is_gone() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
            Seat::Polling(client) => {
                tokio::task::spawn_local(client.publish(&messages));
            }
        }
        place += u64::from(load.batch);
    }
}
