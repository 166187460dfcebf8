//! Clients that come and go while others stay: half of them say goodbye, half of them are cut off.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::client::Role;
use super::local::Local;
use super::worker::Seat;

type Seats = Rc<RefCell<Vec<(Seat, AbortHandle)>>>;

/// Lets the oldest passing client of this thread go and another one come, at this thread's part of the rate, for ever.
pub(super) async fn run(local: Rc<Local>, seats: Seats) {
    let load = &local.shared.load;
    let rate = load.churn / f64::from(load.threads);
    if rate <= 0.0 {
        return;
    }
    let mut passing: VecDeque<_> = {
        let mut all = seats.borrow_mut();
        all.extract_if(.., |(seat, _)| seat.client().role.passing).collect()
    };
    let arrived = Rc::new(RefCell::new(Vec::new()));
    let pause = Duration::from_secs_f64(1.0 / rate);
    let mut clock = tokio::time::interval_at(Instant::now() + pause, pause);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // What is left is judged with all others, also when this ends in the middle of a wait.
    let mut keeper = Keeper { seats, passing: VecDeque::new(), arrived: arrived.clone() };
    keeper.passing.append(&mut passing);
    let mut orderly = false;
    loop {
        clock.tick().await;
        keeper.passing.extend(arrived.borrow_mut().drain(..));
        let Some((seat, task)) = keeper.passing.pop_front() else { continue };
        orderly = !orderly;
        let role = seat.client().role;
        tokio::task::spawn_local(go(local.clone(), seat, task, orderly));
        tokio::task::spawn_local(come(local.clone(), role, arrived.clone()));
    }
}

async fn go(local: Rc<Local>, seat: Seat, task: AbortHandle, orderly: bool) {
    let lost = seat.client().missing();
    {
        let mut counts = local.counts.borrow_mut();
        counts.churn_lost += lost;
        counts.churned += 1;
    }
    if orderly {
        seat.leave().await;
    }
    seat.cut();
    task.abort();
}

async fn come(local: Rc<Local>, role: Role, arrived: Rc<RefCell<Vec<(Seat, AbortHandle)>>>) {
    match Seat::take(&local, role).await {
        Ok(seat) => arrived.borrow_mut().push(seat),
        Err(error) => {
            local.counts.borrow_mut().connect_failures += 1;
            local.failed(&error);
        }
    }
}

/// Gives the passing clients back when dropped.
struct Keeper {
    seats: Seats,
    passing: VecDeque<(Seat, AbortHandle)>,
    arrived: Rc<RefCell<Vec<(Seat, AbortHandle)>>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut seats = self.seats.borrow_mut();
        seats.extend(self.passing.drain(..));
        seats.extend(self.arrived.borrow_mut().drain(..));
    }
}
