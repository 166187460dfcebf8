//! The layers of the configuration, and `weft check-config`, which shows what they come to.

use std::path::PathBuf;

use toml::Table;

use super::{ended, printed, text, weft};

/// A file in a directory of its own.
fn written(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("weft.toml");
    std::fs::write(&path, content).expect("the directory can be written");
    (directory, path)
}

fn table(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn later_layers_win() {
    let (_directory, path) = written(
        "timeout = \"10s\"\nhandshake_spread = \"1s\"\nwebsocket_ping = \"11s\"\nmounts = [\"/file\"]\n\
         listen = \"127.0.0.1:1001\"\n[limits]\nsessions = 10\nsubscriptions = 11\n[log]\nlevel = \"warn\"\n",
    );
    let mut command = weft(&["check-config", "--timeout", "30s", "--mount", "/flag=cometd", "--log-level", "trace"]);
    command.arg("--config").arg(path);
    command.envs([
        ("WEFT_TIMEOUT", "20s"),
        ("WEFT_HANDSHAKE_SPREAD", "2s"),
        ("WEFT_MOUNTS", "/env,/other=cometd"),
        ("WEFT_LISTEN", "127.0.0.1:1002"),
        ("WEFT_LIMITS__SESSIONS", "20"),
        ("WEFT_LOG__FORMAT", "text"),
    ]);
    let shown = table(&printed(command).await);

    assert_eq!(shown["timeout"].as_str(), Some("30s"), "a flag over all");
    assert_eq!(shown["mounts"], toml::Value::from(vec!["/flag=cometd"]), "flags replace the whole list");
    assert_eq!(shown["log"]["level"].as_str(), Some("trace"), "a flag over the file");
    assert_eq!(shown["handshake_spread"].as_str(), Some("2s"), "the environment over the file");
    assert_eq!(shown["listen"].as_str(), Some("127.0.0.1:1002"), "the environment over the file");
    assert_eq!(shown["limits"]["sessions"].as_integer(), Some(20), "the environment over the file, nested");
    assert_eq!(shown["log"]["format"].as_str(), Some("text"), "the environment over the default, nested");
    assert_eq!(shown["websocket_ping"].as_str(), Some("11s"), "the file over the default");
    assert_eq!(shown["limits"]["subscriptions"].as_integer(), Some(11), "the file over the default, nested");
    assert_eq!(shown["limits"]["batch_messages"].as_integer(), Some(1000), "a default");
    assert_eq!(shown["engine"].as_str(), Some("memory"), "a default");
}

#[tokio::test]
async fn lists_come_from_variables_too() {
    let mut command = weft(&["check-config"]);
    command.env("WEFT_MOUNTS", "/env, /other=cometd");
    let shown = table(&printed(command).await);
    assert_eq!(shown["mounts"], toml::Value::from(vec!["/env=faye", "/other=cometd"]));
}

#[tokio::test]
async fn the_defaults_are_as_documented() {
    let shown = table(&printed(weft(&["check-config"])).await);
    for (key, value) in
        [("listen", "127.0.0.1:8000"), ("internal_listen", "127.0.0.1:8001"), ("timeout", "45s"), ("engine", "memory")]
    {
        assert_eq!(shown[key].as_str(), Some(value), "{key}");
    }
    assert_eq!(shown["mounts"], toml::Value::from(vec!["/bayeux=faye", "/cometd=cometd"]));
}

/// The tables of the documentation have every setting, with its variable and its default.
#[tokio::test]
async fn every_setting_is_documented() {
    let page = include_str!("../../../docs/configuration.md");
    // By the part of the variable's name behind the prefix: keys of tables are written without the table.
    let rows: std::collections::BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let [key, default, variable, ..] = &cells[..] else { return None };
            let named = variable.split(' ').next()?.strip_prefix("WEFT_");
            Some((named.map_or_else(|| key.to_uppercase(), str::to_owned), default.clone()))
        })
        .collect();
    let mut settings = Vec::new();
    for (key, value) in table(&printed(weft(&["check-config"])).await) {
        match value {
            toml::Value::Table(inner) => {
                settings.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => settings.push((key, value)),
        }
    }
    assert!(settings.len() > 40, "{settings:?}");
    for (key, value) in settings {
        let variable = key.to_uppercase().replace('.', "__");
        let documented =
            rows.get(&variable).unwrap_or_else(|| panic!("docs/configuration.md does not have WEFT_{variable}"));
        let written = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => continue,
        };
        let plain = |text: &str| if text == "0s" { "0".to_owned() } else { text.replace(['_', ','], "") };
        // The engine shown is the one that `auto` comes to.
        assert!(key == "engine" || plain(documented) == plain(&written), "{key}: {written}, but {documented}");
    }
}

#[tokio::test]
async fn durations_are_read_in_every_form() {
    for (written, shown) in [("45s", "45s"), ("500ms", "500ms"), ("30", "30s"), ("0.5", "500ms"), ("1m 30s", "1m 30s")]
    {
        let by_flag = table(&printed(weft(&["check-config", "--timeout", written])).await);
        assert_eq!(by_flag["timeout"].as_str(), Some(shown), "--timeout {written}");
        let mut command = weft(&["check-config"]);
        command.env("WEFT_TIMEOUT", written);
        let by_variable = table(&printed(command).await);
        assert_eq!(by_variable["timeout"].as_str(), Some(shown), "WEFT_TIMEOUT={written}");
    }
    for (number, shown) in [("timeout = 30", "30s"), ("timeout = 0.5", "500ms")] {
        let (_directory, path) = self::written(number);
        let mut command = weft(&["check-config"]);
        command.arg("--config").arg(path);
        assert_eq!(table(&printed(command).await)["timeout"].as_str(), Some(shown), "{number}");
    }
}

#[tokio::test]
async fn what_is_printed_reads_back_the_same() {
    for arguments in [
        &[][..],
        &["--timeout", "1m 30s 5ms", "--mount", "/x/y=cometd", "--mount", "/", "--listen", "[::1]:0"],
        &["--log-level", "info,weft::session=debug", "--log-format", "json"],
    ] {
        let first = printed(weft(&[&["check-config"], arguments].concat())).await;
        let (_directory, path) = written(&first);
        let mut command = weft(&["check-config"]);
        command.arg("--config").arg(&path);
        assert_eq!(printed(command).await, first, "{arguments:?}");
        let config: weft::Config = toml::from_str(&first).expect("the library reads it");
        assert_eq!(toml::to_string(&config).expect("it can be written"), first, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_redis_url_chooses_the_engine_and_keeps_its_password() {
    let mut by_variable = weft(&["check-config"]);
    by_variable.env("WEFT_REDIS__URL", "redis://me:secret@h:1/2");
    let by_flag = weft(&["check-config", "--redis-url", "redis://me:secret@h:1/2"]);
    for command in [by_variable, by_flag] {
        let text = printed(command).await;
        let shown = table(&text);
        assert_eq!(shown["engine"].as_str(), Some("redis"));
        assert_eq!(shown["redis"]["url"].as_str(), Some("redis://me:***@h:1/2"));
        assert!(!text.contains("secret"), "{text}");
    }
    let named = weft(&["check-config", "--redis-url", "redis://h", "--engine", "memory"]);
    assert_eq!(table(&printed(named).await)["engine"].as_str(), Some("memory"), "who names an engine gets it");
    assert_eq!(table(&printed(weft(&["check-config"])).await)["engine"].as_str(), Some("memory"));
}

#[tokio::test]
async fn variables_of_clients_are_no_settings() {
    let mut command = weft(&["check-config"]);
    command.envs([("WEFT_URL", "http://elsewhere/bayeux"), ("WEFT_TOKEN", "secret"), ("WEFT_TIMEOUT", "31s")]);
    let text = printed(command).await;
    assert!(text.contains("timeout = \"31s\""), "{text}");
}

/// Whoever reads what it prints may have read enough; what cannot be written is a failure.
#[tokio::test]
async fn an_output_may_end_early_but_not_fail() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = weft(&["check-config"]);
    command.stdout(writer);
    let output = ended(command).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));

    let mut command = weft(&["check-config"]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").expect("Linux has it"));
    let output = ended(command).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
}
