//! What the kernel knows about this process, under the names that Prometheus' own clients use.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge, Registry};

/// `/proc` counts CPU time in ticks of a hundredth of a second on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Fields of `/proc/self/stat` counted from the one after the command's closing parenthesis (see proc(5)).
const STAT_USER_TICKS: usize = 11;
const STAT_SYSTEM_TICKS: usize = 12;
const STAT_THREADS: usize = 17;

struct ProcessCollector {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
    threads: IntGauge,
}

/// Adds the process's metrics; on systems without `/proc` they stay away.
pub(super) fn register(registry: &Registry) {
    if !std::path::Path::new("/proc/self/stat").exists() {
        return;
    }
    let gauge = |name, help| IntGauge::new(name, help).expect("constant names");
    let collector = ProcessCollector {
        cpu_seconds: Counter::new("process_cpu_seconds_total", "User and system CPU time in seconds.")
            .expect("constant names"),
        resident_bytes: gauge("process_resident_memory_bytes", "Resident memory in bytes."),
        open_files: gauge("process_open_fds", "Open file descriptors."),
        threads: gauge("process_threads", "Threads of the operating system."),
    };
    registry.register(Box::new(collector)).expect("each name is registered once");
}

impl ProcessCollector {
    fn refresh(&self) {
        if let Some(stat) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse_stat) {
            // A counter can only be added to.
            self.cpu_seconds.inc_by((stat.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.threads.set(stat.threads);
        }
        if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(parse_resident) {
            self.resident_bytes.set(bytes);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        [&self.resident_bytes, &self.open_files, &self.threads]
            .into_iter()
            .flat_map(|gauge| gauge.desc())
            .chain(self.cpu_seconds.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        [&self.resident_bytes, &self.open_files, &self.threads]
            .into_iter()
            .flat_map(|gauge| gauge.collect())
            .chain(self.cpu_seconds.collect())
            .collect()
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: i64,
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The command's name may hold blanks and parentheses.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
    let ticks = number(STAT_USER_TICKS)? + number(STAT_SYSTEM_TICKS)?;
    Some(Stat { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, threads: number(STAT_THREADS)? })
}

fn parse_resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_understood() {
        let stat = "4242 (tri) aged) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 12345 1000000 200";
        assert_eq!(parse_stat(stat), Some(Stat { cpu_seconds: 2.0, threads: 7 }));
        assert_eq!(parse_stat("nothing"), None);
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048 * 1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_threads() {
        let registry = Registry::new();
        register(&registry);
        let value = |name: &str| {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == name).expect(name);
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 1.0);
    }
}
