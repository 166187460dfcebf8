//! One thread of the generator: connects its clients, lets them publish and receive, and asks them what is missing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::{AbortHandle, LocalSet};

use super::churn;
use super::client::{Client, Role};
use super::comeback;
use super::local::{ClientError, Counts, Local};
use super::plan::{Scenario, Transport};
use super::polling::PollingClient;
use super::publisher::Publishers;
use super::shared::{Phase, Shared};
use super::socket::SocketClient;

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// Connects under way at once, unless the scenario says otherwise.
const CONNECTING: u32 = 100;

/// A client on its connection.
#[derive(Clone)]
pub(super) enum Seat {
    Socket(Rc<SocketClient>),
    Polling(Rc<PollingClient>),
}

impl Seat {
    /// The client.
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Socket(client) => &client.client,
            Self::Polling(client) => &client.client,
        }
    }

    /// Connects a client, and serves its connection in a task of its own.
    pub(super) async fn take(local: &Rc<Local>, role: Role) -> Result<(Self, AbortHandle), ClientError> {
        let opened = match local.shared.load.transport {
            Transport::Websocket => {
                let client = SocketClient::open(local, role).await?;
                let task = tokio::task::spawn_local(comeback::serve(client.clone()));
                (Self::Socket(client), task.abort_handle())
            }
            Transport::LongPolling => {
                let client = PollingClient::open(local, role).await?;
                let task = tokio::task::spawn_local(client.clone().poll().map(drop));
                (Self::Polling(client), task.abort_handle())
            }
        };
        local.counts.borrow_mut().connected += 1;
        opened.0.client().stands();
        Ok(opened)
    }

    /// Says goodbye and waits until it was heard.
    pub(super) async fn leave(&self) {
        let goodbye = async {
            match self {
                Self::Socket(client) => client.left().await,
                Self::Polling(client) => client.clone().leave().await,
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// Its connection, if it has one of its own, is to end abruptly.
    pub(super) fn cut(&self) {
        match self {
            Self::Socket(client) => client.cut(),
            Self::Polling(client) => client.cut(),
        }
    }
}

/// What a thread has seen.
pub(super) struct Outcome {
    pub counts: Counts,
    /// Messages that stable receivers missed.
    pub lost: u64,
}

/// Runs a thread's part of a round to its end.
pub(super) fn run(shared: Arc<Shared>, index: usize, roles: Vec<Role>) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let local = Rc::new(Local::new(shared, index));
    let lost = runtime.block_on(tasks.run_until(work(local.clone(), roles)));
    drop(tasks);
    local.pools.clear();
    let counts = match Rc::try_unwrap(local) {
        Ok(local) => local.counts.into_inner(),
        // All tasks are gone, and with them all who held it; but if not, its counts are still right.
        Err(local) => local.counts.replace(Counts::new()),
    };
    Ok(Outcome { counts, lost })
}

async fn work(local: Rc<Local>, roles: Vec<Role>) -> u64 {
    let shared = local.shared.clone();
    let seats = connect(&local, roles).await;
    shared.step();
    shared.reached(Phase::Running).await;
    let publishers = seats.iter().filter_map(|(seat, _)| Some((seat.client().role.publisher?, seat.clone()))).collect();
    let publishing = Publishers::new(local.clone(), publishers).run();
    let over = async {
        while !over(&shared) {
            tokio::select! {
                () = tokio::time::sleep_until(shared.instant(shared.measure_to.load(Ordering::Relaxed)).into()) => {}
                () = shared.stop.cancelled() => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let seats = Rc::new(RefCell::new(seats));
    let churning = churn::run(local.clone(), seats.clone());
    if shared.load.scenario.publishes() {
        tokio::select! {
            () = over => {}
            ((), ()) = futures_util::future::join(publishing, churning) => {}
        }
    } else {
        shared.reached(Phase::Draining).await;
    }
    shared.step();
    shared.reached(Phase::Judging).await;
    let seats = seats.take();
    seats.iter().for_each(|(seat, _)| seat.client().give_up(None));
    // Nobody judges before all have given up.
    shared.step();
    shared.reached(Phase::Leaving).await;
    let missing = |(seat, _): &(Seat, AbortHandle)| (seat.client().role.passing, seat.client().missing());
    let (mut lost, mut passing_lost) = (0, 0);
    for (passing, missing) in seats.iter().map(missing) {
        if passing { passing_lost += missing } else { lost += missing }
    }
    local.counts.borrow_mut().churn_lost += passing_lost;
    let goodbyes = seats.iter().map(|(seat, _)| seat.leave());
    let all = futures_util::stream::iter(goodbyes).for_each_concurrent(500, |goodbye| goodbye);
    let _ = tokio::time::timeout(GOODBYE, all).await;
    seats.iter().for_each(|(seat, _)| seat.cut());
    lost
}

fn over(shared: &Shared) -> bool {
    shared.now() >= shared.measure_to.load(Ordering::Relaxed)
}

async fn connect(local: &Rc<Local>, roles: Vec<Role>) -> Vec<(Seat, AbortHandle)> {
    let load = &local.shared.load;
    let under_way = if load.scenario == Scenario::Storm { load.in_flight } else { CONNECTING };
    let under_way = under_way.div_ceil(load.threads).max(1) as usize;
    let seats = RefCell::new(Vec::with_capacity(roles.len()));
    let each = |role: Role| {
        let seats = &seats;
        async move {
            let opened = Seat::take(local, role);
            tokio::select! {
                opened = opened => match opened {
                    Ok(seat) => seats.borrow_mut().push(seat),
                    Err(error) => {
                        local.counts.borrow_mut().connect_failures += 1;
                        local.failed(&error);
                    }
                },
                () = local.shared.stop.cancelled() => {}
            }
        }
    };
    futures_util::stream::iter(roles).for_each_concurrent(under_way, each).await;
    seats.into_inner()
}
