//! Figures of the process, by the names that every Prometheus client gives them. Read from `/proc/self` when they are asked
//! for. Part of `Metrics`.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Fields of `/proc/self/stat` behind the program's name, from 0.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// Reads the figures at each scrape.
#[derive(Debug)]
pub(super) struct Process;

/// What could be read: a figure that could not is left out.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    virtual_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    files_max: Option<u64>,
}

impl Figures {
    fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The program's name may hold blanks and brackets; behind its last bracket there are numbers alone.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let seconds = |ticks: u64| seconds(ticks, rustix::param::clock_ticks_per_second());
        let files = fs::read_dir("/proc/self/fd").map(Iterator::count);
        Self {
            cpu_seconds: field(USER_TICKS)
                .zip(field(SYSTEM_TICKS))
                .map(|(user, own)| seconds(user + own)),
            start_seconds: field(START_TICKS)
                .zip(boot_seconds())
                .map(|(at, boot)| boot + seconds(at)),
            virtual_bytes: field(VIRTUAL_BYTES),
            resident_bytes: field(RESIDENT_PAGES).map(|pages| pages * rustix::param::page_size() as u64),
            // The one that reads the directory is gone again.
            open_files: files.ok().map(|count| count.saturating_sub(1) as u64),
            files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

fn seconds(ticks: u64, ticks_per_second: u64) -> f64 {
    let ms = ticks.saturating_mul(1_000) / ticks_per_second.max(1);
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// When the machine started, in seconds since the Unix epoch.
fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let read = Figures::read();
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        let whole =
            |value: Option<u64>| value.and_then(|value| Some(f64::from(u32::try_from(value >> 10).ok()?) * 1_024.0));
        let count = |value: Option<u64>| value.map(|value| f64::from(u32::try_from(value).unwrap_or(u32::MAX)));
        gauge(
            "process_start_time_seconds",
            "Start of the process since the Unix epoch.",
            read.start_seconds,
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory.",
            whole(read.virtual_bytes),
        )?;
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            whole(read.resident_bytes),
        )?;
        gauge("process_open_fds", "Open files.", count(read.open_files))?;
        gauge("process_max_fds", "Most open files.", count(read.files_max))?;
        if let Some(cpu) = read.cpu_seconds {
            let counter = ConstCounter::new(cpu);
            let described = encoder.encode_descriptor(
                "process_cpu_seconds",
                "Processor time used.",
                None,
                counter.metric_type(),
            );
            counter.encode(described?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let figures = Figures::read();
        assert!(figures.resident_bytes > Some(1 << 20), "{figures:?}");
        assert!(figures.virtual_bytes >= figures.resident_bytes, "{figures:?}");
        assert!(
            figures.open_files >= Some(3) && figures.open_files <= figures.files_max,
            "{figures:?}"
        );
        // 2020: the machine's clock may be wrong, but not by that much.
        assert!(figures.start_seconds > Some(1_577_836_800.0), "{figures:?}");
        assert!(figures.cpu_seconds >= Some(0.0), "{figures:?}");
    }

    #[test]
    fn an_open_file_counts() {
        let held: Vec<_> = (0..100)
            .map(|_| fs::File::open("/proc/self/stat").expect("it is there"))
            .collect();
        assert!(Figures::read().open_files >= Some(held.len() as u64));
    }
}
