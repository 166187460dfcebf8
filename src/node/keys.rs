//! The names of the settings: whether what a file or the environment sets is one, and which one was meant. What reads the
//! layers names neither line nor variable, and of several mistakes any. Called by the layers, before and after they read.

use std::path::Path;

use serde_json::Value;
use toml::de::DeTable;

use super::config::{Config, ConfigError};

/// What `weft sub` and `weft pub` go by, and a node does not.
pub(super) const OF_CLIENTS: [&str; 2] = ["WEFT_URL", "WEFT_TOKEN"];

/// How like a setting a name must be to be taken for a slip of it, from 0 to 1.
const ALIKE: f64 = 0.85;

/// A file: its path, and what is in it.
pub(super) type File<'a> = (&'a Path, &'a str);

/// Whether each key of a file is a setting. What is no TOML passes: the layers say so.
///
/// # Errors
/// The first key that is no setting, with its line, and which one may be meant.
pub(super) fn check_file(file: File<'_>) -> Result<(), ConfigError> {
    let Ok(table) = DeTable::parse(file.1) else { return Ok(()) };
    let settings = Settings::of_config()?;
    let mut wrong = Vec::new();
    settings.look(&settings.tree, table.get_ref(), "", &mut wrong);
    match wrong.into_iter().min() {
        Some((at, problem)) => Err(ConfigError::Source(problem).at(place(file, Some(at)))),
        None => Ok(()),
    }
}

/// Whether every `WEFT_*` variable is a setting, and can be read.
///
/// # Errors
/// A variable that is no setting, and which one may be meant; or one whose value is not UTF-8, which no layer would
/// count.
pub(super) fn check_environment() -> Result<(), ConfigError> {
    let settings = Settings::of_config()?;
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let lower = name.to_ascii_lowercase();
        let Some(path) = lower.strip_prefix("weft_").filter(|_| !OF_CLIENTS.contains(&&*name)) else { continue };
        // A dot would be taken for the two underscores.
        if !path.contains('.') && settings.paths.contains(&path.replace("__", ".")) {
            if value.to_str().is_none() {
                return Err(ConfigError::Source(format!("environment variable `{name}` is not UTF-8")));
            }
            continue;
        }
        let hint = settings.variable_meant(path);
        return Err(ConfigError::Source(format!("environment variable `{name}` is not a setting: {hint}")));
    }
    Ok(())
}

/// The variable that sets this key.
pub(super) fn variable(key: &str) -> String {
    format!("WEFT_{}", key.replace('.', "__").to_uppercase())
}

/// The variable that sets a key, as it is written, if there is one: lower case counts too.
pub(super) fn variable_of(key: &str) -> Option<String> {
    let wanted = variable(key);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.into_iter().find(|name| name.eq_ignore_ascii_case(&wanted))
}

/// Where in a file a key stands, such as `limits.sessions` or `retention[1].length`: with its line. `None` if the file does not set it.
pub(super) fn place_of(file: File<'_>, key: &str) -> Option<String> {
    let table = DeTable::parse(file.1).ok()?;
    let mut parts = key.split(['.', '[', ']']).filter(|part| !part.is_empty());
    let top = table.get_ref();
    // A path in quotes is one.
    if let Some((whole, _)) = top.get_key_value(key) {
        return Some(place(file, Some(whole.span().start)));
    }
    let (found, value) = top.get_key_value(parts.next()?)?;
    let (mut at, mut value) = (found.span(), value.get_ref());
    for part in parts {
        if let Some(table) = value.as_table() {
            let (found, inside) = table.get_key_value(part)?;
            (at, value) = (found.span(), inside.get_ref());
        } else {
            let element = value.get(part.parse::<usize>().ok()?)?;
            (at, value) = (element.span(), element.get_ref());
        }
    }
    Some(place(file, Some(at.start)))
}

/// Where a file stops to be TOML, or has a number that is none.
pub(super) fn place_of_fault(file: File<'_>) -> String {
    let fault = toml::from_str::<toml::Table>(file.1).err();
    place(file, fault.and_then(|fault| fault.span()).map(|span| span.start))
}

fn place((path, text): File<'_>, at: Option<usize>) -> String {
    match at.and_then(|at| text.get(..at)) {
        Some(before) => format!("{}:{}", path.display(), 1 + before.matches('\n').count()),
        None => path.display().to_string(),
    }
}

struct Settings {
    /// As tables in tables, with the defaults.
    tree: Value,
    /// The path of each, such as `limits.sessions`.
    paths: Vec<String>,
}

impl Settings {
    fn of_config() -> Result<Self, ConfigError> {
        let tree = serde_json::to_value(Config::default()).map_err(|error| ConfigError::Source(error.to_string()))?;
        let mut paths = Vec::new();
        collect(&tree, "", &mut paths);
        Ok(Self { tree, paths })
    }

    /// Puts into `wrong` where each key stands that is no setting, and what is wrong.
    fn look(&self, known: &Value, table: &DeTable<'_>, inside: &str, wrong: &mut Vec<(usize, String)>) {
        for (key, value) in table {
            let path = join(inside, key.get_ref());
            let problem = match (known.get(key.get_ref().as_ref()), value.get_ref().as_table()) {
                (Some(known @ Value::Object(_)), Some(table)) => {
                    self.look(known, table, &path, wrong);
                    continue;
                }
                (Some(Value::Object(_)), None) => format!("`{path}` is a table: write `[{path}]` above its settings"),
                // Lists of values have some by default.
                (Some(Value::Array(list)), Some(_)) if list.is_empty() => {
                    format!("`{path}` is a list of tables: write `[[{path}]]` above each")
                }
                (Some(_), Some(_)) => format!("`{path}` is one setting, not a table: write `{path} = ...`"),
                (Some(_), None) => continue,
                // At the top, a path in quotes is read as one.
                (None, _) if inside.is_empty() && self.paths.contains(&path) => continue,
                (None, _) => {
                    let hint = self.meant(&path).map(|meant| format!("is it `{meant}` that is meant?"));
                    let hint = hint.unwrap_or_else(|| "`weft check-config` prints all that there are".into());
                    format!("`{path}` is not a setting: {hint}")
                }
            };
            wrong.push((key.span().start, problem));
        }
    }

    /// What to do about a variable that is no setting, without its prefix and in small letters.
    fn variable_meant(&self, name: &str) -> String {
        // As a Service in Kubernetes makes them: its own of `weft`, and of `weft-...`.
        let part = |wanted: &str| format!("_{name}_").contains(&format!("_{wanted}_"));
        if part("service_host") || part("service_port") || part("port") {
            return "is there a Service named weft, or weft-...? `enableServiceLinks: false` in the pod keeps its variables \
                    away"
                .to_owned();
        }
        // What lies in a table has two underscores.
        match self.meant(&name.replace("__", ".")) {
            Some(meant) => format!("is it {} that is meant?", variable(meant)),
            None => {
                "every variable that begins with WEFT_ must be one, such as WEFT_LISTEN or WEFT_LIMITS__SESSIONS".into()
            }
        }
    }

    /// The setting that this one, which is none, is a slip of: in another table, with another separator, or mistyped.
    fn meant(&self, path: &str) -> Option<&str> {
        let flat = |path: &str| path.replace('.', "_");
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let equal = |same: &dyn Fn(&str) -> bool| self.paths.iter().find(|known| same(known));
        let elsewhere =
            || equal(&|known| flat(known) == flat(path)).or_else(|| equal(&|known| last(known) == last(path)));
        let mistyped = || {
            let alike =
                |known: &String| strsim::jaro_winkler(known, path).max(strsim::jaro_winkler(&last(known), path));
            let best = self.paths.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
            best.filter(|best| alike(best) >= ALIKE && !self.tree[path].is_object())
        };
        elsewhere().or_else(mistyped).map(String::as_str)
    }
}

fn collect(known: &Value, inside: &str, paths: &mut Vec<String>) {
    for (key, value) in known.as_object().into_iter().flatten() {
        let path = join(inside, key);
        match value {
            Value::Object(_) => collect(value, &path, paths),
            _ => paths.push(path),
        }
    }
}

fn join(inside: &str, key: &str) -> String {
    if inside.is_empty() { key.to_owned() } else { format!("{inside}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let settings = Settings::of_config().expect("the defaults can be written");
        let cases = [
            ("liten", Some("listen")),
            ("redis_url", Some("redis.url")),
            ("body_bytes", Some("limits.body_bytes")),
            ("log.sessions", Some("limits.sessions")),
            ("limits.subscription", Some("limits.subscriptions")),
            ("limit.sessions", Some("limits.sessions")),
            ("loglevel", Some("log.level")),
            ("foo", None),
            ("limits", None),
            ("", None),
        ];
        for (written, meant) in cases {
            assert_eq!(settings.meant(written), meant, "{written}");
        }
    }

    #[test]
    fn variables_of_a_service_are_recognised() {
        let settings = Settings::of_config().expect("the defaults can be written");
        for name in ["port", "service_host", "service_port_http", "port_8000_tcp_addr", "redis_service_port"] {
            assert!(settings.variable_meant(name).contains("enableServiceLinks"), "{name}");
        }
        for (name, meant) in
            [("limits_sessions", "WEFT_LIMITS__SESSIONS"), ("limits.sessions", "WEFT_LIMITS__SESSIONS")]
        {
            assert!(settings.variable_meant(name).contains(meant), "{name}");
        }
        assert!(settings.variable_meant("support").contains("such as"));
    }

    #[test]
    fn a_place_has_its_line() {
        let text = "timeout = 5\n[[retention]]\nchannels = 1\n[[retention]]\nchannels = 2\n[limits]\nsessions = 3\n";
        let file = (Path::new("f"), text);
        let cases = [
            ("timeout", Some("f:1")),
            ("retention[1].channels", Some("f:5")),
            ("retention[1]", Some("f:4")),
            ("limits.sessions", Some("f:7")),
            ("retention[7]", None),
            ("limits.log", None),
            ("timeout.more", None),
            ("", None),
        ];
        for (key, place) in cases {
            assert_eq!(place_of(file, key).as_deref(), place, "{key}");
        }
    }
}
