//! One-to-one over WebSocket, and long-polling with each request on another node: CPU time for each message delivered.

use anyhow::Result;

use crate::Bench;
use crate::bars::Bar::AtMost;
use crate::fan_out::WINDOW;
use crate::servers::{Cluster, Kind};

const PAIRS: u32 = 1000;
const NODES: usize = 3;
const SERVER_CPU: (&str, &str) = ("server.cpu_us_per_delivery", "us");
const REDIS_CPU: (&str, &str) = ("redis.cpu_us_per_delivery", "us");

/// A thousand channels, each with a publisher and a subscriber. With one message under way for each publisher every server
/// answers and delivers each by itself, and none is at its maximum yet: that comes with a few.
pub fn over_websocket(bench: &mut Bench) -> Result<()> {
    for (window, how, bars) in [
        (WINDOW, "at its maximum", (Some(AtMost(1.0 / 8.0)), Some(AtMost(1.0 / 4.0)))),
        (1, "one under way each", (None, None)),
    ] {
        let kinds = [Kind::WeftRedis, Kind::FayeRedis, Kind::SocketIoRedis, Kind::Faye, Kind::Floor, Kind::Weft];
        let load = format!("one-to-one --clients {PAIRS} --rate max --in-flight {window}");
        let document = bench.beside(&format!("pairs-{window}"), &load, &kinds)?;
        let what = format!("{PAIRS} pairs, {how}");
        let (faye, socket_io) = bars;
        for (peer, bar) in
            [(Kind::FayeRedis, faye), (Kind::SocketIoRedis, socket_io), (Kind::Faye, None), (Kind::Floor, None)]
        {
            bench.checks.ratio(("pairs", &what), &document, (Kind::WeftRedis, peer), SERVER_CPU, bar);
        }
        let redis = format!("{what}: Redis");
        bench.checks.ratio(("pairs", &redis), &document, (Kind::WeftRedis, Kind::FayeRedis), REDIS_CPU, None);
        for kind in kinds {
            let rate = document.median(kind, "publish_rate");
            bench.checks.figure("pairs", format!("{what}, {}", kind.name()), (rate, "/s"), None);
        }
    }
    Ok(())
}

/// One channel with a hundred polling subscribers, and a thousand pairs; three nodes, each request to a random one. The floor
/// is one process.
/// What was lost does not count as delivered: a server that loses does not look cheaper for it. faye-redis loses so much
/// at its maximum that hardly anything is left to compare with, so there is a rate at which it keeps up too.
pub fn by_long_polling(bench: &mut Bench) -> Result<()> {
    let bar = Some(AtMost(1.0 / 5.0));
    for (name, channels, clients, window, rate) in [
        ("polling-100-paced", 1, 100, WINDOW, Some(20)),
        ("polling-100", 1, 100, WINDOW, None),
        ("polling-pairs-paced", PAIRS, PAIRS, 1, Some(200)),
        ("polling-pairs-16", PAIRS, PAIRS, WINDOW, None),
        ("polling-pairs-1", PAIRS, PAIRS, 1, None),
    ] {
        let who = if channels == 1 { format!("1 -> {clients} polls") } else { format!("{PAIRS} polling pairs") };
        let (pace, how) = match rate {
            Some(rate) => (rate.to_string(), format!("{rate} a second")),
            None if window == 1 => ("max".to_owned(), "one under way each".to_owned()),
            None => ("max".to_owned(), "at its maximum".to_owned()),
        };
        let kinds = [Kind::WeftRedis, Kind::FayeRedis, Kind::Floor];
        let nodes = |kind| if kind == Kind::Floor { 1 } else { NODES };
        let [weft, faye, floor] = kinds.map(|kind| Cluster::start(&bench.programs, kind, nodes(kind)));
        let load = format!("polling --channels {channels} --clients {clients} --in-flight {window} --rate {pace}");
        let load = format!("{load} {}", bench.times());
        let document = bench.generator.run(name, &load, &[&weft?, &faye?, &floor?])?;
        let what = format!("{who}, {NODES} nodes, {how}");
        let [weft, faye, floor] = kinds;
        bench.checks.ratio(("polling", &what), &document, (weft, faye), SERVER_CPU, bar);
        bench.checks.ratio(("polling", &what), &document, (weft, floor), SERVER_CPU, None);
        bench.checks.ratio(("polling", &format!("{what}: Redis")), &document, (weft, faye), REDIS_CPU, None);
        let lost = |kind| document.rounds(kind, "lost").iter().sum::<f64>();
        bench.checks.figure("polling", format!("{what}, weft-redis: lost"), (lost(weft), ""), Some(AtMost(0.0)));
        bench.checks.figure("polling", format!("{what}, faye-redis: lost"), (lost(faye), ""), None);
    }
    Ok(())
}
