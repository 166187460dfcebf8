//! What breaks in a run: feeds, connections, nodes, and the engine that they share.

use super::*;

impl Run {
    pub(super) async fn trouble(&self) {
        let disturb = || self.clients.iter().for_each(|client| client.undisturbed.set(false));
        let member = self.node();
        match self.below(9) {
            0 | 1 => {
                member.node.break_feed().await;
                self.publish().await;
                member.node.restore_feed().await;
            }
            2 => {
                disturb();
                self.crash().await;
            }
            3 => self.world.cut("pubsub").await,
            4 => {
                disturb();
                self.world.cut("normal").await;
            }
            5 => self.world.stall().await,
            6 => self.drain().await,
            _ => {
                let _ = member.call(member.node.sessions.commit()).await;
                self.world.let_time_pass(Duration::from_millis(50)).await;
            }
        }
    }

    /// A node stops in order: that repeats nothing to anybody. Another takes its place.
    async fn drain(&self) {
        let fresh = self.start_node().await;
        let index = self.below(NODES as usize);
        let stopping = std::mem::replace(&mut self.nodes.borrow_mut()[index], fresh);
        stopping.node.sessions.stop();
        for client in &self.clients {
            client.note(format!("node {index} drained"));
        }
        // An outcome that is unknown leaves the progress for the next commit, which there is none of here.
        let _ = stopping.call(stopping.node.sessions.commit()).await;
    }

    /// A node is gone without a word; another takes its place.
    async fn crash(&self) {
        let fresh = self.start_node().await;
        let index = self.below(NODES as usize);
        let gone = std::mem::replace(&mut self.nodes.borrow_mut()[index], fresh);
        gone.node.gates.crash();
        gone.node.feed.abort();
        gone.crashed.cancel();
        for client in &self.clients {
            client.note(format!("node {index} crashed"));
        }
    }
}

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
