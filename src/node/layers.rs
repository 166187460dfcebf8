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

/// Those that are read, above the defaults.
#[derive(Clone, Copy)]
struct Layers<'a> {
    /// Its path and text.
    file: Option<(&'a Path, &'a str)>,
    environment: bool,
    flags: Option<&'a Overrides>,
}

impl Config {
    /// Reads all layers: defaults, `file`, the `WEFT_*` environment, flags; then checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key, and the file, variable or flag.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = file.map(read).transpose()?;
        let file = file.zip(text.as_deref());
        file.map_or(Ok(()), keys::check_file)?;
        keys::check_environment()?;
        let layers = Layers { file, environment: true, flags: Some(overrides) };
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

    /// The flag of a key, if it was given: what contradicts another flag may be the default.
    fn flag(&self, key: &str) -> &'static str {
        if key == "mounts" && !self.mounts.is_empty() {
            return "--mount";
        }
        let given = |(of, _, value): &(&str, &str, &Option<String>)| *of == key && value.is_some();
        self.values().into_iter().find(given).map_or("the flags", |(_, flag, _)| flag)
    }
}

impl Layers<'_> {
    fn read(&self) -> Result<Config, ConfigError> {
        let source = |error: config::ConfigError| ConfigError::Source(error.to_string());
        let mut builder = config::Config::builder();
        if let Some((_, text)) = self.file {
            builder = builder.add_source(config::File::from_str(text, config::FileFormat::Toml));
        }
        if self.environment {
            let ours =
                |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
            let variables = std::env::vars_os().filter_map(ours).filter(|(name, _)| !OF_CLIENTS.contains(&&**name));
            let environment = config::Environment::with_prefix("WEFT").prefix_separator("_").separator("__");
            builder = builder.add_source(environment.try_parsing(true).source(Some(variables.collect())));
        }
        if let Some(flags) = self.flags {
            for (key, _, value) in flags.values() {
                builder = builder.set_override_option(key, value.clone()).map_err(source)?;
            }
            if !flags.mounts.is_empty() {
                builder = builder.set_override("mounts", flags.mounts.clone()).map_err(source)?;
            }
        }
        let config: Config = builder.build().map_err(source)?.try_deserialize().map_err(source)?;
        config.check()?;
        Ok(Config { engine: config.engine(), ..config })
    }

    /// Says where a mistake stands: in the lowest layer with which it is there.
    fn locate(&self, error: ConfigError) -> ConfigError {
        let without_flags = Self { flags: None, ..*self };
        let file_alone = Self { environment: false, ..without_flags };
        let in_file = self.file.and_then(|file| Some((file, file_alone.read().err()?)));
        if let Some((file, own)) = in_file.filter(|(_, own)| *own == error || self.stands(own)) {
            let place = keys::place_of(file, &key_of(&own));
            return own.at(place);
        }
        let key = setting_of(&error);
        let above = self.flags.filter(|_| without_flags.read().err().as_ref() != Some(&error));
        error.at(above.map_or_else(|| variable(&key), |flags| flags.flag(&key).to_owned()))
    }

    /// Whether a mistake of the file is one whatever the layers above say. Of several mistakes, another one may have been
    /// told each time.
    fn stands(&self, of_file: &ConfigError) -> bool {
        let key = setting_of(of_file);
        let by_flag = |flags: &Overrides| flags.values().iter().any(|(of, _, value)| *of == key && value.is_some());
        let above = std::env::var_os(keys::variable(&key)).is_some() || self.flags.is_some_and(by_flag);
        matches!(of_file, ConfigError::Source(_)) && !above
    }
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

/// The key that an error names, of a list with the element, such as `retention[1]`; empty if it names none.
fn key_of(error: &ConfigError) -> String {
    match error {
        ConfigError::Value { key, .. } => (*key).to_owned(),
        ConfigError::Source(text) => {
            text.split("for key `").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_default().to_owned()
        }
        ConfigError::At { problem, .. } => key_of(problem),
    }
}

/// The setting that an error is about; empty if it names none.
fn setting_of(error: &ConfigError) -> String {
    key_of(error).split('[').next().unwrap_or_default().to_owned()
}

/// The variable of a key, if it is set.
fn variable(key: &str) -> String {
    let name = keys::variable(key);
    if std::env::var_os(&name).is_some() { name } else { "the WEFT_ variables".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--listen` may contradict the default of `--internal-listen`.
    #[test]
    fn a_flag_is_named_only_if_it_was_given() {
        let flags = Overrides { listen: Some(String::new()), ..Overrides::default() };
        let named: Vec<_> = ["listen", "internal_listen", "mounts"].map(|key| flags.flag(key)).into();
        assert_eq!(named, ["--listen", "the flags", "the flags"]);
    }
}
