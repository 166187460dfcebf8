//! What every integration test needs: nodes to talk to, clients that can misbehave, and waits that end.
//! The clients are written by hand, because a well-behaved library cannot cut a connection in the middle of a frame.

pub mod bayeux;
pub mod events;
pub mod http;
pub mod node;
pub mod nodes;
pub mod proxy;
pub mod redis;
pub mod websocket;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long a test waits for something that should happen at once. Generous: shared machines stall.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits for `future`, at most [`SOON`]; panics with `what` when that was not enough.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(SOON, what, future).await
}

/// Waits for `future`, at most `limit`; panics with `what` when that was not enough.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("still waiting after {limit:?}: {what}"),
    }
}

/// Asks again and again until there is an answer; panics with `what` when `limit` is over. For what can only be
/// observed by looking (a file, a counter); where something can be awaited, await it with [`soon`].
pub async fn eventually<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Panics if `future` completes within `span`: for "nothing may be sent now" and "this is held".
pub async fn nothing_within<T: std::fmt::Debug>(span: Duration, what: &str, future: impl Future<Output = T>) {
    if let Ok(value) = timeout(span, future).await {
        panic!("{what}: expected nothing within {span:?}, got {value:?}");
    }
}
