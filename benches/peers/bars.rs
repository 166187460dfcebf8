//! The bars: what was measured beside what it must be, and the table of it all.

use serde::Serialize;

use crate::document::{Document, median};
use crate::servers::Kind;

/// How many messages a server delivered each second of the measured time.
const DELIVERED: &str = "delivery_rate";

/// What a figure must not exceed, or not fall below.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure and its bar.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The measurement it belongs to.
    pub group: &'static str,
    pub what: String,
    /// Weft's own figure and the peer's, where the value is a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
    /// A ratio, or the figure itself.
    pub value: f64,
    /// Of the figure; empty for a ratio.
    pub unit: &'static str,
    /// None: for information.
    pub bar: Option<Bar>,
    /// None without a bar, or without a peer's figure to hold against it.
    pub met: Option<bool>,
}

#[derive(Debug, Serialize)]
pub struct Sides {
    pub weft: f64,
    pub peer: f64,
    pub unit: &'static str,
    /// The ratio of each round.
    pub ratios: Vec<f64>,
}

/// All that was checked.
#[derive(Default)]
pub struct Checks(pub Vec<Check>);

impl Checks {
    /// A figure of Weft against the same of a peer, in one run.
    pub fn ratio(
        &mut self,
        (group, what): (&'static str, &str),
        document: &Document,
        (weft, peer): (Kind, Kind),
        (figure, unit): (&str, &'static str),
        bar: Option<Bar>,
    ) {
        let ratios = document.ratios(weft, peer, figure);
        let value = median(ratios.clone());
        let (ours, theirs) = (document.median(weft, figure), document.median(peer, figure));
        let sides = Some(Sides { weft: ours, peer: theirs, unit, ratios });
        let what = format!("{what}, {} / {}", weft.name(), peer.name());
        // A peer that delivered nothing sets no bar in that round; one that was not measured, or whose figure is not there, is
        // a bar missed. Weft must have delivered all the same.
        let figures = document.rounds(peer, figure).into_iter().zip(document.rounds(peer, DELIVERED));
        let missing: Vec<_> = figures.filter(|(figure, _)| figure.is_nan()).collect();
        let silent = !missing.is_empty() && missing.iter().all(|(_, delivered)| *delivered == 0.0);
        let peerless = ours.is_finite() && silent;
        let met = bar.filter(|_| !peerless).map(|bar| bar.is_met(value));
        self.add(Check { group, what, sides, value, unit: "", bar, met });
    }

    /// A figure that counts by itself.
    pub fn figure(&mut self, group: &'static str, what: String, (value, unit): (f64, &'static str), bar: Option<Bar>) {
        let met = bar.map(|bar| bar.is_met(value));
        self.add(Check { group, what, sides: None, value, unit, bar, met });
    }

    /// Tells it at once: the table comes only at the end.
    fn add(&mut self, check: Check) {
        let missed = if check.met == Some(false) { " (missed)" } else { "" };
        eprintln!("  {}: {} {}{missed}", check.what, short(check.value), check.unit);
        self.0.push(check);
    }

    pub fn missed(&self) -> usize {
        self.0.iter().filter(|check| check.met == Some(false)).count()
    }

    /// How many bars had no peer to hold Weft against.
    pub fn peerless(&self) -> usize {
        self.0.iter().filter(|check| check.met.is_none() && check.bar.is_some()).count()
    }

    pub fn print(&self) {
        let width = self.0.iter().map(|check| check.what.chars().count()).max().unwrap_or(0);
        println!(
            "{:<10} {:<width$} {:>12} {:>12}     {:>12}  {:>10}",
            "measured", "what", "weft", "peer", "value", "bar"
        );
        for Check { group, what, sides, value, unit, bar, met } in &self.0 {
            let (weft, peer, of) = match sides {
                Some(Sides { weft, peer, unit, .. }) => (short(*weft), short(*peer), *unit),
                None => Default::default(),
            };
            let verdict = match met {
                Some(true) => "met",
                Some(false) => "missed",
                None if bar.is_some() => "no peer",
                None => "",
            };
            let bar = match bar {
                Some(Bar::AtMost(bar)) => format!("<= {}", short(*bar)),
                Some(Bar::AtLeast(bar)) => format!(">= {}", short(*bar)),
                None => String::new(),
            };
            let value = short(*value);
            println!(
                "{group:<10} {what:<width$} {weft:>12} {peer:>12} {of:<3} {value:>12} {unit:<5} {bar:>10}  {verdict}"
            );
        }
    }
}

impl Bar {
    /// NaN meets no bar.
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bar) => value <= bar,
            Self::AtLeast(bar) => value >= bar,
        }
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size < 0.1 => format!("{value:.4}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
