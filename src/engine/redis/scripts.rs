//! The Lua scripts: every change in Redis is one of them, and therefore atomic.

use std::sync::LazyLock;

/// A script as it is sent: what it shares with others, and its own part.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// For messages.
    pub(super) name: &'static str,
    pub(super) source: String,
    /// SHA-1 in hexadecimal: how Redis names it.
    pub(super) hash: String,
}

/// All scripts.
pub(super) struct Scripts {
    pub(super) active: Script,
    pub(super) attach: Script,
    pub(super) commit: Script,
    pub(super) conclude: Script,
    pub(super) create: Script,
    pub(super) end: Script,
    pub(super) heartbeat: Script,
    pub(super) meet: Script,
    pub(super) publish: Script,
    pub(super) read: Script,
    pub(super) record: Script,
    pub(super) release: Script,
    pub(super) replay: Script,
    pub(super) subscribe: Script,
    pub(super) subscriptions: Script,
    pub(super) sweep: Script,
    pub(super) touch: Script,
    pub(super) unsubscribe: Script,
    pub(super) written: Script,
}

const CLOCK: &str = include_str!("scripts/clock.lua");
const SESSION: &str = include_str!("scripts/session.lua");
/// Where the clock can be moved.
const SKEW: &str = "--[[skew]]";

impl Scripts {
    /// The scripts by Redis' clock.
    pub(super) fn real() -> &'static Self {
        static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts::with_skew(""));
        &SCRIPTS
    }

    /// The scripts by a clock that a key can move on: for tests.
    pub(super) fn time_travelling() -> &'static Self {
        static SCRIPTS: LazyLock<Scripts> =
            LazyLock::new(|| Scripts::with_skew("+ tonumber(redis.call('GET', root .. 'skew') or '0')"));
        &SCRIPTS
    }

    /// Each of them.
    pub(super) fn all(&self) -> [&Script; 19] {
        [
            &self.active,
            &self.attach,
            &self.commit,
            &self.conclude,
            &self.create,
            &self.end,
            &self.heartbeat,
            &self.meet,
            &self.publish,
            &self.read,
            &self.record,
            &self.release,
            &self.replay,
            &self.subscribe,
            &self.subscriptions,
            &self.sweep,
            &self.touch,
            &self.unsubscribe,
            &self.written,
        ]
    }

    fn with_skew(skew: &str) -> Self {
        let script = |name: &'static str, parts: &[&str]| {
            let source = parts.join("\n").replace(SKEW, skew);
            let hash = redis::Script::new(&source).get_hash().to_owned();
            Script { name, source, hash }
        };
        macro_rules! script {
            ($name:literal) => {
                script($name, &[CLOCK, SESSION, include_str!(concat!("scripts/", $name, ".lua"))])
            };
        }
        Self {
            active: script!("active"),
            attach: script!("attach"),
            commit: script!("commit"),
            conclude: script!("conclude"),
            create: script!("create"),
            end: script!("end"),
            heartbeat: script!("heartbeat"),
            meet: script!("meet"),
            // Run the most, and knows nothing of sessions.
            publish: script("publish", &[CLOCK, include_str!("scripts/publish.lua")]),
            read: script!("read"),
            record: script!("record"),
            release: script!("release"),
            replay: script!("replay"),
            subscribe: script!("subscribe"),
            subscriptions: script!("subscriptions"),
            sweep: script!("sweep"),
            touch: script!("touch"),
            unsubscribe: script!("unsubscribe"),
            written: script!("written"),
        }
    }
}
