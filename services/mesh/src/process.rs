//! What the kernel says this process uses, for the metrics page: the names that
//! every Prometheus dashboard knows.
//!
//! Invariant: read when somebody asks for the page, never in between; what
//! cannot be read is left out.

use std::fs;

/// Clock ticks a second in `/proc/<pid>/stat`: fixed in the kernel's interface.
const TICKS: f64 = 100.0;

/// Sets the gauges from `/proc/self` and the runtime.
pub fn measure() {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat")
        && let Some((cpu, threads)) = cpu_and_threads(&stat)
    {
        metrics::gauge!("process_cpu_seconds_total").set(cpu);
        metrics::gauge!("process_threads").set(threads);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status")
        && let Some(bytes) = resident(&status)
    {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(open.count() as f64);
    }
    // What is spawned and never ends shows here before it shows in memory.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let tasks = runtime.metrics().num_alive_tasks();
        metrics::gauge!("skein_runtime_tasks").set(tasks as f64);
    }
}

/// The name in brackets may hold spaces and brackets: fields count from the
/// last one.
fn cpu_and_threads(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(((number(11)? + number(12)?) / TICKS, number(17)?))
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_whatever_the_process_is_called() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 1 2";
        assert_eq!(cpu_and_threads(stat), Some((3.0, 7.0)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(cpu_and_threads("garbage"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_and_threads(&stat).unwrap().1 >= 1.0);
    }
}
