//! Medians over rounds, ratios within rounds, and warnings.

use serde_json::{Map, Value};

use super::results::{Measured, Ratios, Round};

/// Above this share of the time, the generator's busiest thread may be what was measured.
const BUSY: f64 = 0.9;

/// The median; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A round made of the medians of all figures of these. Lists (the series) are left out; what is no figure is that of
/// the first round that has it.
pub(super) fn medians(rounds: &[Round]) -> Value {
    let all: Vec<Value> = rounds.iter().filter_map(|round| serde_json::to_value(round).ok()).collect();
    merged(&all.iter().collect::<Vec<_>>())
}

fn merged(values: &[&Value]) -> Value {
    let present: Vec<&Value> = values.iter().copied().filter(|value| !value.is_null()).collect();
    match present.first() {
        Some(Value::Object(first)) => {
            let mut object = Map::new();
            for key in first.keys().filter(|key| *key != "series") {
                let parts: Vec<&Value> = present.iter().filter_map(|value| value.get(key)).collect();
                object.insert(key.clone(), merged(&parts));
            }
            Value::Object(object)
        }
        Some(Value::Number(_)) => {
            median(present.iter().filter_map(|value| value.as_f64()).collect()).map_or(Value::Null, Value::from)
        }
        Some(other) => (*other).clone(),
        None => Value::Null,
    }
}

/// Compares a target with the first one, round by round.
pub(super) fn ratios(first: &Measured, other: &Measured) -> Ratios {
    let ratio = |figure: &dyn Fn(&Round) -> Option<f64>| {
        let pairs = first.rounds.iter().zip(&other.rounds);
        let each = pairs.filter_map(|(first, other)| Some(figure(other)? / figure(first)?));
        median(each.filter(|ratio| ratio.is_finite()).collect())
    };
    Ratios {
        target: other.name.clone(),
        to: first.name.clone(),
        server_cpu_per_delivery: ratio(&|round| round.server.as_ref()?.cpu_us_per_delivery),
        redis_cpu_per_delivery: ratio(&|round| round.redis.as_ref()?.cpu_us_per_delivery),
        latency_p99: ratio(&|round| Some(round.latency_us.as_ref()?.p99)),
        rate: ratio(&|round| round.delivery_rate),
        connect_cpu: ratio(&|round| round.connects.cpu_us_per_connect),
        connect_rate: ratio(&|round| Some(round.connects.per_second)),
        memory: ratio(&|round| round.server.as_ref()?.bytes_per_connection),
    }
}

/// What a reader must know before believing the figures.
pub(super) fn warnings(targets: &[Measured]) -> Vec<String> {
    let mut warnings = Vec::new();
    for target in targets {
        let most = |figure: &dyn Fn(&Round) -> f64| target.rounds.iter().map(figure).fold(0.0, f64::max);
        let name = &target.name;
        let busiest = most(&|round| round.generator.busiest_thread);
        if busiest > BUSY {
            warnings.push(format!(
                "{name}: the generator's busiest thread was at work {:.0} % of the time: the figures may be its own \
                 limit, not the server's; try --threads",
                busiest * 100.0
            ));
        }
        let idle = |round: &Round| {
            round.delivered > 0 && round.server.as_ref().is_some_and(|server| server.cpu_seconds == 0.0)
        };
        if target.rounds.iter().any(idle) {
            warnings.push(format!("{name}: the process used no CPU time while messages came: is it the server's?"));
        }
        let unsent = most(&|round| round.unsent as f64);
        if unsent > 0.0 {
            warnings.push(format!(
                "{name}: up to {unsent:.0} messages of a round could not be sent: the server did not read them"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn medians_of_leaves() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        let values = [
            json!({"a": 1, "b": {"c": 5.0}, "d": null, "series": [1], "t": "x"}),
            json!({"a": 3, "b": {"c": 7.0}, "d": 2, "series": [2], "t": "y"}),
            json!({"a": 9, "b": null, "d": null, "series": [], "t": null}),
        ];
        let merged = merged(&values.iter().collect::<Vec<_>>());
        assert_eq!(merged, json!({"a": 3.0, "b": {"c": 6.0}, "d": 2.0, "t": "x"}));
    }
}
