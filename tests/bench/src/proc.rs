//! What the kernel says about a process and about this machine.

use serde::Serialize;
use std::fs;

/// Ticks of `/proc/<pid>/stat`; fixed at 100 on every Linux that runs this.
const TICKS: f64 = 100.0;

/// Seconds of CPU that a process has used, all its threads, user and system.
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks: count from behind it.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks = |field: usize| {
        let value = rest.split_whitespace().nth(field);
        value.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    (ticks(11) + ticks(12)) / TICKS
}

/// Resident memory in MiB.
pub(crate) fn rss(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(kib).unwrap_or_default() / 1024.0
}

pub(crate) fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Where the figures come from.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Before the run; above about one, the figures are somebody else's too.
    pub(crate) load_average: String,
    /// Of this process and all it starts; below 0 it goes before others.
    pub(crate) nice: i32,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: String, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            let value = line.as_deref().and_then(|line| line.split_once(':'));
            value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory = after(text("/proc/meminfo"), "MemTotal");
        let kib = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        let stat = text("/proc/self/stat");
        let nice = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(16));
        Self {
            cpu: after(text("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: text("/proc/loadavg").trim().to_owned(),
            nice: nice.and_then(|nice| nice.parse().ok()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        assert!(rss(own) > 1.0 && threads(own) >= 1);
        let machine = Machine::read();
        assert!(machine.cores >= 1 && machine.memory_mib > 0, "{}", machine.cpu);
    }
}
