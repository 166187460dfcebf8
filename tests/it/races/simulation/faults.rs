//! What can go wrong with the engine that the nodes share.

use super::*;

impl World {
    /// Cuts connections of this type, where the engine has any.
    pub(super) async fn cut(&self, kind: &str) {
        if let SharedEngine::Redis(redis) = &self.engine {
            redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    }

    /// The engine stands still for a moment.
    pub(super) async fn stall(&self) {
        if let SharedEngine::Redis(redis) = &self.engine {
            redis.signal("STOP");
            tokio::time::sleep(Duration::from_millis(30)).await;
            redis.signal("CONT");
        }
    }

    /// Only what runs by the clock sees it.
    pub(super) async fn let_time_pass(&self, time: Duration) {
        if let SharedEngine::Memory(_) = &self.engine {
            tokio::time::advance(time).await;
        }
    }
}
