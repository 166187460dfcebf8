//! Mounts: the paths at which Bayeux is spoken, each in its dialect.

use std::fmt;
use std::str::FromStr;

use crate::bayeux::Dialect;

/// A path and the dialect spoken below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Begins with a slash and does not end with one; empty for the root.
    path: String,
    dialect: Dialect,
}

/// Why a text is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The path is not usable.
    #[error("mount `{0}` must be a path that begins with `/`, without `?`, `#` or spaces")]
    Path(String),
    /// The dialect does not exist.
    #[error("mount `{mount}`: {reason}")]
    Dialect {
        /// The whole text.
        mount: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Mount {
    /// A mount at `path`.
    ///
    /// # Errors
    /// [`MountError::Path`] when `path` is not the path of a URL.
    pub fn new(path: &str, dialect: Dialect) -> Result<Self, MountError> {
        let usable =
            path.starts_with('/') && !path.contains(['?', '#']) && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !usable {
            return Err(MountError::Path(path.to_owned()));
        }
        Ok(Self { path: path.trim_end_matches('/').to_owned(), dialect })
    }

    /// The path, `/` for the root.
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// The dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What follows the mount in `path`, if it belongs to the mount: nothing, sub-paths of any depth, or a file
    /// extension (`/bayeux.js`). Compared undecoded and with its case (wire contract, 1.1).
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path.as_str())?;
        let extension =
            rest.strip_prefix('.').is_some_and(|extension| !extension.is_empty() && !extension.contains('.'));
        (rest.is_empty() || rest.starts_with('/') || extension).then_some(rest)
    }
}

impl FromStr for Mount {
    type Err = MountError;

    /// `PATH` or `PATH=DIALECT`.
    fn from_str(text: &str) -> Result<Self, MountError> {
        let (path, dialect) = text.split_once('=').unwrap_or((text, "faye"));
        let dialect = dialect.parse().map_err(|reason| MountError::Dialect { mount: text.to_owned(), reason })?;
        Self::new(path, dialect)
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path(), self.dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_mount() {
        let mount: Mount = "/bayeux".parse().expect("valid");
        let table = [
            ("/bayeux", Some("")),
            ("/bayeux/", Some("/")),
            ("/bayeux/anything/deep", Some("/anything/deep")),
            ("/bayeux//x", Some("//x")),
            ("/bayeux.js", Some(".js")),
            ("/bayeux/x.json", Some("/x.json")),
            ("/bayeuxfoo", None),
            ("/BAYEUX", None),
            ("/b%61yeux", None),
            ("/bayeux.", None),
            ("/bayeux.min.js", None),
            ("/", None),
        ];
        for (path, rest) in table {
            assert_eq!(mount.rest(path), rest, "{path}");
        }
        assert_eq!(Mount::new("/", Dialect::Faye).expect("valid").rest("/any/thing"), Some("/any/thing"));
    }

    #[test]
    fn texts() {
        assert_eq!("/c=cometd".parse::<Mount>().map(|mount| mount.to_string()), Ok("/c=cometd".to_owned()));
        assert_eq!("/f/".parse::<Mount>().map(|mount| mount.path().to_owned()), Ok("/f".to_owned()));
        assert!(matches!("bayeux".parse::<Mount>(), Err(MountError::Path(_))));
        assert!(matches!("/x=java".parse::<Mount>(), Err(MountError::Dialect { .. })));
    }
}
