//! The report as one HTML page: no script, nothing fetched, light and dark, readable on a phone.

use std::fmt::Write;

use super::figures::{bytes, grouped, rows, significant, time};
use super::plan::{Rate, Transport};
use super::plot::{Bar, Curve, NARROW, Scale, WIDE, bars, colour, curves, escaped, round_step};
use super::results::{Measured, Moment, Report, several};

/// The page.
pub fn page(report: &Report) -> String {
    let title = format!("{}: {}", report.scenario, names(report));
    let mut body = format!("<header><h1>{}</h1><p>{}</p></header>", escaped(&title), escaped(&report.load_in_words()));
    for warning in &report.warnings {
        // Writing to a string cannot fail, here and below.
        let _ = write!(body, r#"<p class="warning">{}</p>"#, escaped(warning));
    }
    if report.interrupted {
        body += r#"<p class="warning">Ended before its time: what was measured until then.</p>"#;
    }
    body += &tiles(report);
    body += r#"<div class="plots">"#;
    body += &bar_plots(report);
    body += &latency_plot(report);
    body += &steps_plot(report);
    body += r#"</div><div class="plots narrow">"#;
    body += &time_plots(report);
    body += "</div>";
    body += &table(report);
    body += &facts(report);
    let style = include_str!("page/page.css");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>\n{style}</style></head><body><main>{body}</main></body></html>\n",
        escaped(&title)
    )
}

fn names(report: &Report) -> String {
    report.targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The median figure at this place of a target's rounds.
fn figure(target: &Measured, path: &str) -> Option<f64> {
    target.median.pointer(path)?.as_f64()
}

/// The most important figure of each target, large.
fn tiles(report: &Report) -> String {
    let mut html = r#"<div class="tiles">"#.to_owned();
    for (at, target) in report.targets.iter().enumerate() {
        let (big, of) = headline(target);
        let mut lines = Vec::new();
        if let Some(p99) = figure(target, "/latency_us/p99") {
            lines.push(format!("p99 {}", time(p99)));
        }
        if let Some(rate) = figure(target, "/delivery_rate") {
            lines.push(format!("{} delivered per second", grouped(rate)));
        }
        if let Some(back) = figure(target, "/connects/back_seconds") {
            lines.push(format!("all back after {} s", significant(back)));
        }
        let lost: u64 = target.rounds.iter().map(|round| round.lost + round.churn_lost).sum();
        let failed: u64 = target.rounds.iter().map(|round| round.connection_failures).sum();
        let mut faults = Vec::new();
        if lost > 0 {
            faults.push(format!("{} lost", grouped(lost as f64)));
        }
        if failed > 0 {
            faults.push(format!("{} connections failed", grouped(failed as f64)));
        }
        if faults.is_empty() && report.publishes() {
            lines.push("none lost".to_owned());
        }
        let _ = write!(
            html,
            r#"<div class="card tile" style="--c:{}"><div class="name">{}</div><div class="big">{big}</div><div class="sub">{of}</div><div class="sub">{}</div>"#,
            colour(at),
            escaped(&target.name),
            lines.join(" · ")
        );
        if !faults.is_empty() {
            let _ = write!(html, r#"<div class="sub bad">{}</div>"#, faults.join(" · "));
        }
        html += "</div>";
    }
    html + "</div>"
}

fn headline(target: &Measured) -> (String, &'static str) {
    let known = [
        ("/server/bytes_per_connection", "of server memory per connection", bytes as fn(f64) -> String),
        ("/server/cpu_us_per_delivery", "of server CPU per delivered message", micros),
        ("/latency_us/p99", "until 99 % were delivered", time),
        ("/connects/per_second", "connects per second", grouped),
    ];
    let found = known.into_iter().find_map(|(path, of, write)| Some((write(figure(target, path)?), of)));
    found.unwrap_or_else(|| ("-".to_owned(), "nothing was measured"))
}

fn micros(value: f64) -> String {
    format!("{} µs", significant(value))
}

/// A picture with bars: title, place of the figure, place of what is added to it, note, and how figures are written.
type BarPlot = (&'static str, &'static str, &'static str, &'static str, fn(f64) -> String);

fn bar_plots(report: &Report) -> String {
    let plots: [BarPlot; 4] = [
        (
            "CPU time per delivered message",
            "/server/cpu_us_per_delivery",
            "/redis/cpu_us_per_delivery",
            "User and kernel, all threads; lower is better.",
            micros,
        ),
        (
            "Memory per connection",
            "/server/bytes_per_connection",
            "",
            "Growth of the server's resident memory; lower is better.",
            bytes,
        ),
        (
            "CPU time per connect",
            "/connects/cpu_us_per_connect",
            "/connects/redis_cpu_us_per_connect",
            "From TCP to the first connect, user and kernel; lower is better.",
            micros,
        ),
        ("Connects per second", "/connects/per_second", "", "Higher is better.", grouped),
    ];
    let storm = matches!(report.scenario, "storm" | "idle");
    let mut html = String::new();
    for (title, first, second, note, write) in plots {
        if first.contains("connects") && !storm {
            continue;
        }
        let bar = |(series, target): (usize, &Measured)| {
            let (own, other) = (figure(target, first)?, figure(target, second).filter(|_| !second.is_empty()));
            let label = match other {
                Some(other) => format!("{} + {}", write(own), write(other)),
                None => write(own),
            };
            Some(Bar { name: target.name.clone(), series, parts: [own, other.unwrap_or(0.0)], label })
        };
        let all: Vec<_> = report.targets.iter().enumerate().filter_map(bar).collect();
        if all.is_empty() {
            continue;
        }
        let legend = if all.iter().any(|bar| bar.parts[1] > 0.0) {
            format!(
                r#"<div class="legend"><span><i style="--c:{0}"></i>server</span><span><i class="pale" style="--c:{0}"></i>Redis</span></div>"#,
                colour(0)
            )
        } else {
            String::new()
        };
        html += &card(title, note, &(legend + &bars(&all)));
    }
    html
}

fn card(title: &str, note: &str, inner: &str) -> String {
    format!(r#"<div class="card"><h2>{title}</h2><p class="note">{note}</p>{inner}</div>"#)
}

fn legend(report: &Report) -> String {
    if report.targets.len() < 2 {
        return String::new();
    }
    let mut html = r#"<div class="legend">"#.to_owned();
    for (at, target) in report.targets.iter().enumerate() {
        let _ = write!(html, r#"<span><i style="--c:{}"></i>{}</span>"#, colour(at), escaped(&target.name));
    }
    html + "</div>"
}

fn latency_plot(report: &Report) -> String {
    let places = [("p50", "/p50"), ("p90", "/p90"), ("p99", "/p99"), ("p99.9", "/p999"), ("max", "/max")];
    percentiles(
        report,
        "/latency_us",
        &places,
        "Latency",
        "From when a message was due until it was received, on a logarithmic axis; lower is better.",
    )
}

fn percentiles(report: &Report, at: &str, places: &[(&str, &str)], title: &str, note: &str) -> String {
    let curve = |(series, target): (usize, &Measured)| {
        let points: Vec<_> = places
            .iter()
            .enumerate()
            .filter_map(|(x, (_, path))| Some((x as f64 + 0.5, figure(target, &format!("{at}{path}"))?)))
            .collect();
        (!points.is_empty()).then(|| Curve { name: target.name.clone(), series, points })
    };
    let all: Vec<_> = report.targets.iter().enumerate().filter_map(curve).collect();
    if all.is_empty() {
        return String::new();
    }
    let marks: Vec<_> = places.iter().enumerate().map(|(x, (name, _))| (x as f64 + 0.5, (*name).to_owned())).collect();
    let plot = curves(&all, Scale::Logarithmic, places.len() as f64, &marks, WIDE, time);
    card(title, note, &(legend(report) + &plot))
}

/// The steps of a connect, where connecting was the subject.
fn steps_plot(report: &Report) -> String {
    if report.scenario != "storm" {
        return String::new();
    }
    let websocket = [
        ("TCP", "/tcp/p50"),
        ("upgrade", "/upgrade/p50"),
        ("handshake", "/handshake/p50"),
        ("subscribe", "/subscribe/p50"),
        ("connect", "/connect/p50"),
    ];
    let polling = report.settings.transport == Transport::LongPolling;
    let places = if polling { &websocket[2..] } else { &websocket[..] };
    percentiles(
        report,
        "/connects/steps_us",
        places,
        "Steps of a connect",
        "Median of each, on a logarithmic axis; lower is better.",
    )
}

/// A picture over time: title, note, figure of a second, axis, and how figures are written.
type TimePlot = (&'static str, &'static str, fn(&Moment) -> Option<f64>, Scale, fn(f64) -> String);

fn time_plots(report: &Report) -> String {
    let plots: [TimePlot; 3] = [
        ("Delivered per second", "", |moment| Some(moment.delivered as f64), Scale::Linear, short),
        (
            "p99 of each second",
            "On a logarithmic axis; lower is better.",
            |moment| moment.p99_us,
            Scale::Logarithmic,
            time,
        ),
        (
            "CPU of the server",
            "Percent of one core.",
            |moment| Some(moment.server_cpu_seconds? * 100.0),
            Scale::Linear,
            percent,
        ),
    ];
    let mut html = String::new();
    for (title, note, of, scale, write) in plots {
        if !report.publishes() && title != "CPU of the server" {
            continue;
        }
        let mut all = Vec::new();
        let mut to = 1.0_f64;
        for (series, target) in report.targets.iter().enumerate() {
            for (number, round) in target.rounds.iter().enumerate() {
                let points: Vec<_> =
                    round.series.iter().filter_map(|moment| Some((moment.at_seconds, of(moment)?))).collect();
                if let Some((last, _)) = points.last() {
                    to = to.max(*last);
                    all.push(Curve { name: format!("{}, round {}", target.name, number + 1), series, points });
                }
            }
        }
        // One point makes no curve.
        if !all.iter().any(|curve| curve.points.len() > 1) {
            continue;
        }
        let step = round_step(to / 5.0);
        let marks: Vec<_> =
            (0..=5).map(|at| f64::from(at) * step).filter(|at| *at <= to).map(|at| (at, seconds(at))).collect();
        html += &card(title, note, &(legend(report) + &curves(&all, scale, to, &marks, NARROW, write)));
    }
    html
}

fn seconds(value: f64) -> String {
    if value.fract().abs() < 0.05 || value >= 20.0 { format!("{value:.0} s") } else { format!("{value:.1} s") }
}

fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

/// A count in few characters.
fn short(value: f64) -> String {
    match value {
        ..1e4 => grouped(value),
        1e4..1e6 => format!("{} k", grouped(value / 1e3)),
        _ => format!("{:.1} M", value / 1e6),
    }
}

fn table(report: &Report) -> String {
    let rows = rows(report);
    let mut html = r#"<section class="card"><h2>Figures</h2><div class="scroll"><table>"#.to_owned();
    for (number, row) in rows.iter().enumerate() {
        html += "<tr>";
        let bad = matches!(row[0].trim(), "lost" | "lost by them" | "connections failed" | "failed" | "unanswered");
        for (at, cell) in row.iter().enumerate() {
            let ratio = at > 1 && at % 2 == 1;
            let class = match (ratio, bad && at > 0 && !matches!(cell.as_str(), "0" | "-" | "")) {
                (true, _) => r#" class="ratio""#,
                (_, true) => r#" class="bad""#,
                _ => "",
            };
            let kind = if number == 0 { "th" } else { "td" };
            let _ = write!(html, "<{kind}{class}>{}</{kind}>", escaped(cell));
        }
        html += "</tr>";
    }
    html + "</table></div></section>"
}

fn facts(report: &Report) -> String {
    let load = &report.settings;
    let machine = &report.machine;
    let transport = match load.transport {
        Transport::Websocket => "WebSocket",
        Transport::LongPolling => "long-polling",
    };
    let rate = match load.rate {
        Rate::PerSecond(rate) => format!("{rate} messages per second, each due at its time (open loop)"),
        Rate::Max => format!("max, {} messages in flight for each publisher", load.in_flight),
    };
    let mut facts = vec![
        ("Date", report.date.clone()),
        (
            "Machine",
            format!(
                "{} cores, {}, {} of memory, {}",
                machine.cpus,
                machine.model,
                bytes(machine.memory_bytes as f64),
                machine.kernel
            ),
        ),
        ("Program", format!("weft {}", report.weft)),
        ("Clients", format!("{} by {transport}, {} connections", grouped(f64::from(load.clients)), load.connections())),
    ];
    if report.publishes() {
        facts.push((
            "Load",
            format!("{}, {}", several(load.publishers, "publisher"), several(load.channels, "channel")),
        ));
        facts.push(("Rate", rate));
        facts.push(("Message", format!("{} bytes of data, {} in a frame or request", load.size, load.batch)));
        facts.push((
            "Times",
            format!("warm-up {:?}, measured {:?}, drain up to {:?}", load.warm_up, load.duration, load.drain),
        ));
    }
    facts.push(("Generator", format!("{}, seed {}", several(load.threads, "thread"), report.seed)));
    let mut html = r#"<section class="card"><h2>How it was measured</h2><dl class="facts">"#.to_owned();
    for (name, fact) in facts {
        let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(&fact));
    }
    for target in &report.targets {
        let urls = addresses(&target.urls.join(", "));
        let _ = write!(html, "<dt>{}</dt><dd>{urls}</dd>", escaped(&target.name));
    }
    let _ = write!(html, "<dt>Command</dt><dd><code>{}</code></dd></dl></section>", addresses(&report.command));
    html
}

/// Text with addresses that may be broken, and that nothing takes for something to be fetched.
fn addresses(text: &str) -> String {
    escaped(text).replace("://", ":<wbr>//")
}

#[cfg(test)]
mod tests {
    use super::super::results::Times;

    #[test]
    fn places_are_names_of_times() {
        let times = Times { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 5.0, mean: 1.5, count: 9 };
        let value = serde_json::to_value(times).unwrap();
        for path in ["/p50", "/p90", "/p99", "/p999", "/max"] {
            assert!(value.pointer(path).is_some_and(serde_json::Value::is_f64), "{path}");
        }
    }
}
