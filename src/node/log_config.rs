//! The configuration of the log: the table `log`.

use serde::Deserialize;

use super::config::ConfigError;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,weft::session=debug`.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
    /// Lines of one kind in a second; more are left out, and counted in a line of their own. 0 for all.
    pub lines_a_second: u64,
}

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto, lines_a_second: 100 }
    }
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("unknown log format `{name}`: use `auto`, `text` or `json`")),
        }
    }
}

impl LogSettings {
    /// Whether the level is made of levels and directives. A bare word that is no level would be taken for the name of
    /// a module, and silence everything else.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        // Nothing at all would parse as a level, too.
        let known = |level: &str| !level.is_empty() && level.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let directive = |text: &str| match text.rsplit_once('=') {
            Some((target, level)) => !target.trim().is_empty() && known(level.trim()),
            None => known(text.trim()),
        };
        if self.level.split(',').all(directive) {
            return Ok(());
        }
        let allowed = "must be off, error, warn, info, debug or trace, or directives such as info,weft::session=debug";
        Err(ConfigError::value("log.level", format!("{allowed}, not `{}`", self.level)))
    }
}
