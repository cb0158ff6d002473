//! Arguments that say what runs a worker's tasks.

use std::path::PathBuf;

use clap::Args;

/// What a rehearsal is faster by where nobody says.
const SPEED: f64 = 1000.0;

/// `--executor` and its kin.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Executors")]
pub struct ExecutorArgs {
    /// What does a task in place of this program: a program that keeps to proofs/EXECUTORS.md (pc2=/opt/my-pc2), or
    /// `rehearsal`, which only plays it with empty files of the true size (all=rehearsal).
    #[arg(long, value_delimiter = ',', value_name = "TASK=WHAT,…", env = "SEALYARD_EXECUTOR")]
    pub executor: Vec<String>,
    /// How many times faster than in life a rehearsal is (1000 where nothing is said).
    #[arg(long, value_name = "N", value_parser = speed)]
    pub rehearsal_speed: Option<f64>,
    /// How long tasks take in life: a TOML file with a table per size (32GiB), of lines such as pc1 = "3h30m". What it leaves
    /// out is taken from published times.
    #[arg(long, value_name = "FILE")]
    pub rehearsal_profile: Option<PathBuf>,
    /// The machine that a rehearsal plays, for example memory=512GiB,cpus=64,gpus=1,disk=20TiB (disk: of each storage
    /// path). What is left out is this machine's own; a path has 100TiB.
    #[arg(long, value_delimiter = ',', value_name = "WHAT=N,…")]
    pub rehearsal_machine: Vec<String>,
}

impl ExecutorArgs {
    /// The factor.
    pub fn speed(&self) -> f64 {
        self.rehearsal_speed.unwrap_or(SPEED)
    }
}

/// A factor from a thousandth to a thousand million.
pub fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=1e9).contains(&speed) => Ok(speed),
        _ => Err("write a number from 0.001 to 1000000000".to_owned()),
    }
}
