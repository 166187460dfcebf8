//! Where and when the figures come from.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Processors, memory and kernel, and the versions of what was measured.
pub fn describe() -> Result<Value> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    Ok(json!({
        "cpus": std::thread::available_parallelism()?,
        "model": field(&processors, "model name"),
        "memory": field(&memory, "MemTotal"),
        "kernel": said("uname", &["-sr"])?,
        "node": said("node", &["--version"])?,
        "redis": said("redis-server", &["--version"])?,
        "peers": {
            "faye": package("faye")?,
            "faye-redis": package("faye-redis")?,
            "socket.io": package("socket.io")?,
            "@socket.io/redis-adapter": package("@socket.io/redis-adapter")?,
        },
    }))
}

/// Now, in UTC.
pub fn date() -> Result<String> {
    said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of an installed package.
fn package(name: &str) -> Result<Value> {
    let path = format!("{}/benches/peers/node_modules/{name}/package.json", env!("CARGO_MANIFEST_DIR"));
    let package: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    Ok(package["version"].clone())
}
