//! Figures as text for people. Makes strings; the command prints them.

use std::fmt::Write as _;

use super::cluster::Cluster;
use super::figures::{Figures, GroupFigures, Spread};
use crate::show::{age, bytes, plain};

/// Storage paths that are listed one by one; the rest is in the JSON.
const PATHS_MAX: usize = 12;

/// The whole report.
pub fn table(cluster: &Cluster, figures: &Figures) -> String {
    let mut out = String::new();
    head(&mut out, cluster, figures);
    bottleneck(&mut out, figures);
    tasks(&mut out, figures);
    machines(&mut out, figures);
    paths(&mut out, figures);
    for note in &figures.notes {
        let _ = writeln!(out, "Note: {note}.");
    }
    out
}

/// One line for a chart.
pub fn summary(figures: &Figures) -> String {
    format!(
        "{:.1} sectors a day, ceiling {:.1}; a sector takes {} at the median; bottleneck: {}",
        figures.sectors.per_day,
        figures.sectors.ceiling_per_day,
        age(figures.sectors.life.p50_ms),
        figures.bottleneck.reason
    )
}

fn head(out: &mut String, cluster: &Cluster, figures: &Figures) {
    let count: u64 = cluster.machines.iter().map(|group| group.count).sum();
    let sectors = &figures.sectors;
    let _ = writeln!(out, "{}", plain(&figures.title));
    let _ = writeln!(
        out,
        "{} sectors, {count} machine{}, {}, the first {} not counted; scheduler {}, seed {}\n",
        cluster.sector_size,
        if count == 1 { "" } else { "s" },
        long(figures.horizon_ms),
        long(figures.warm_up_ms),
        figures.scheduler,
        figures.seed
    );
    let _ = writeln!(
        out,
        "Sectors     {:.1} a day; no schedule of these machines could make more than {:.1}",
        sectors.per_day, sectors.ceiling_per_day
    );
    let mut ends = format!("{} came, {} finished", sectors.arrived, sectors.finished);
    if sectors.under_way > 0 {
        let _ = write!(ends, ", {} under way at the end", sectors.under_way);
    }
    if sectors.held_back > 0 {
        let _ = write!(ends, ", {} not begun", sectors.held_back);
    }
    let _ = writeln!(out, "            {ends}");
    if figures.counted_to_ms < figures.horizon_ms {
        let _ = writeln!(
            out,
            "            all were finished after {}; nothing later is counted",
            age(figures.counted_to_ms)
        );
    }
    let _ = writeln!(out, "            a sector takes {}", spread(&sectors.life));
}

fn bottleneck(out: &mut String, figures: &Figures) {
    let found = &figures.bottleneck;
    let _ = writeln!(out, "Bottleneck  {}", found.reason);
    if let Some(remark) = &found.remark {
        let _ = writeln!(out, "            {remark}");
    }
    for change in &found.changes {
        let gain = change.ceiling_per_day - figures.sectors.ceiling_per_day;
        let _ =
            write!(out, "            {}: ceiling {:.1} (+{gain:.1})", change.change, change.ceiling_per_day);
        if let Some(simulated) = change.simulated_per_day {
            let _ = write!(out, ", simulated {simulated:.1} ({:+.1})", simulated - figures.sectors.per_day);
        }
        let _ = writeln!(out);
    }
}

fn tasks(out: &mut String, figures: &Figures) {
    let _ = writeln!(
        out,
        "\nTask  Per day     Runs  Fetches      Running  Waits: mean      p50      p99  At the end"
    );
    for task in &figures.tasks {
        let slots = task.slots.map_or(String::new(), |slots| format!("/{slots}"));
        let running = format!("{:.1}{slots}", task.running_mean);
        let _ = writeln!(
            out,
            "{:<6}{:>7.1} {:>8} {:>8} {running:>12}  {:>11} {:>8} {:>8}  {:>10}",
            task.task,
            task.per_day,
            age(task.running_mean_ms),
            age(task.fetching_mean_ms),
            age(task.waiting.mean_ms),
            age(task.waiting.p50_ms),
            age(task.waiting.p99_ms),
            task.waiting_at_end
        );
    }
    let _ = writeln!(out, "Waits: from its submission until it runs, fetching included.");
}

fn machines(out: &mut String, figures: &Figures) {
    let _ = writeln!(out, "\nMachines              CPU    RAM    GPU  Fetching  Least and most used");
    for group in &figures.groups {
        let name =
            if group.count > 1 { format!("{} ×{}", group.group, group.count) } else { group.group.clone() };
        let gpu = group.gpu.map_or("-".to_owned(), percent);
        let least_and_most = if group.count > 1 { range(group) } else { String::new() };
        let line = format!(
            "{name:<18}{:>7}{:>7}{gpu:>7}{:>10}  {least_and_most}",
            percent(group.cpu),
            percent(group.memory),
            percent(group.fetching)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn range(group: &GroupFigures) -> String {
    let [least, most] = group.least_and_most;
    format!("{} and {}", percent(least), percent(most))
}

fn paths(out: &mut String, figures: &Figures) {
    let _ = writeln!(out, "\nStorage paths               Size       Peak");
    // The fullest first: those are the ones that somebody must look at.
    let mut sorted: Vec<_> = figures.paths.iter().collect();
    let fullness =
        |size: u64, peak: u64| (u128::from(peak) * 1_000_000).checked_div(size.into()).unwrap_or(0);
    sorted.sort_by_key(|path| std::cmp::Reverse(fullness(path.size_bytes, path.peak_bytes)));
    for path in sorted.iter().take(PATHS_MAX) {
        let share = path.peak_bytes as f64 / path.size_bytes.max(1) as f64;
        let _ = writeln!(
            out,
            "{:<22}{:>10} {:>10}  {}",
            path.path,
            bytes(path.size_bytes),
            bytes(path.peak_bytes),
            percent(share)
        );
    }
    if sorted.len() > PATHS_MAX {
        let _ = writeln!(out, "and {} less full ones", sorted.len() - PATHS_MAX);
    }
    let _ = writeln!(out, "\nFetched: {} a day", bytes(figures.moved_bytes_per_day));
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn spread(spread: &Spread) -> String {
    format!("{} on average, {} at p99", age(spread.mean_ms), age(spread.p99_ms))
}

/// Days where they are whole.
fn long(ms: u64) -> String {
    const DAY: u64 = 86_400_000;
    match ms {
        DAY => "1 day".to_owned(),
        ms if ms > 0 && ms.is_multiple_of(DAY) => format!("{} days", ms / DAY),
        ms => age(ms),
    }
}
