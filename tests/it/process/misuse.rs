//! Bad usage and bad configuration: exit code 2, and a message that names what is wrong.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{ended, text, weft};

/// How long a refusal may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One mistake: what is set where, and what the message must contain.
struct Mistake {
    arguments: &'static [&'static str],
    file: Option<&'static str>,
    variable: Option<(&'static str, &'static str)>,
    named: &'static [&'static str],
}

const fn flag(arguments: &'static [&'static str], named: &'static [&'static str]) -> Mistake {
    Mistake { arguments, file: None, variable: None, named }
}

const fn file(content: &'static str, named: &'static [&'static str]) -> Mistake {
    Mistake { arguments: &[], file: Some(content), variable: None, named }
}

const fn variable(name: &'static str, value: &'static str, named: &'static [&'static str]) -> Mistake {
    Mistake { arguments: &[], file: None, variable: Some((name, value)), named }
}

const MISTAKES: &[Mistake] = &[
    flag(&["--nonsense"], &["--nonsense"]),
    flag(&["--timeout", "soon"], &["timeout", "soon", "500ms"]),
    flag(&["--timeout", "1ms"], &["timeout", "100ms"]),
    flag(&["--timeout=-5"], &["timeout"]),
    flag(&["--mount", "bayeux"], &["mount", "bayeux"]),
    flag(&["--mount", "/a", "--mount", "/a=cometd"], &["mounts", "/a", "twice"]),
    flag(&["--mount", "/x=java"], &["mount", "java", "faye", "cometd"]),
    flag(&["--listen", "nowhere"], &["listen", "address"]),
    flag(&["--listen", "127.0.0.1:99999"], &["listen", "address"]),
    flag(&["--listen", "127.0.0.1:7", "--internal-listen", "127.0.0.1:7"], &["internal_listen", "must differ"]),
    flag(&["--internal-listen", "8001"], &["internal_listen", "address"]),
    flag(&["--engine", "postgres"], &["engine", "postgres", "memory"]),
    flag(&["--redis-url", "http://127.0.0.1"], &["redis.url", "redis://", "rediss://"]),
    flag(&["--redis-url", "127.0.0.1:6379"], &["redis.url", "redis://"]),
    flag(&["--engine", "redis", "--redis-url", "redis://me:secret@h:x"], &["redis.url", "me:***@h"]),
    flag(&["--log-level", "loud"], &["log.level", "debug"]),
    flag(&["--log-level", "weft=loud"], &["log.level", "debug"]),
    flag(&["--log-level", "a=b=c"], &["log.level"]),
    flag(&["--log-format", "xml"], &["log.format", "xml", "json"]),
    flag(&["--config", "/nonexistent/weft.toml"], &["/nonexistent/weft.toml"]),
    flag(&["--config", "/"], &["cannot read /", "directory", "container"]),
    file("nonsense = 1", &["nonsense"]),
    file("[limits]\nnonsense = 1", &["nonsense"]),
    file("timeout = \"20s\"\nliten = \"[::]:80\"", &["mistake.toml:2:", "`liten`", "`listen`"]),
    file("listen = 7\nredis_url = \"redis://h\"", &["mistake.toml:2:", "`redis_url`", "`redis.url`"]),
    file("[engine]\nsessions = 7", &["mistake.toml:1:", "`engine` is one setting"]),
    file("page = true\n[retention]\nlength = 1", &["mistake.toml:2:", "[[retention]]"]),
    file("redis = \"redis://h\"", &["mistake.toml:1:", "[redis]"]),
    file("[[retention]]\nnonsense = 1", &["nonsense"]),
    file("[[retention]]\nchannels = \"/a\"\n[[retention]]\nlength = \"much\"", &["mistake.toml:4:", "much"]),
    file("[limits]\nbody_bytes = \"much\"", &["mistake.toml:2:", "body_bytes"]),
    file("timeout = true\nmounts = 7\n[log]\nlevel = \"loud\"", &["mistake.toml:"]),
    file("workers = -1", &["mistake.toml:1:", "workers", "-1"]),
    file("[limits]\nbody_bytes = 1", &["limits.body_bytes", "1024"]),
    file("timeout = \"soon\"", &["timeout", "soon"]),
    file("timeout = true", &["timeout", "45s"]),
    file("mounts = 7", &["mounts", "/bayeux"]),
    file("workers = 5000", &["workers", "1024"]),
    file("mounts = []", &["mounts"]),
    file("mounts = [\"/a\", 7]", &["mounts"]),
    file("engine = \"postgres\"", &["engine", "postgres"]),
    file("[log]\nlevel = \"loud\"", &["log.level", "debug"]),
    file("[redis]\nprefix = \"two words\"", &["redis.prefix", "letters"]),
    file("outage_grace = \"soon\"", &["outage_grace"]),
    file("[redis]\nurl = \"rediss://h\"\nca_file = \"/nonexistent/ca.pem\"", &["redis.ca_file", "/nonexistent/ca.pem"]),
    file(
        "[[retention]]\nchannels = \"/a\"\n[[retention]]\nchannels = \"a\"",
        &["mistake.toml:4:", "retention[1].channels"],
    ),
    file("[[retention]]\nchannels = \"/a\"\nlength = 0", &["mistake.toml:3:", "retention[0].length"]),
    file("page = true\n[[retention]]\nlength = 5", &["mistake.toml:2:", "retention[0]", "`channels` is missing"]),
    file("page = true\nworkers = 99999999999999999999", &["mistake.toml:2:", "too large"]),
    file("page = true\nworkers = 9223372036854775807", &["mistake.toml:2:", "workers", "1024"]),
    file("page = true\nthis is no TOML", &["mistake.toml:2:"]),
    file("page = true\n\"limits.sessions\" = 0", &["mistake.toml:2:", "limits.sessions"]),
    variable("WEFT_NONSENSE", "1", &["WEFT_NONSENSE"]),
    variable("WEFT_LIMITS__NONSENSE", "1", &["WEFT_LIMITS__NONSENSE"]),
    variable("WEFT_LISTN", "[::]:80", &["WEFT_LISTEN"]),
    variable("WEFT_LIMITS_SESSIONS", "5", &["WEFT_LIMITS__SESSIONS"]),
    variable("WEFT_LIMITS.SESSIONS", "5", &["WEFT_LIMITS__SESSIONS"]),
    variable("WEFT_PORT_8000_TCP", "tcp://10.0.0.1:8000", &["Service", "enableServiceLinks: false"]),
    variable("weft_timeout", "soon", &["timeout", "soon"]),
    variable("WEFT_TIMEOUT", "soon", &["timeout", "soon"]),
    variable("WEFT_LIMITS__SESSIONS", "0", &["limits.sessions", "at least 1"]),
    variable("WEFT_LISTEN", "nowhere", &["listen"]),
    variable("WEFT_MOUNTS", "/a,b", &["mount", "`b`"]),
    variable("WEFT_LIMITS__SESSIONS", "many", &["sessions"]),
    // The layer that counts is blamed, and none that it overrides.
    Mistake {
        arguments: &["--timeout", "5s"],
        file: Some("timeout = \"soon\"\nworkers = -1"),
        variable: None,
        named: &["mistake.toml:2:", "workers"],
    },
    Mistake {
        arguments: &[],
        file: Some("timeout = true\nworkers = -1"),
        variable: Some(("WEFT_TIMEOUT", "5s")),
        named: &["mistake.toml:2:", "workers"],
    },
    Mistake {
        arguments: &[],
        file: Some("workers = -1\n[limits]\nbody_bytes = 1"),
        variable: Some(("WEFT_WORKERS", "1")),
        named: &["mistake.toml:3:", "limits.body_bytes"],
    },
    Mistake {
        arguments: &["--mount", "/a"],
        file: Some("mounts = 7\nworkers = -1"),
        variable: None,
        named: &["mistake.toml:2:", "workers"],
    },
    Mistake {
        arguments: &[],
        file: Some("timeout = \"5s\""),
        variable: Some(("WEFT_TIMEOUT", "soon")),
        named: &["WEFT_TIMEOUT: ", "soon"],
    },
    Mistake {
        arguments: &["--timeout", "late"],
        file: Some("timeout = \"soon\""),
        variable: Some(("WEFT_TIMEOUT", "5s")),
        named: &["--timeout: ", "late"],
    },
    Mistake {
        arguments: &["--log-level", "debug"],
        file: None,
        variable: Some(("WEFT_WORKERS", "-1")),
        named: &["WEFT_WORKERS: ", "-1"],
    },
    Mistake {
        arguments: &[],
        file: Some("timeout = \"30s\""),
        variable: Some(("WEFT_MAX_INACTIVITY", "20s")),
        named: &["WEFT_MAX_INACTIVITY: ", "at least `timeout`"],
    },
];

#[tokio::test]
async fn mistakes_are_refused_before_anything_starts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut failures = Vec::new();
    for mistake in MISTAKES {
        // Free ports: a mistake that is overlooked must not fail for another reason.
        let free = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
        let others = free.chunks(2).filter(|pair| !mistake.arguments.contains(&pair[0]));
        let free: Vec<_> = others.flatten().copied().collect();
        for command in ["serve", "check-config"] {
            failures.extend(tried(mistake, command, &free, directory.path()).await);
        }
    }
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// A value that cannot be read would else be as good as none.
#[tokio::test]
async fn a_variable_that_is_not_utf8_is_refused() {
    let mut command = weft(&["check-config"]);
    command.env("WEFT_TIMEOUT", OsStr::from_bytes(b"30s\xff"));
    let output = ended(command).await;
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("`WEFT_TIMEOUT` is not UTF-8"), "{complaint}");
}

/// Makes a mistake; gives what is wrong with the outcome.
async fn tried(mistake: &Mistake, sub_command: &str, free: &[&str], directory: &Path) -> Option<String> {
    let mut command = weft(&[sub_command]);
    command.args(mistake.arguments);
    if mistake.variable.is_none_or(|(name, _)| name != "WEFT_LISTEN") {
        command.args(free);
    }
    if let Some(content) = mistake.file {
        command.arg("--config").arg(written(directory, content));
    }
    command.envs(mistake.variable);
    let what = format!("{sub_command} {:?} {:?} {:?}", mistake.arguments, mistake.file, mistake.variable);
    // A mistake that is overlooked makes a node that runs, perhaps silently.
    let Ok(Some(output)) = timeout(PATIENCE, ended_or_running(command)).await else {
        return Some(format!("{what}: overlooked, the node runs"));
    };
    let complaint = text(&output.stderr);
    if output.status.code() != Some(2) {
        return Some(format!("{what}: exit code {:?}: {complaint}", output.status.code()));
    }
    // Where it stands: the file, the variable, or one of the flags. Of several, the message to expect says which.
    let flags = mistake.arguments.iter().filter(|argument| argument.starts_with("--"));
    let flags: Vec<_> = flags.map(|flag| flag.split('=').next().unwrap_or(flag)).collect();
    let (in_file, variable) = (mistake.file.map(|_| "mistake.toml"), mistake.variable.map(|(name, _)| name));
    let place = in_file.xor(variable).filter(|_| flags.is_empty());
    if in_file.or(variable).is_none() && !flags.iter().any(|flag| complaint.contains(flag)) {
        return Some(format!("{what}: none of {flags:?} in: {complaint}"));
    }
    let named = mistake.named.iter().copied().chain(place);
    let missing: Vec<_> = named.filter(|name| !complaint.contains(name)).collect();
    (!missing.is_empty() || complaint.contains("panicked")).then(|| format!("{what}: {missing:?} not in: {complaint}"))
}

/// The output of a command that ends; `None` when it serves instead.
async fn ended_or_running(mut command: tokio::process::Command) -> Option<std::process::Output> {
    let mut child = command.spawn().expect("weft starts");
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().expect("standard error is a pipe");
    loop {
        match stderr.read_buf(&mut said).await.expect("the log can be read") {
            0 => break,
            _ if text(&said).contains("\"serving\"") => return None,
            _ => {}
        }
    }
    let output = child.wait_with_output().await.expect("weft can be waited for");
    Some(std::process::Output { stderr: said, ..output })
}

fn written(directory: &Path, content: &str) -> PathBuf {
    let path = directory.join("mistake.toml");
    std::fs::write(&path, content).expect("the directory can be written");
    path
}

#[tokio::test]
async fn an_unknown_sub_command_is_refused_and_help_is_no_mistake() {
    let unknown = ended(weft(&["fly"])).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("fly"), "{}", text(&unknown.stderr));
    for (flag, named) in [("--help", "check-config"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = ended(weft(&[flag])).await;
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(text(&output.stdout).contains(named), "{flag}: {}", text(&output.stdout));
    }
}
