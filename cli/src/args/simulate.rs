//! Arguments of `simulate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `sealyard simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard simulate examples/clusters/mid.toml\n  \
    sealyard simulate my.toml --what-if --gantt week.svg --from 7d --to 14d\n\n\
    What a cluster file may say: examples/clusters/README.md. What --json prints: cli/simulate.schema.json.")]
pub struct SimulateArgs {
    /// The cluster file (TOML).
    #[arg(value_name = "CLUSTER")]
    pub cluster: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Draw a Gantt chart into this file (SVG; replaces it whole or not at all).
    #[arg(long, value_name = "FILE")]
    pub gantt: Option<PathBuf>,
    /// Where the chart begins, since the start of the run, for example 7d. Default: the end of the warm-up.
    #[arg(long, value_name = "TIME", requires = "gantt")]
    pub from: Option<String>,
    /// Where the chart ends. Default: two days after its beginning.
    #[arg(long, value_name = "TIME", requires = "gantt")]
    pub to: Option<String>,
    /// Run again with each change that would raise the ceiling.
    #[arg(long)]
    pub what_if: bool,
    /// Which algorithm places the tasks.
    #[arg(long, value_enum, default_value = "sealyard")]
    pub scheduler: SchedulerKind,
}

/// An algorithm that places tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchedulerKind {
    /// The one that the manager uses.
    Sealyard,
    /// A model of Lotus's, for comparison.
    Lotus,
}

impl SchedulerKind {
    /// Its name on the command line and in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealyard => "sealyard",
            Self::Lotus => "lotus",
        }
    }
}
