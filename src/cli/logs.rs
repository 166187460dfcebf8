//! Logging: text on a terminal, JSON otherwise, always on standard error. The level can be changed while the process
//! runs, and what says the same again and again is cut short. Traces, where they are built in, hang on the same lines.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

#[cfg(feature = "otlp")]
use super::traces::Traces;
use crate::node::{LogFormat, LogSettings};
use crate::transport::{LogControl, LogHandle};

/// What `log.level` may be.
const LEVELS: &str = "`log.level` takes off, error, warn, info, debug, trace or directives";
/// The time over which lines of one kind are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The log of this process.
pub(super) struct Log {
    /// Turns it up and down.
    pub(super) handle: LogHandle,
    left_out: Arc<AtomicU64>,
    #[cfg(feature = "otlp")]
    traces: Option<Traces>,
}

/// Starts logging for the process. Needs the runtime's context.
///
/// # Errors
/// When the level is not a level, or the variables for traces cannot be used.
pub(super) fn start(settings: &LogSettings) -> anyhow::Result<Log> {
    let (filter, reload) = reload::Layer::new(EnvFilter::try_new(&settings.level).context(LEVELS)?);
    let terminal = std::io::stderr().is_terminal();
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let left_out = Arc::new(AtomicU64::new(0));
    let sampled = Sampled { most: settings.lines_a_second, counts: Mutex::default(), left_out: left_out.clone() };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let lines = if text { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let registry = tracing_subscriber::registry().with(lines.with_filter(sampled).with_filter(filter));
    #[cfg(feature = "otlp")]
    let traces = Traces::start()?;
    #[cfg(feature = "otlp")]
    let registry = registry.with(traces.as_ref().map(Traces::layer));
    registry.try_init()?;
    if wants_traces() && cfg!(not(feature = "otlp")) {
        tracing::warn!("traces are asked for, but this program was built without the feature `otlp`");
    }
    let level = Mutex::new(settings.level.clone());
    Ok(Log {
        handle: LogHandle(Arc::new(Level { reload, level })),
        left_out,
        #[cfg(feature = "otlp")]
        traces,
    })
}

impl Log {
    /// Says from time to time how many lines were left out. Runs for ever.
    pub(super) async fn report(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(10 * WINDOW).await;
            let count = self.left_out.swap(0, Ordering::Relaxed);
            if count > 0 {
                tracing::warn!(count, "log lines were left out: more of a kind in a second than `log.lines_a_second`");
            }
        }
    }

    /// Sends what is left to send. Blocks for a bounded time.
    pub(super) fn finish(&self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = &self.traces {
            traces.finish();
        }
    }
}

/// Whether the environment names a collector of traces, as it does for every OpenTelemetry program.
pub(super) fn wants_traces() -> bool {
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let disabled = || set("OTEL_SDK_DISABLED").is_some_and(|disabled| disabled.eq_ignore_ascii_case("true"));
    endpoints.into_iter().any(|name| set(name).is_some()) && !disabled()
}

/// A variable of the environment that has a value.
pub(super) fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

struct Level {
    reload: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
}

impl LogControl for Level {
    fn level(&self) -> String {
        self.level.lock().clone()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        LogSettings { level: level.to_owned(), ..LogSettings::default() }.check().map_err(|error| error.to_string())?;
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        self.reload.reload(filter).map_err(|error| error.to_string())?;
        level.clone_into(&mut self.level.lock());
        Ok(())
    }
}

/// Lets through so many lines of each kind in a second: a kind is a place in the program, of which there are few.
struct Sampled {
    /// 0 for all.
    most: u64,
    counts: Mutex<HashMap<Identifier, (Instant, u64)>>,
    left_out: Arc<AtomicU64>,
}

impl Sampled {
    fn passes(&self, kind: Identifier, now: Instant) -> bool {
        if self.most == 0 {
            return true;
        }
        let mut counts = self.counts.lock();
        let (since, count) = counts.entry(kind).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        let passes = *count <= self.most;
        self.left_out.fetch_add(u64::from(!passes), Ordering::Relaxed);
        passes
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Sampled {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.passes(event.metadata().callsite(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;

    use super::*;

    #[test]
    fn so_many_of_a_kind_in_a_second() {
        let left_out = Arc::new(AtomicU64::new(0));
        let sampled = Sampled { most: 3, counts: Mutex::default(), left_out: left_out.clone() };
        let kinds = [
            tracing::callsite!(name: "a", kind: tracing::metadata::Kind::EVENT, fields: one),
            tracing::callsite!(name: "b", kind: tracing::metadata::Kind::EVENT, fields: two),
        ];
        let now = Instant::now();
        let passed = |kind: usize, at| (0..5).filter(|_| sampled.passes(kinds[kind].metadata().callsite(), at)).count();
        assert_eq!((passed(0, now), passed(1, now)), (3, 3), "each kind for itself");
        assert_eq!(passed(0, now + WINDOW), 3, "and the next second anew");
        assert_eq!(left_out.load(Ordering::Relaxed), 6);
    }
}
