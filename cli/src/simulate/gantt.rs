//! A run as a Gantt chart: one SVG file that needs nothing else. Rows are machines and their lanes, colours are tasks, and
//! whatever the pointer rests on tells what it is. Light or dark as the viewer prefers.

use std::fmt::Write as _;

use sealtasks::TaskType;

use super::axis::Axis;
use super::cluster::{Cluster, FaultKind};
use super::lanes::{Lanes, lanes};
use super::timeline::{Phase, Span, Timeline};
use crate::show::age;

/// Spans that a chart may have. Browsers draw so many at once without trouble; a chart of more begins at the same time and
/// ends earlier.
pub const SPANS_MAX: usize = 20_000;

/// Pixels of the whole chart, of the names on its left and of the margin on its right.
const WIDTH: f64 = 1600.0;
const GUTTER: f64 = 200.0;
const MARGIN: f64 = 24.0;
/// Pixels from the top to the first machine: title, legend, time axis.
const HEAD: f64 = 122.0;
/// The least pixels of a machine, so that its name fits.
const MACHINE_MIN: f64 = 34.0;
/// Pixels between machines.
const GAP: f64 = 6.0;
/// Spans shorter than this are drawn this wide, or nobody would see a Commit1.
const SPAN_MIN: f64 = 0.7;

/// The parts of the chart that do not depend on the run. Colours: Okabe and Ito's, which the colour-blind can tell apart.
const STYLE: &str = "<style>\
.paper{fill:#fff}.band{fill:#f4f6f9}text{fill:#1f2933;font:12px system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif}\
.title{font-size:19px;font-weight:600}.soft{fill:#6b7785}.small{font-size:10.5px}.name{font-weight:600}\
.num{font-size:9.5px;fill:#fff;pointer-events:none}.grid{stroke:#dfe4ea}.day{stroke:#9aa5b1}\
.AP{fill:#56b4e9}.PC1{fill:#0072b2}.PC2{fill:#e69f00}.C1{fill:#8a929b}.C2{fill:#d55e00}.FIN{fill:#009e73}.GET{fill:#cc79a7}\
.fetch{fill-opacity:.45}.stage{fill-opacity:.28}.ready{fill-opacity:.13}\
rect.s:hover{stroke:#1f2933;stroke-width:1.5}\
.down{fill:#d64545;fill-opacity:.2}.slow{fill:#e69f00;fill-opacity:.16}\
@media(prefers-color-scheme:dark){.paper{fill:#14181d}.band{fill:#1a2027}text{fill:#e6ebf0}.soft{fill:#94a1af}\
.num{fill:#fff}.grid{stroke:#2b333c}.day{stroke:#56626e}rect.s:hover{stroke:#e6ebf0}}\
</style>";

/// What part of a run is drawn, in milliseconds since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when.
    pub from: u64,
    /// Until when; later than `from`.
    pub to: u64,
}

impl Window {
    /// The longest window from the same beginning with at most [`SPANS_MAX`] spans.
    pub fn bounded(self, timeline: &Timeline) -> Self {
        let mut beginnings: Vec<u64> =
            timeline.spans.iter().filter(|span| self.shows(span)).map(|span| span.from).collect();
        if beginnings.len() <= SPANS_MAX {
            return self;
        }
        beginnings.sort_unstable();
        Self { from: self.from, to: beginnings[SPANS_MAX].max(self.from + 1) }
    }

    fn shows(&self, span: &Span) -> bool {
        span.from < self.to && span.to > self.from
    }
}

/// Draws the chart. `subtitle` is one line for people.
pub fn svg(cluster: &Cluster, timeline: &Timeline, window: Window, subtitle: &str) -> String {
    let rows: Vec<Lanes> = cluster
        .each_machine()
        .enumerate()
        .map(|(machine, _)| {
            lanes(timeline.spans.iter().filter(|span| span.machine == machine && window.shows(span)))
        })
        .collect();
    let lane = lane_height(rows.iter().map(|row| row.count).sum());
    let heights: Vec<f64> = rows.iter().map(|row| (row.count as f64 * lane + 8.0).max(MACHINE_MIN)).collect();
    let bottom = HEAD + heights.iter().map(|height| height + GAP).sum::<f64>();
    let axis = Axis {
        window,
        left: GUTTER,
        width: WIDTH - GUTTER - MARGIN,
        top: HEAD - 8.0,
        bottom,
        starts: cluster.starts,
    };
    let mut out = String::new();
    head(&mut out, cluster, bottom + 34.0, subtitle);
    bands(&mut out, cluster, &heights);
    axis.draw(&mut out);
    faults(&mut out, cluster, &heights, &axis);
    let mut top = HEAD;
    for (row, height) in rows.iter().zip(&heights) {
        let inner = top + (height - row.count as f64 * lane) / 2.0;
        for (span, at) in &row.spans {
            draw_span(&mut out, span, &axis, inner + *at as f64 * lane, lane);
        }
        top += height + GAP;
    }
    out.push_str("</svg>\n");
    out
}

/// Lower lanes where there are many, so that a chart of a large cluster can still be looked at.
fn lane_height(lanes: usize) -> f64 {
    match lanes {
        0..=150 => 15.0,
        151..=400 => 10.0,
        _ => 6.0,
    }
}

fn head(out: &mut String, cluster: &Cluster, height: f64, subtitle: &str) {
    let title = escape(&cluster.title);
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"{title}\">{STYLE}<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\
         <text class=\"title\" x=\"24\" y=\"34\">{title}</text>\
         <text class=\"soft\" x=\"24\" y=\"55\">{}</text>",
        escape(subtitle)
    );
    let mut x = 24.0;
    let legend = |out: &mut String, x: f64, class: &str, text: &str| {
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{x:.0}\" y=\"68\" width=\"13\" height=\"13\" rx=\"2\"/>\
             <text x=\"{:.0}\" y=\"79\">{text}</text>",
            x + 18.0
        );
    };
    for (task, words) in LEGEND {
        legend(out, x, task.short(), words);
        x += 34.0 + words.len() as f64 * 6.6;
    }
    x += 18.0;
    for (class, words) in [
        ("PC1 fetch", "fetching, slot taken"),
        ("PC1 stage", "fetching ahead"),
        ("PC1 ready", "fetched, waits"),
    ] {
        legend(out, x, class, words);
        x += 34.0 + words.len() as f64 * 6.2;
    }
}

/// Tasks as the legend names them.
const LEGEND: [(TaskType, &str); 7] = [
    (TaskType::AddPiece, "AddPiece"),
    (TaskType::PreCommit1, "PreCommit1"),
    (TaskType::PreCommit2, "PreCommit2"),
    (TaskType::Commit1, "Commit1"),
    (TaskType::Commit2, "Commit2"),
    (TaskType::Finalize, "Finalize"),
    (TaskType::Fetch, "move to storage"),
];

/// Every machine's background and name.
fn bands(out: &mut String, cluster: &Cluster, heights: &[f64]) {
    let mut top = HEAD;
    for ((name, group), height) in cluster.each_machine().zip(heights) {
        let gpus = match group.gpus.len() {
            0 => String::new(),
            1 => ", 1 GPU".to_owned(),
            more => format!(", {more} GPUs"),
        };
        let _ = write!(
            out,
            "<rect class=\"band\" x=\"12\" y=\"{top:.1}\" width=\"{:.0}\" height=\"{height:.1}\" rx=\"4\"/>\
             <text class=\"name\" x=\"24\" y=\"{:.1}\">{}</text>\
             <text class=\"soft small\" x=\"24\" y=\"{:.1}\">{} CPUs, {}{gpus}</text>",
            WIDTH - 12.0 - MARGIN + 8.0,
            top + 14.5,
            escape(&name),
            top + 27.5,
            group.cpus,
            crate::show::bytes(group.memory),
        );
        top += height + GAP;
    }
}

fn faults(out: &mut String, cluster: &Cluster, heights: &[f64], axis: &Axis) {
    let mut top = HEAD;
    for ((name, _), height) in cluster.each_machine().zip(heights) {
        for fault in cluster.faults.iter().filter(|fault| fault.machine == name) {
            let Some((x, width)) = axis.place(fault.from.get(), fault.to.get()) else { continue };
            let (class, what) = match fault.kind {
                FaultKind::Down => ("down", "down".to_owned()),
                FaultKind::Slow(by) => ("slow", format!("slower by {}", super::reader::decimal(by))),
            };
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                 <title>{}: {what}, {} to {}</title></rect>",
                escape(&name),
                axis.instant(fault.from.get()),
                axis.instant(fault.to.get())
            );
        }
        top += height + GAP;
    }
}

fn draw_span(out: &mut String, span: &Span, axis: &Axis, y: f64, lane: f64) {
    let Some((x, width)) = axis.place(span.from, span.to) else { return };
    let (class, what) = match span.phase {
        Phase::Run => ("", ""),
        Phase::Fetch => (" fetch", "fetching for "),
        Phase::Stage => (" stage", "fetching ahead for "),
        Phase::Ready => (" ready", "fetched, waits for a slot: "),
    };
    let width = width.max(SPAN_MIN);
    let height = (lane - 1.5).max(3.0);
    let task = span.task.short();
    let _ = write!(
        out,
        "<rect class=\"s {task}{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\">\
         <title>{what}{task} of sector {}, {}: {} to {}</title></rect>",
        span.sector,
        age(span.to - span.from),
        axis.instant(span.from),
        axis.instant(span.to)
    );
    let number = span.sector.to_string();
    if span.phase == Phase::Run && lane >= 15.0 && width > 10.0 + number.len() as f64 * 6.0 {
        let _ = write!(out, "<text class=\"num\" x=\"{:.1}\" y=\"{:.1}\">{number}</text>", x + 4.0, y + 10.0);
    }
}

/// Text as XML may hold it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}
