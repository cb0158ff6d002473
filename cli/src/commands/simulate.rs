//! `simulate`: reads a cluster file, runs it, prints the figures and draws the chart.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::NamedTempFile;

use crate::args::{SchedulerKind, SimulateArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{age, print_json, raw, talk};
use crate::simulate::bottleneck::what_ifs;
use crate::simulate::ceiling::{Ceiling, ceiling};
use crate::simulate::cluster::Cluster;
use crate::simulate::figures::{Figures, figures};
use crate::simulate::gantt::{self, Window};
use crate::simulate::run::{impossible, run};
use crate::simulate::timeline::Timeline;
use crate::simulate::{file, span, table};

/// A cluster file larger than this is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How much a chart shows where nothing else is asked for.
const CHART_MS: u64 = 2 * 86_400_000;

/// `simulate`.
pub fn simulate(args: &SimulateArgs) -> Outcome {
    let cluster = read(&args.cluster)?;
    let ceiling = ceiling(&cluster)
        .ok_or_else(|| Failure::new(Code::Setting, "nothing in this cluster limits it; is it empty?"))?;
    let chart = args.gantt.as_deref().map(|path| Chart::prepare(path, args, &cluster)).transpose()?;
    let (timeline, mut found) = simulated(&cluster, &ceiling, args.scheduler, &cluster.title)?;
    if args.what_if {
        for (what, change) in what_ifs(&cluster, &ceiling).into_iter().zip(&mut found.bottleneck.changes) {
            let (_, changed) = simulated(&what.cluster, &what.ceiling, args.scheduler, &what.change)?;
            change.simulated_per_day = Some(changed.sectors.per_day);
        }
    }
    if let Some(chart) = chart {
        chart.draw(&cluster, &timeline, &table::summary(&found))?;
    }
    if args.json { print_json(&found) } else { raw(&table::table(&cluster, &found)) }
}

fn read(path: &Path) -> Result<Cluster, Failure> {
    let name = path.display().to_string();
    let refused = |error: std::io::Error| Failure::new(Code::Setting, format!("{name}: {error}"));
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(refused)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(Code::Setting, format!("{name}: is larger than 1 MiB, no cluster file is")));
    }
    let cluster = file::parse(&name, &text).map_err(|error| Failure::from_error(Code::Setting, &error))?;
    match impossible(&cluster) {
        None => Ok(cluster),
        Some((task, why)) => {
            Err(Failure::new(Code::Setting, format!("{name}: no machine could ever run {task} ({why})"))
                .advise(format!("give a machine that offers {task} what it needs, or change tasks.{task}")))
        }
    }
}

/// Runs a cluster with a bar on a terminal.
fn simulated(
    cluster: &Cluster,
    ceiling: &Ceiling,
    scheduler: SchedulerKind,
    title: &str,
) -> Result<(Timeline, Figures), Failure> {
    let bar = ProgressBar::new(cluster.horizon.get());
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:40}] {percent} % {msg} eta {eta}") {
        bar.set_style(style.progress_chars("##-"));
    }
    bar.set_prefix(title.chars().take(40).collect::<String>());
    let timeline = run(cluster, scheduler, |at| {
        bar.set_position(at);
        bar.set_message(age(at));
    });
    bar.finish_and_clear();
    let timeline = timeline.map_err(|broken| {
        Failure::new(Code::Failed, format!("the simulation broke a rule of its own: {broken}"))
    })?;
    let found = figures(cluster, scheduler.name(), &timeline, ceiling);
    Ok((timeline, found))
}

/// A chart that will be written: its place was tried before anything was simulated.
struct Chart {
    path: PathBuf,
    file: NamedTempFile,
    window: Window,
}

impl Chart {
    fn prepare(path: &Path, args: &SimulateArgs, cluster: &Cluster) -> Result<Self, Failure> {
        let horizon = cluster.horizon.get();
        let instant = |flag: &str, text: &Option<String>, other: u64| match text {
            None => Ok(other),
            Some(text) => span(text).map(|at| at.get()).ok_or_else(|| {
                Failure::new(Code::Usage, format!("{flag} {text:?} is no time"))
                    .advise("write a time since the start, for example 7d or 36h")
            }),
        };
        let from = instant("--from", &args.from, cluster.warm_up.get())?;
        let to = instant("--to", &args.to, from.saturating_add(CHART_MS).min(horizon))?;
        if from >= to || to > horizon {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "a chart from {} to {} shows nothing of a run of {}",
                    age(from),
                    age(to),
                    age(horizon)
                ),
            )
            .advise("--from must come before --to, and both must lie within the horizon"));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if path.is_dir() {
            let text = format!("{}: is a directory, and no chart can be written over it", path.display());
            return Err(Failure::new(Code::Failed, text).advise("name a file, such as week.svg"));
        }
        let file = new_file(directory).map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.to_owned(), file, window: Window { from, to } })
    }

    fn draw(mut self, cluster: &Cluster, timeline: &Timeline, summary: &str) -> Outcome {
        let window = self.window.bounded(timeline);
        if window != self.window {
            talk!(
                "note: the chart ends at {} instead of {}, since more than {} spans make it unreadable; \
                 --from and --to choose what it shows",
                age(window.to),
                age(self.window.to),
                gantt::SPANS_MAX
            );
        }
        let svg = gantt::svg(cluster, timeline, window, summary);
        let written = self.file.write_all(svg.as_bytes()).and_then(|()| self.file.as_file().sync_all());
        written.map_err(|error| unwritable(&self.path, &error))?;
        self.file.persist(&self.path).map_err(|error| unwritable(&self.path, &error.error))?;
        talk!("chart: {}", self.path.display());
        Ok(())
    }
}

/// A file beside the chart's place, readable by whoever may read what this user writes.
fn new_file(directory: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sealyard-chart-").suffix(".svg");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("{}: the chart cannot be written: {error}", path.display()))
        .advise("name a file in a directory that you may write to")
}
