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
    pub(super) commit: Script,
    pub(super) create: Script,
    pub(super) end: Script,
    pub(super) heartbeat: Script,
    pub(super) meet: Script,
    pub(super) publish: Script,
    pub(super) read: Script,
    pub(super) replay: Script,
    pub(super) steps: Script,
    pub(super) subscribe: Script,
    pub(super) subscriptions: Script,
    pub(super) sweep: Script,
    pub(super) touch: Script,
    pub(super) unsubscribe: Script,
}

const CLOCK: &str = include_str!("scripts/clock.lua");
const SESSION: &str = include_str!("scripts/session.lua");
/// Where the clock can be moved.
const SKEW: &str = "--[[skew]]";

/// The steps that one call does several of: each a function of what would be its arguments.
fn steps() -> String {
    macro_rules! step {
        ($name:literal) => {
            concat!("steps.", $name, " = function(ARGV)\n", include_str!(concat!("scripts/", $name, ".lua")), "\nend\n")
        };
    }
    [
        "local steps = {}\n",
        // None of this changes within a call.
        "local function once(get) local value return function() value = value or get() return value end end\n",
        "now, clock, era = once(now), once(clock), once(era)\n",
        step!("attach"),
        step!("conclude"),
        step!("record"),
        step!("release"),
        step!("written"),
    ]
    .concat()
}

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
    pub(super) fn all(&self) -> [&Script; 15] {
        [
            &self.active,
            &self.commit,
            &self.create,
            &self.end,
            &self.heartbeat,
            &self.meet,
            &self.publish,
            &self.read,
            &self.replay,
            &self.steps,
            &self.subscribe,
            &self.subscriptions,
            &self.sweep,
            &self.touch,
            &self.unsubscribe,
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
            commit: script!("commit"),
            create: script!("create"),
            end: script!("end"),
            heartbeat: script!("heartbeat"),
            meet: script!("meet"),
            // Run the most, and knows nothing of sessions.
            publish: script("publish", &[CLOCK, include_str!("scripts/publish.lua")]),
            read: script!("read"),
            replay: script!("replay"),
            steps: script("steps", &[CLOCK, SESSION, &steps(), include_str!("scripts/steps.lua")]),
            subscribe: script!("subscribe"),
            subscriptions: script!("subscriptions"),
            sweep: script!("sweep"),
            touch: script!("touch"),
            unsubscribe: script!("unsubscribe"),
        }
    }
}
