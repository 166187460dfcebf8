//! Where a test's clients connect: one node, or several of which each request takes another.

use std::net::SocketAddr;
use std::sync::Arc;

/// Addresses of nodes that serve the same sessions.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<[SocketAddr]>);

impl From<SocketAddr> for Nodes {
    fn from(only: SocketAddr) -> Self {
        Self([only].into())
    }
}

impl FromIterator<SocketAddr> for Nodes {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl Nodes {
    /// One of them, at random: no request knows where the one before went.
    pub fn pick(&self) -> SocketAddr {
        self.0[fastrand::usize(0..self.0.len())]
    }
}
