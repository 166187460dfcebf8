//! How near a node is to its limits of connections and memory. Asked by the canary, each second.

use std::fs;
use std::path::{Path, PathBuf};
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
    /// Whose limit of memory it is. `None`: that of this process, by configuration.
    group: Option<ControlGroup>,
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
        let group = if memory > 0 { None } else { ControlGroup::of_this_process() };
        let memory = group.as_ref().map_or(memory as u64, |group| group.limit);
        if memory > 0 {
            tracing::debug!(bytes = memory, "memory limit");
        }
        Self { metrics, connections: Gauge::new(connections as u64), memory: Gauge::new(memory), group }
    }

    /// What is nearly used up.
    pub(super) fn look(&mut self) -> Option<String> {
        let open = u64::try_from(self.metrics.connections.get()).unwrap_or(0);
        if self.connections.is_high(open) {
            return Some(format!("{open} connections of {} are open", self.connections.limit));
        }
        let used = match &self.group {
            Some(group) => group.used(),
            None if self.memory.limit > 0 => resident_bytes(),
            None => None,
        };
        let used = used.unwrap_or(0);
        if self.memory.is_high(used) {
            return Some(format!("{used} bytes of memory of {} are used", self.memory.limit));
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

/// What limits the memory of a container, or of a service. It also counts what the kernel keeps for sockets, which is a third
/// of an idle connection, and no part of the process's own memory.
struct ControlGroup {
    limit: u64,
    usage: PathBuf,
    stat: PathBuf,
    /// In `stat`: file pages that the kernel gives away before it runs out.
    inactive: &'static str,
}

impl ControlGroup {
    /// The one that limits this process, if any does.
    fn of_this_process() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let root = Path::new("/sys/fs/cgroup");
        // A container sees its own group as the root; a service does not.
        Self::version_2(&root.join(own.trim_start_matches('/')))
            .or_else(|| Self::version_2(root))
            .or_else(|| Self::version_1(&root.join("memory")))
    }

    fn version_2(folder: &Path) -> Option<Self> {
        let (usage, stat) = (folder.join("memory.current"), folder.join("memory.stat"));
        Some(Self { limit: number(&folder.join("memory.max"))?, usage, stat, inactive: "inactive_file " })
    }

    fn version_1(folder: &Path) -> Option<Self> {
        let (usage, stat) = (folder.join("memory.usage_in_bytes"), folder.join("memory.stat"));
        // "No limit" is written as a number that no machine has.
        let limit = number(&folder.join("memory.limit_in_bytes")).filter(|bytes| *bytes < 1 << 60)?;
        Some(Self { limit, usage, stat, inactive: "total_inactive_file " })
    }

    /// Bytes that count and cannot be given away at once.
    fn used(&self) -> Option<u64> {
        let stat = fs::read_to_string(&self.stat).ok()?;
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.inactive)?.trim().parse::<u64>().ok());
        Some(number(&self.usage)?.saturating_sub(inactive.unwrap_or(0)))
    }
}

/// What a file holds, if that is a number: `max` is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
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
    fn control_groups_count_sockets_but_no_caches() {
        let folder = std::env::temp_dir().join(format!("weft-group-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).expect("a new folder");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
        assert!(ControlGroup::version_2(&folder).is_none(), "nothing is there");
        write("memory.max", "max\n");
        assert!(ControlGroup::version_2(&folder).is_none(), "no limit");
        write("memory.max", "1000\n");
        write("memory.current", "970\n");
        write("memory.stat", "anon 600\nsock 250\ninactive_file 120\n");
        let group = ControlGroup::version_2(&folder).expect("a limit");
        assert_eq!((group.limit, group.used()), (1000, Some(850)));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert!(ControlGroup::version_1(&folder).is_none(), "no limit");
        write("memory.limit_in_bytes", "2000\n");
        write("memory.usage_in_bytes", "1900\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
        let group = ControlGroup::version_1(&folder).expect("a limit");
        assert_eq!((group.limit, group.used()), (2000, Some(1800)));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn the_process_uses_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
