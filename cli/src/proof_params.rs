//! What a worker needs to know of proof parameters, which its room cannot import: are they there, get them, where.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proofs::params::fetch::FetchEvent;
use proofs::params::{self, Choice, FetchOptions, FetchProgress, Purpose};
use rpc::error::chain;
use sealtasks::SectorSize;
use tokio::process::Command;

use crate::show::bytes;

/// How a worker comes by parameters it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obtain {
    /// It does not.
    Never,
    /// By HTTP from the gateway, for ever.
    Fetch,
    /// By HTTP, briefly; then, for test sizes, by generating insecure ones.
    FetchElseGenerate,
}

/// Parameters of this machine.
#[derive(Debug)]
pub struct MachineParams {
    /// What to do about missing ones.
    pub obtain: Obtain,
    /// This program, which generates as a process of its own so that it can be stopped.
    pub program: PathBuf,
}

#[async_trait]
impl worker::ProofParams for MachineParams {
    fn ready(&self, size: SectorSize) -> bool {
        params::choose_directory(size).directory().is_some()
    }

    async fn obtain(
        &self,
        size: SectorSize,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), String> {
        match self.obtain {
            Obtain::Never => Err(format!("parameters are missing; run `sealyard params fetch {size}`")),
            Obtain::Fetch => fetch(size, FetchPatience::Long, progress).await,
            Obtain::FetchElseGenerate => match fetch(size, FetchPatience::Short, progress).await {
                Ok(()) => Ok(()),
                Err(_) if size.is_test_size() => self.generate(size, progress).await,
                Err(reason) => Err(reason),
            },
        }
    }

    fn environment(&self, size: SectorSize) -> Vec<(String, String)> {
        match params::choose_directory(size) {
            Choice::Published(dir) | Choice::Insecure(dir) => {
                vec![(params::SHARED_VARIABLE.to_owned(), dir.to_string_lossy().into_owned())]
            }
            Choice::Missing { .. } => Vec::new(),
        }
    }
}

/// How long a fetch is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FetchPatience {
    Short,
    Long,
}

async fn fetch(
    size: SectorSize,
    patience: FetchPatience,
    progress: &(dyn Fn(String) + Send + Sync),
) -> Result<(), String> {
    let files = params::needed(size, Purpose::Prove);
    let whole: Option<u64> = files.iter().map(|file| file.bytes).sum();
    let mut options = FetchOptions::new(params::directory()).map_err(|error| chain(&error))?;
    if patience == FetchPatience::Short {
        options.attempts = 2;
        options.pause = Duration::from_millis(200);
        options.silence = Duration::from_secs(5);
    }
    progress("waiting for parameters: asking the gateway".to_owned());
    let begun = Instant::now();
    let say = |step: FetchProgress<'_>| match step.event {
        FetchEvent::Bytes { have, total } => {
            let Some(total) = total.or(whole).filter(|total| *total > 0) else { return };
            let rate = have as f64 / begun.elapsed().as_secs_f64().max(0.001);
            let minutes = (total.saturating_sub(have) as f64 / rate.max(1.0) / 60.0).ceil();
            progress(format!(
                "waiting for parameters, about {minutes:.0} min: fetched {} of {}",
                bytes(have),
                bytes(total)
            ));
        }
        FetchEvent::Waiting => progress("waiting for parameters: another process fetches them".to_owned()),
        FetchEvent::Retrying { reason } => {
            progress(format!("waiting for parameters: trying again: {reason}"))
        }
        FetchEvent::Checking => progress("waiting for parameters: checking the digest".to_owned()),
        FetchEvent::Done => {}
    };
    params::fetch(&files, &options, &say).await.map_err(|error| chain(&error))
}

impl MachineParams {
    /// Runs `sealyard params generate` and reports the time it still takes. The child is killed with this future.
    async fn generate(
        &self,
        size: SectorSize,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), String> {
        let expected = params::requirement(size).map_or(Duration::ZERO, |needs| needs.expected);
        let begun = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["params", "generate", "--until-stdin-closes", &size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.program.display()))?;
        // Held until the end: it closes when this process dies, however it dies, and the child ends with it.
        let _lifeline = child.stdin.take();
        let mut last = String::new();
        let mut errors = child.stderr.take().map(lines_of);
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(|error| error.to_string())?;
                    return if status.success() { Ok(()) } else { Err(last) };
                }
                Some(text) = next_line(&mut errors) => last = text,
                _ = tick.tick() => progress(waiting(expected, begun.elapsed())),
            }
        }
    }
}

type Lines = tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStderr>>;

fn lines_of(stderr: tokio::process::ChildStderr) -> Lines {
    use tokio::io::AsyncBufReadExt as _;
    tokio::io::BufReader::new(stderr).lines()
}

/// The next line; never, once there are no more.
async fn next_line(lines: &mut Option<Lines>) -> Option<String> {
    if let Some(open) = lines {
        if let Ok(Some(text)) = open.next_line().await {
            return Some(text);
        }
        *lines = None;
    }
    std::future::pending().await
}

fn waiting(expected: Duration, elapsed: Duration) -> String {
    match expected.checked_sub(elapsed) {
        Some(left) => {
            format!("waiting for parameters, about {} min: generating them", left.as_secs().div_ceil(60))
        }
        None => format!(
            "waiting for parameters: generating them for {} min, longer than expected",
            elapsed.as_secs() / 60
        ),
    }
}
