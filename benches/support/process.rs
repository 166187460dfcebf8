//! A server process, and what the kernel knows of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// A server in a process of its own, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts it. What it writes to its standard error is shown.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    /// CPU time used so far, of user and kernel, by all threads. The same as in /proc/PID/stat, but not cut into ticks
    /// of 10 ms.
    #[allow(dead_code, reason = "not every bench asks")]
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(self.proc("task")).context("the server is gone")? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat")).context("no scheduler statistics")?;
            nanoseconds += stat.split(' ').next().context("empty scheduler statistics")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// How it ended, if it did.
    #[allow(dead_code, reason = "not every bench asks")]
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// A file or folder of its /proc/PID.
    #[allow(dead_code, reason = "not every bench asks")]
    pub fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join(name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
