//! What the load generator measured, and how its figures are compared: within each round, then the median.

use serde_json::Value;

use crate::servers::Kind;

/// Busy for more of the time than this, the generator measured itself.
const BUSY: f64 = 0.9;

/// The document of one run.
pub struct Document(Value);

impl Document {
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    /// A figure of each round of a target, such as `server.cpu_us_per_delivery`; NaN where it is absent.
    pub fn rounds(&self, kind: Kind, figure: &str) -> Vec<f64> {
        let targets = self.0["targets"].as_array().map_or(&[][..], Vec::as_slice);
        let target = targets.iter().find(|target| target["name"] == kind.name());
        let rounds = target.and_then(|target| target["rounds"].as_array()).map_or(&[][..], Vec::as_slice);
        rounds.iter().map(|round| read(round, figure)).collect()
    }

    /// The median over the rounds.
    pub fn median(&self, kind: Kind, figure: &str) -> f64 {
        median(self.rounds(kind, figure))
    }

    /// Ratios within the rounds: one server's figure to another's.
    pub fn ratios(&self, kind: Kind, to: Kind, figure: &str) -> Vec<f64> {
        let (ours, theirs) = (self.rounds(kind, figure), self.rounds(to, figure));
        ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// What a reader must know: who lost messages, and whether the generator was the wall.
    pub fn remarks(&self) -> String {
        let mut remarks = String::new();
        for target in self.0["targets"].as_array().into_iter().flatten() {
            let rounds = target["rounds"].as_array().map_or(&[][..], Vec::as_slice);
            let sum = |figure: &str| rounds.iter().map(|round| read(round, figure)).sum::<f64>();
            let name = target["name"].as_str().unwrap_or_default();
            for (figure, what) in [
                ("lost", "lost"),
                ("refused", "refused"),
                ("unanswered", "unanswered"),
                ("unsent", "not sent"),
                ("duplicate", "twice"),
                ("out_of_order", "out of order"),
                ("connection_failures", "connections failed"),
            ] {
                let count = sum(figure);
                if count > 0.0 {
                    remarks += &format!("; {name}: {count} {what}");
                }
            }
            if rounds.iter().any(|round| read(round, "generator.busiest_thread") > BUSY) {
                remarks += &format!("; {name}: the load generator was busy all the time");
            }
        }
        remarks
    }
}

fn read(round: &Value, figure: &str) -> f64 {
    let value = figure.split('.').fold(round, |value, key| &value[key]);
    value.as_f64().unwrap_or(f64::NAN)
}

/// The middle one; NaN if any is, or if there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
