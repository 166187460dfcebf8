//! How near a node is to its limits of connections and memory. Asked by the canary, each second.

use std::fs;
use std::sync::Arc;

use crate::metrics::Metrics;

/// Shares of a limit, in hundredths: from the first on nobody new shall come, and below the second again.
const HIGH: u64 = 95;
const LOW: u64 = 90;

/// Watches limits. Remembers what it said, so that it does not waver.
pub(super) struct Pressure {
    metrics: Arc<Metrics>,
    connections: Gauge,
    memory: Gauge,
}

/// One limit.
struct Gauge {
    /// 0 for none.
    limit: u64,
    high: bool,
}

impl Gauge {
    fn new(limit: u64) -> Self {
        Self { limit, high: false }
    }

    /// Whether `used` is too near to the limit.
    fn is_high(&mut self, used: u64) -> bool {
        let share = if self.high { LOW } else { HIGH };
        self.high = self.limit > 0 && used.saturating_mul(100) >= self.limit.saturating_mul(share);
        self.high
    }
}

impl Pressure {
    /// With these limits; a `memory` of 0 bytes means that of the container, if there is one.
    pub(super) fn new(metrics: Arc<Metrics>, connections: usize, memory: usize) -> Self {
        let memory = if memory > 0 { memory as u64 } else { container_limit().unwrap_or(0) };
        if memory > 0 {
            tracing::debug!(bytes = memory, "memory limit");
        }
        Self { metrics, connections: Gauge::new(connections as u64), memory: Gauge::new(memory) }
    }

    /// What is nearly used up.
    pub(super) fn look(&mut self) -> Option<String> {
        let open = u64::try_from(self.metrics.connections.get()).unwrap_or(0);
        if self.connections.is_high(open) {
            return Some(format!("{open} connections of {} are open", self.connections.limit));
        }
        let resident = if self.memory.limit > 0 { resident_bytes().unwrap_or(0) } else { 0 };
        if self.memory.is_high(resident) {
            return Some(format!("{resident} bytes of memory of {} are used", self.memory.limit));
        }
        None
    }
}

/// Memory of this process, in bytes.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// The memory that the control group of this process may use, in bytes: as a container sees it, or as a service does.
fn container_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let paths = [
        format!("/sys/fs/cgroup{}/memory.max", own.trim_end_matches('/')),
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    let limit = |path: &String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // Version 1 writes "no limit" as a number that no machine has.
    paths.iter().find_map(limit).filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_does_not_waver() {
        let mut gauge = Gauge::new(1000);
        let said = [940, 950, 949, 900, 899, 949].map(|used| gauge.is_high(used));
        assert_eq!(said, [false, true, true, true, false, false]);
        assert!(!Gauge::new(0).is_high(u64::MAX), "no limit");
    }

    #[test]
    fn the_process_uses_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
