//! What the kernel knows of processes and of this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::BenchError;

fn proc(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// CPU time that these processes have used so far, of user and kernel, by all their threads. Finer than
/// /proc/PID/stat, which is cut into ticks of 10 ms.
pub(super) fn cpu(pids: &[u32]) -> Result<Duration, BenchError> {
    let mut nanoseconds = 0;
    for &pid in pids {
        nanoseconds += threads(pid)?.into_iter().map(|(_, time)| time).sum::<u64>();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Nanoseconds of CPU time of each thread.
fn threads(pid: u32) -> Result<Vec<(String, u64)>, BenchError> {
    let gone = |error| BenchError::Process { pid, error };
    let mut times = Vec::new();
    for thread in std::fs::read_dir(proc(pid, "task")).map_err(gone)? {
        let path = thread.map_err(gone)?.path();
        // A thread may end between the listing and the reading.
        let Ok(text) = std::fs::read_to_string(path.join("schedstat")) else { continue };
        let time = text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        times.push((path.to_string_lossy().into_owned(), time));
    }
    Ok(times)
}

/// CPU time of this process, by thread.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnTime(Vec<(String, u64)>);

impl OwnTime {
    /// As of now.
    pub(super) fn now() -> Self {
        Self(threads(std::process::id()).unwrap_or_default())
    }

    /// What was used since `before`: seconds of all threads, and of the busiest one.
    pub(super) fn since(&self, before: &Self) -> (f64, f64) {
        let used = |(name, time): &(String, u64)| {
            let earlier = before.0.iter().find(|(other, _)| other == name).map_or(0, |(_, time)| *time);
            time.saturating_sub(earlier) as f64 / 1e9
        };
        (self.0.iter().map(used).sum(), self.0.iter().map(used).fold(0.0, f64::max))
    }
}

/// Memory of some processes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Resident, in bytes.
    pub resident: u64,
    /// Of which anonymous, in bytes.
    pub anonymous: u64,
}

/// Memory that these processes hold now.
pub(super) fn memory(pids: &[u32]) -> Result<Memory, BenchError> {
    let mut sum = Memory::default();
    for &pid in pids {
        let status =
            std::fs::read_to_string(proc(pid, "status")).map_err(|error| BenchError::Process { pid, error })?;
        sum.resident += kibibytes(&status, "VmRSS:") * 1024;
        sum.anonymous += kibibytes(&status, "RssAnon:") * 1024;
    }
    Ok(sum)
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The machine, for the report.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// The processor's name.
    pub model: String,
    /// Name and release of the kernel.
    pub kernel: String,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// This one.
    pub fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let model = text("/proc/cpuinfo")
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.unwrap_or_else(|| "unknown".to_owned()),
            kernel: format!("Linux {}", text("/proc/sys/kernel/osrelease").trim()),
            memory_bytes: kibibytes(&text("/proc/meminfo"), "MemTotal:") * 1024,
        }
    }
}
