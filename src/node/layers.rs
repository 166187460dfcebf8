//! The layers of the configuration: defaults < file (TOML) < `WEFT_*` environment < flags. Reads them, and says in which one
//! a mistake stands. Called by whoever starts a node from the command line.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::config::{Config, ConfigError};
use super::keys::{self, OF_CLIENTS};

/// What the command line says; `None` leaves a value to the environment, the file or the default.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--internal-listen`
    pub internal_listen: Option<String>,
    /// `--mount`
    pub mounts: Vec<String>,
    /// `--engine`
    pub engine: Option<String>,
    /// `--redis-url`
    pub redis_url: Option<String>,
    /// `--timeout`
    pub timeout: Option<String>,
    /// `--drain-timeout`
    pub drain_timeout: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// Those above the defaults; the environment is the process's.
struct Layers<'a> {
    file: Option<keys::File<'a>>,
    flags: &'a Overrides,
}

impl Config {
    /// Reads all layers: defaults, `file`, the `WEFT_*` environment, flags; then checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key, and the flag, variable, file or default that counts.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = file.map(read).transpose()?;
        let file = file.zip(text.as_deref());
        file.map_or(Ok(()), keys::check_file)?;
        keys::check_environment()?;
        let layers = Layers { file, flags: overrides };
        layers.read().map_err(|error| layers.locate(error))
    }
}

impl Overrides {
    /// Key, flag and value of each.
    fn values(&self) -> [(&'static str, &'static str, &Option<String>); 8] {
        [
            ("listen", "--listen", &self.listen),
            ("internal_listen", "--internal-listen", &self.internal_listen),
            ("engine", "--engine", &self.engine),
            ("redis.url", "--redis-url", &self.redis_url),
            ("timeout", "--timeout", &self.timeout),
            ("drain_timeout", "--drain-timeout", &self.drain_timeout),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ]
    }

    /// The flag of a key, if it was given.
    fn flag(&self, key: &str) -> Option<&'static str> {
        if key == "mounts" && !self.mounts.is_empty() {
            return Some("--mount");
        }
        let given = |(of, _, value): &(&str, &str, &Option<String>)| *of == key && value.is_some();
        self.values().into_iter().find(given).map(|(_, flag, _)| flag)
    }
}

impl Layers<'_> {
    fn read(&self) -> Result<Config, ConfigError> {
        let source = |error: config::ConfigError| ConfigError::Source(error.to_string());
        let mut builder = config::Config::builder();
        if let Some((_, text)) = self.file {
            builder = builder.add_source(config::File::from_str(text, config::FileFormat::Toml));
        }
        let ours = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let variables = std::env::vars_os().filter_map(ours).filter(|(name, _)| !OF_CLIENTS.contains(&&**name));
        let environment = config::Environment::with_prefix("WEFT").prefix_separator("_").separator("__");
        builder = builder.add_source(environment.try_parsing(true).source(Some(variables.collect())));
        for (key, _, value) in self.flags.values() {
            builder = builder.set_override_option(key, value.clone()).map_err(source)?;
        }
        if !self.flags.mounts.is_empty() {
            builder = builder.set_override("mounts", self.flags.mounts.clone()).map_err(source)?;
        }
        let config: Config = serde_path_to_error::deserialize(builder.build().map_err(source)?).map_err(misfit)?;
        config.check()?;
        Ok(Config { engine: config.engine(), ..config })
    }

    /// Says where a mistake stands: in the highest layer that sets the key, which is the one that counts.
    fn locate(&self, error: ConfigError) -> ConfigError {
        let place = match &error {
            ConfigError::Value { key, .. } => {
                // Of a list with the element, such as `retention[1].age`.
                let setting = key.split('[').next().unwrap_or_default();
                let flag = self.flags.flag(setting).map(str::to_owned);
                let in_file = || self.file.and_then(|file| keys::place_of(file, key));
                flag.or_else(|| keys::variable_of(setting)).or_else(in_file).unwrap_or_else(|| "the default".to_owned())
            }
            // No layer but the file has a syntax.
            _ => match self.file {
                Some(file) => keys::place_of_fault(file),
                None => return error,
            },
        };
        error.at(place)
    }
}

/// A value that is of another kind than its setting.
fn misfit(error: serde_path_to_error::Error<config::ConfigError>) -> ConfigError {
    let key = error.path().to_string();
    let error = error.into_inner();
    if let config::ConfigError::NotFound(missing) = &error {
        let name = missing.rsplit(['.', ']']).next().unwrap_or(missing);
        return ConfigError::value(&key, format!("`{name}` is missing"));
    }
    let text = error.to_string();
    // What follows is the key again.
    let problem = text.rsplit_once(" for key `").map_or(&*text, |(problem, _)| problem);
    ConfigError::value(&key, problem)
}

/// The text of a file.
fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::IsADirectory => "; a container engine makes one where the file to be mounted is missing",
            _ => "",
        };
        ConfigError::Source(format!("cannot read {} (`--config`): {error}{hint}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--listen` may contradict the default of `--internal-listen`.
    #[test]
    fn what_nobody_set_is_the_default() {
        let flags = Overrides { listen: Some("127.0.0.1:8001".to_owned()), ..Overrides::default() };
        let layers = Layers { file: None, flags: &flags };
        let located = |key| layers.locate(ConfigError::value(key, "wrong")).to_string();
        assert_eq!(located("listen"), "--listen: `listen`: wrong");
        assert_eq!(located("internal_listen"), "the default: `internal_listen`: wrong");
        assert_eq!(located("mounts"), "the default: `mounts`: wrong");
    }
}
