//! The report for people, and which of the aims it meets.

use crate::report::{Aim, Calls, Report};
use std::{collections::BTreeMap, fmt::Write as _};

/// MiB a minute: a leak of a KiB a token would be ten times as steep.
const SLOPE_MIB: f64 = 0.1;
const IDLE_CPU: f64 = 1.0;
/// The bare echo's time that three hops of ours may take, per one of its own.
const FACTOR: f64 = 1.8;
const FIRST_BYTE_US: f64 = 1000.0;
const IDLE_MIB: f64 = 72.0;
const READY_MS: f64 = 100.0;

pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = lines(report, &mut out);
    out
}

fn lines(report: &Report, out: &mut String) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(out, "\n{}; {}", report.what, report.simulated)?;
    writeln!(
        out,
        "{} x {}, {} MiB, Linux {}, load {} before, nice {}",
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.load_average,
        machine.nice
    )?;
    if report.quick {
        writeln!(out, "QUICK: counts are tiny, the figures mean little")?;
    }
    for (name, meaning) in &report.targets {
        writeln!(out, "  {name}: {meaning}")?;
    }
    calls(report, out)?;
    memory(report, out)?;
    chunks(report, out)?;
    readers(report, out)?;
    soak(report, out)?;
    for missing in &report.not_measured {
        writeln!(out, "\nNOT MEASURED: {missing}")?;
    }
    writeln!(out, "\nAims")?;
    for aim in &report.aims {
        let verdict = if aim.met { "met   " } else { "MISSED" };
        writeln!(out, "  {verdict} {}: {} (aim {})", aim.what, aim.found, aim.aim)?;
    }
    Ok(())
}

fn calls(report: &Report, out: &mut String) -> std::fmt::Result {
    let mut title = (String::new(), 0);
    for row in &report.calls {
        if title != (format!("{} {}", row.kind, row.load), row.clients) {
            title = (format!("{} {}", row.kind, row.load), row.clients);
            writeln!(
                out,
                "\n{}, {} load, {} clients (microseconds; added: over the provider alone)",
                row.kind, row.load, row.clients
            )?;
            writeln!(
                out,
                "  {:<20}{:>8}{:>9}{:>9}{:>9}{:>10}{:>10}{:>10}  CPU s/1000",
                "target", "p50", "p99", "added", "add p99", "1st added", "calls/s", "/CPU s"
            )?;
        }
        writeln!(
            out,
            "  {:<20}{:>8.0}{:>9.0}{:>9}{:>9}{:>10}{:>10.0}{:>10}  {}{}",
            row.target,
            row.all.p50,
            row.all.p99,
            optional(row.added.map(|added| added.p50)),
            optional(row.added.map(|added| added.p99)),
            optional(row.added_first.map(|added| added.p50)),
            row.per_second,
            optional(row.per_cpu_second),
            parts(&row.cpu_per_1000, 3),
            row.failure
                .as_ref()
                .map(|text| format!("  {} FAILED: {text}", row.failed))
                .unwrap_or_default(),
        )?;
    }
    Ok(())
}

fn memory(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nResident memory, MiB")?;
    for row in &report.memory {
        let apps = parts(&row.mib, 1);
        writeln!(out, "  {:<20}{:<12}{:>7.1}  {apps}", row.target, row.when, row.together)?;
    }
    writeln!(out, "\nExec to ready, ms, each app alone")?;
    for start in &report.starts {
        writeln!(
            out,
            "  {:<12} median {:>6.1} of {}, slowest {:>6.1}, first with an empty disk {:>6.1}; \
             idle {:.1} MiB",
            start.app, start.median, start.starts, start.slowest, start.first, start.idle_mib
        )?;
    }
    Ok(())
}

fn chunks(report: &Report, out: &mut String) -> std::fmt::Result {
    let mut streams = 0;
    for row in &report.chunks {
        if streams != row.streams {
            streams = row.streams;
            writeln!(
                out,
                "\nchunks of {streams} streams, from the provider's sending to the client \
                 (microseconds; added: over the provider alone)"
            )?;
            writeln!(
                out,
                "  {:<20}{:>8}{:>8}{:>9}{:>9}{:>10}{:>11}  CPU us/chunk",
                "target", "chunks", "p50", "p99", "added", "add p99", "1st added"
            )?;
        }
        writeln!(
            out,
            "  {:<20}{:>8}{:>8.0}{:>9.0}{:>9}{:>10}{:>11}  {}",
            row.target,
            row.chunks,
            row.delay.p50,
            row.delay.p99,
            optional(row.added.map(|added| added.p50)),
            optional(row.added.map(|added| added.p99)),
            optional(row.added_first.map(|added| added.p50)),
            parts(&row.cpu_us, 1),
        )?;
    }
    Ok(())
}

fn soak(report: &Report, out: &mut String) -> std::fmt::Result {
    let Some(soak) = &report.soak else { return Ok(()) };
    writeln!(
        out,
        "\n{} slow streams, a token every {} s each, held for {:.0} s: {} tokens, {} streams lost",
        soak.streams, soak.pace, soak.seconds, soak.tokens, soak.lost
    )?;
    for (what, values, digits) in [
        ("MiB at the start", &soak.start_mib, 1),
        ("MiB after 1 min", &soak.minute_mib, 1),
        ("MiB at the end", &soak.end_mib, 1),
        ("MiB a minute", &soak.slope_mib_per_minute, 3),
        ("CPU s/min idle", &soak.cpu_idle_before, 2),
        ("CPU s/min held", &soak.cpu_meanwhile, 2),
        ("CPU s/min after", &soak.cpu_idle_after, 2),
        ("alive before", &soak.gauges_before, 0),
        ("alive meanwhile", &soak.gauges_meanwhile, 0),
        ("alive after", &soak.gauges_after, 0),
    ] {
        writeln!(out, "  {what:<17}{}", parts(values, digits))?;
    }
    Ok(())
}

fn readers(report: &Report, out: &mut String) -> std::fmt::Result {
    for held in &report.readers {
        writeln!(
            out,
            "\n{} x {}, held for {:.0} s; {} ended early",
            held.streams, held.what, held.seconds, held.lost
        )?;
        writeln!(out, "  MiB before  {}", parts(&held.before_mib, 1))?;
        writeln!(out, "  MiB at most {}", parts(&held.most_mib, 1))?;
        writeln!(out, "  MiB after   {}", parts(&held.after_mib, 1))?;
        writeln!(
            out,
            "  other calls: p50 {:.0} us, p99 {:.0} us before; p50 {:.0} us, p99 {:.0} us \
             meanwhile; {} failed",
            held.others_before.p50,
            held.others_before.p99,
            held.others_meanwhile.p50,
            held.others_meanwhile.p99,
            held.others_failed
        )?;
    }
    Ok(())
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

fn parts(values: &BTreeMap<String, f64>, digits: usize) -> String {
    let part = |(name, value): (&String, &f64)| format!("{name} {value:.digits$}");
    values.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// What the design asks for, judged by this run alone.
pub(crate) fn aims(report: &Report) -> Vec<Aim> {
    let find = |target: &str, kind: &str, clients: usize| -> Option<&Calls> {
        let same = |row: &&Calls| row.target == target && row.kind == kind && row.load == "closed";
        report.calls.iter().filter(same).find(|row| row.clients == clients)
    };
    let added = |target: &str, kind| Some(find(target, kind, 1)?.added?.p50);
    let echo = |target| find(target, "echo", 1).map(|row| row.all.p50);
    let floor = echo("echo x3 threads").into_iter().chain(echo("echo x3 one thread"));
    let floor = floor.fold(f64::INFINITY, f64::min);
    let most = |what, unit, aim: f64, found: f64| Aim {
        what,
        aim: format!("at most {aim:.0} {unit}"),
        found: format!("{found:.0} {unit}"),
        met: found <= aim,
    };
    let mut all = Vec::new();
    if let (Some(found), true) = (added("skein full", "chat"), floor.is_finite()) {
        all.push(most("chat, 1 client, added p50, full", "us", floor * FACTOR, found));
        if let Some(peer) = added("tensorzero", "chat") {
            all.push(most("the same against TensorZero's one hop", "us", peer, found));
        }
    }
    let stream = find("skein full", "chat stream", 1).and_then(|row| row.added_first);
    all.extend(stream.map(|first| {
        most("first byte of a stream, added p50, full", "us", FIRST_BYTE_US, first.p50)
    }));
    let per_cpu = |target| find(target, "chat", 32).and_then(|row| row.per_cpu_second);
    if let (Some(found), Some(peer)) = (per_cpu("skein full"), per_cpu("tensorzero")) {
        all.push(Aim {
            what: "chat, 32 clients, calls per CPU-second over all our processes",
            aim: format!("above TensorZero's {peer:.0}"),
            found: format!("{found:.0}"),
            met: found > peer,
        });
    }
    if let Some(soak) = &report.soak {
        let steepest = soak.slope_mib_per_minute.values().copied().fold(0.0, f64::max);
        let idle = soak.cpu_idle_after.values().sum::<f64>();
        all.push(Aim {
            what: "slow streams: memory grows by, steepest app",
            aim: format!("at most {SLOPE_MIB} MiB a minute"),
            found: format!("{steepest:.3} MiB a minute"),
            met: steepest <= SLOPE_MIB,
        });
        all.push(Aim {
            what: "idle CPU after them, all apps",
            aim: format!("at most {IDLE_CPU} s a minute"),
            found: format!("{idle:.2} s a minute"),
            met: idle <= IDLE_CPU,
        });
        all.push(most("slow streams lost", "streams", 0.0, soak.lost as f64));
    }
    if !report.starts.is_empty() {
        let together = report.starts.iter().map(|start| start.idle_mib).sum();
        all.push(most("idle memory, four apps", "MiB", IDLE_MIB, together));
        let slowest = report.starts.iter().map(|start| start.median).fold(0.0, f64::max);
        all.push(most("exec to ready, the slowest app's median", "ms", READY_MS, slowest));
    }
    all
}
