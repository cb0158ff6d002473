//! Clocks, medians and the lines of the table.

use std::fs::read_to_string;
use std::time::{Duration, Instant};

/// Below this, processor time is not told finely enough.
const TICKS_MANY: Duration = Duration::from_millis(40);

/// Operations per second.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Of this thread's processor time.
    pub cpu: f64,
    /// By the clock.
    pub wall: f64,
}

impl Rate {
    /// Times `work`, which does `count` operations.
    pub fn of(count: usize, work: impl FnOnce()) -> Self {
        let (start, used) = (Instant::now(), cpu_time());
        work();
        let wall = start.elapsed();
        // The system counts in ticks: what is shorter than many of them is told by the clock.
        let cpu = cpu_time().zip(used).map(|(now, then)| now - then).filter(|_| wall > TICKS_MANY);
        let per = |time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        Self { cpu: per(cpu.unwrap_or(wall)), wall: per(wall) }
    }

    pub fn median(rates: Vec<Self>) -> Self {
        Self {
            cpu: median(rates.iter().map(|rate| rate.cpu).collect()),
            wall: median(rates.iter().map(|rate| rate.wall).collect()),
        }
    }

    pub fn show(self) -> String {
        format!("{:.2} M/s ({:.2} by the clock)", self.cpu / 1e6, self.wall / 1e6)
    }

    /// What one operation takes of the processor.
    pub fn each(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.cpu)
    }
}

/// What this thread has had of a processor.
fn cpu_time() -> Option<Duration> {
    let text = read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes of this process in memory.
pub fn resident() -> u64 {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// One line of the table.
pub fn row(what: &str, figure: String, goal: &str, reached: bool) {
    let verdict = if goal.is_empty() {
        ""
    } else if reached {
        "reached"
    } else {
        "NOT reached"
    };
    println!("{what:<46} {figure:<52} {goal:<14} {verdict}");
}

pub fn machine() -> String {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, load average {}", load.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
