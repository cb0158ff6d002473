//! Arguments of the commands that explain: `sealing why`, `sealing sched-diag`.

use clap::Args;

/// `sealyard sealing why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sealing why 7\n  sealyard sealing why 12.1 --json\n  sealyard sealing why pledge\n\
    Ends with 14 when nothing is known of what was asked about."
)]
pub struct WhyArgs {
    /// A sector (7, f01000/7 or s-t01000-7), a task (task:5), an attempt (5.1) or a call's id; or `pledge`: what the
    /// manager pledges by itself.
    pub what: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sealing sched-diag`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard sealing sched-diag\n  sealyard sealing sched-diag --json")]
pub struct SchedDiagArgs {
    /// Print Lotus's JSON: all of it, whatever --limit says.
    #[arg(long)]
    pub json: bool,
    /// Lotus's flag, which pokes its scheduler; ours has nothing left to do.
    #[arg(long)]
    pub force_sched: bool,
    /// List at most this many waiting tasks.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub limit: u32,
}
