//! `sealyard dev`: a manager and two remote workers as processes of their own, nothing to configure, real proofs.
//!
//! Every process is this same program started with the commands an operator would use. They end when this process
//! ends, however it ends: each reads a pipe that closes with it.

mod document;
mod live;
mod yard;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rpc::Miners;
use rpc::extension::{ManagerOverview, SectorDetail};
use sealtasks::{SectorId, SectorSize};

use crate::args::DevArgs;
use crate::commands::daemon;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{self, talk};

use document::document;
use live::Live;
use yard::{Processes, Yard};

/// How often the manager is asked for news.
const ASK_INTERVAL: Duration = Duration::from_millis(150);
/// Nothing changes for this long while nothing is being waited for: something is wrong. An 8 MiB PreCommit2 takes
/// seconds, a 512 MiB one many minutes on two cores, so this is generous.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// Runs it all and cleans up.
pub async fn run(args: &DevArgs) -> Outcome {
    let size: SectorSize =
        args.sector_size.parse().map_err(|error| Failure::from_error(Code::Setting, &error))?;
    if !size.is_test_size() {
        return Err(Failure::new(Code::Setting, format!("{size} sectors cannot be sealed without a chain"))
            .advise("use --sector-size 2KiB, 8MiB or 512MiB"));
    }
    let place = Place::new(args)?;
    let mut live = Live::new();
    live.say(&format!("working in {}", place.dir.display()));
    let processes = Processes::new(&place.dir)?;
    let (outcome, asked_to_stop) = tokio::select! {
        outcome = seal(args, size, &processes, &mut live) => (outcome, false),
        why = daemon::stop_requested(false) => {
            (Err(Failure::new(Code::Failed, format!("{why}; every process was stopped"))), true)
        }
    };
    live.end();
    // However it ended: the workers are asked to end, which ends their executors, before this process goes.
    processes.stop(&live).await;
    // What failed is kept, with its logs; what was interrupted is not wanted any more.
    let failed = outcome.as_ref().is_err_and(|failure| !asked_to_stop && !failure.is_reader_gone());
    if failed || args.keep || args.dir.is_some() {
        talk!("kept: {}", place.keep().display());
    }
    outcome
}

/// The directory everything happens in.
struct Place {
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(args: &DevArgs) -> Result<Self, Failure> {
        match &args.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                if std::fs::read_dir(dir)?.next().is_some() {
                    return Err(Failure::new(Code::Repo, format!("{} is not empty", dir.display()))
                        .advise("give a new directory with --dir"));
                }
                Ok(Self { dir: dir.canonicalize()?, temporary: None })
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("sealyard-dev-").tempdir()?;
                Ok(Self { dir: temporary.path().canonicalize()?, temporary: Some(temporary) })
            }
        }
    }

    /// Leaves the directory in place and says where it is.
    fn keep(mut self) -> PathBuf {
        if let Some(temporary) = self.temporary.take() {
            return temporary.keep();
        }
        self.dir.clone()
    }
}

async fn seal(args: &DevArgs, size: SectorSize, processes: &Processes, live: &mut Live) -> Outcome {
    let yard = Yard::start(processes, size, args.until.is_none(), live).await?;
    let mut sectors = Vec::new();
    for _ in 0..args.sectors {
        sectors.push(yard.pledge(args.until.is_some()).await?);
    }
    follow(&yard, &sectors, size, live).await?;
    let (details, overview) = yard.look(&sectors).await?;
    live.end();
    if args.json {
        show::print_json(&document(&details, &overview.paths))?;
    } else {
        print_result(&sectors, &details, &overview)?;
    }
    match details.iter().find(|detail| args.until.is_none() && detail.verified != Some(true)) {
        Some(bad) => Err(Failure::new(
            Code::Sealing,
            format!("the proof of sector {} is not verified", bad.sector.number),
        )),
        None => Ok(()),
    }
}

/// Watches until every sector rests, or something fails.
async fn follow(yard: &Yard<'_>, sectors: &[SectorId], size: SectorSize, live: &mut Live) -> Outcome {
    let mut changed = Instant::now();
    let mut before = Vec::new();
    loop {
        yard.check_alive()?;
        let (details, overview) = yard.look(sectors).await?;
        live.follow(&details, &overview);
        if details.iter().all(is_at_rest) {
            return Ok(());
        }
        if let Some(why) = without_parameters(&overview) {
            return Err(Failure::new(
                Code::Parameters,
                format!("C2 of {size} sectors cannot have its parameters: {why}"),
            )
            .advise(format!(
                "make them with `sealyard params generate {size}`, or stop before C2 with --until c1"
            )));
        }
        if let Some(failed) = details.iter().find(|detail| detail.state.contains("Fail")) {
            return Err(Failure::new(
                Code::Sealing,
                format!("sector {} is in {}: {}", failed.sector.number, failed.state, failed.last_error),
            ));
        }
        let waits = overview.workers.iter().any(|worker| !worker.pending.is_empty());
        if before != details || waits {
            changed = Instant::now();
            before = details;
        }
        if changed.elapsed() > SILENCE_MAX {
            return Err(Failure::new(Code::Sealing, "nothing has changed for an hour")
                .advise("look at the logs in the directory named below"));
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// Why a worker has neither fetched nor generated the parameters, when it has tried both. It would try again for ever;
/// nobody waits that long for a demonstration.
fn without_parameters(overview: &ManagerOverview) -> Option<&str> {
    let mut reasons = overview.workers.iter().flat_map(|worker| worker.pending.values());
    reasons.find_map(|reason| reason.split_once(worker::offer::TRYING_AGAIN)).map(|(why, _)| why)
}

/// Whether nothing more will happen: proven, or stopped after Commit1 as asked.
fn is_at_rest(detail: &SectorDetail) -> bool {
    let open = detail.tasks.iter().any(|task| task.ended_ms == 0);
    match detail.state.as_str() {
        "Proving" => !open,
        "Committing" => detail.stopped && !open && detail.c1_sha256.is_some(),
        _ => false,
    }
}

fn print_result(sectors: &[SectorId], details: &[SectorDetail], overview: &ManagerOverview) -> Outcome {
    show::line("\n$ sealyard sectors list")?;
    if let Some(SectorId { miner, .. }) = sectors.first() {
        show::print_sectors(details, &Miners { first: *miner, others: Vec::new() })?;
    }
    for detail in details {
        if detail.verified == Some(true) {
            let proof = detail.proof.as_deref().unwrap_or_default().len() / 2;
            show::line(&format!("sector {}: proof of {proof} bytes verified", detail.sector.number))?;
        }
    }
    show::line("\n$ sealyard workers list")?;
    show::print_workers(&overview.workers)?;
    for sector in sectors {
        show::line(&format!("\n$ sealyard storage find {}", sector.number))?;
        show::print_find(&show::find(&overview.paths, sector.number))?;
    }
    Ok(())
}
