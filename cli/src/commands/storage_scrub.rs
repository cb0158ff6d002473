//! `storage scrub`: the commitments of stored sectors, computed again and compared with the records. The workers that hold the
//! files do it, and the manager keeps what they find; with `--dir` this process does, for files in a directory of this host.
//! Never: changes a file, or keeps anybody waiting for one.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proofs::scrub;
use rpc::extension::SectorDetail;
use rpc::storage::ScrubResult;
use rpc::{Miners, SectorName};
use sealtasks::{FileType, RegisteredSealProof, ScrubVerdict};
use serde_json::json;

use super::storage_care::path_failure;
use crate::args::ScrubArgs;
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{age, line, paint, plain, print_json, talk};

/// Set for the process that was started over at low priority.
const LOW: &str = "SEALYARD_SCRUB_AT_LOW_PRIORITY";

/// `storage scrub`.
pub async fn scrub(connection: &Connection, args: &ScrubArgs) -> Outcome {
    if args.results {
        return results(connection, args).await;
    }
    if args.dir.is_some() {
        return here(connection, args).await;
    }
    let mut scrubbed = Vec::new();
    let miners = super::operate::miners(connection).await?;
    for sector in sectors(connection, args).await? {
        let found = connection.storage.scrub_sector(sector).await.map_err(path_failure)?;
        if !args.json {
            found.iter().try_for_each(|one| line(&sentence(one, &miners)))?;
        }
        scrubbed.extend(found);
    }
    if args.json {
        print_json(&json!({ "bad": bad(&scrubbed), "files": scrubbed }))?;
    } else if scrubbed.is_empty() {
        line("no unsealed or sealed files")?;
    }
    verdict(bad(&scrubbed))
}

/// What was found before, of the sectors named or of all.
async fn results(connection: &Connection, args: &ScrubArgs) -> Outcome {
    let mut kept = connection.storage.scrub_results(None).await.map_err(rpc_failure)?;
    let miners = super::operate::miners(connection).await?;
    let named = |one: &ScrubResult| {
        let (full, number) = (SectorName::from(one.sector), SectorName::from(one.sector.number));
        let is_first = one.sector.miner == miners.first;
        args.sectors.contains(&full) || is_first && args.sectors.contains(&number)
    };
    kept.retain(|one| args.sectors.is_empty() || named(one));
    if args.json {
        return print_json(&json!({ "bad": bad(&kept), "files": kept }));
    }
    if kept.is_empty() {
        return line("nothing was scrubbed yet");
    }
    let now_ms = crate::clock::now_ms();
    kept.iter().try_for_each(|one| {
        let ago = age(now_ms.saturating_sub(one.at_ms));
        line(&format!("{}, {ago} ago", sentence(one, &miners)))
    })
}

async fn sectors(connection: &Connection, args: &ScrubArgs) -> Result<Vec<SectorName>, Failure> {
    if !args.sectors.is_empty() {
        return Ok(args.sectors.clone());
    }
    let listed = connection.manager.sectors().await.map_err(rpc_failure)?;
    Ok(listed.into_iter().map(|sector| sector.into()).collect())
}

fn bad(scrubbed: &[ScrubResult]) -> usize {
    scrubbed.iter().filter(|one| one.verdict.is_bad()).count()
}

fn verdict(bad: usize) -> Outcome {
    match bad {
        0 => Ok(()),
        count => Err(Failure::new(Code::Sealing, format!("{count} files are not what the records say"))
            .advise("keep them; fetch or seal those sectors again before anything is deleted")),
    }
}

fn sentence(one: &ScrubResult, miners: &Miners) -> String {
    let host = if one.host.is_empty() { "nobody" } else { &one.host };
    let (sector, file, path) = (miners.name(one.sector), one.file, &one.path);
    let (verdict, detail) = (painted(one.verdict), plain(&one.detail));
    format!("sector {sector} {file} in {path}: {verdict} ({detail}), by {}", plain(host))
}

fn painted(verdict: ScrubVerdict) -> String {
    match verdict {
        ScrubVerdict::Intact => paint::green(verdict.words()),
        ScrubVerdict::LeftOut => paint::yellow(verdict.words()),
        ScrubVerdict::Differs | ScrubVerdict::Unreadable => paint::red(verdict.words()),
    }
}

/// Starts this command over under `nice`, once. Without `nice` it goes on as it is.
pub(super) fn at_low_priority() {
    if std::env::var_os(LOW).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new("nice");
    let error =
        command.args(["-n", "19"]).arg(program).args(std::env::args_os().skip(1)).env(LOW, "1").exec();
    talk!("note: not at low priority: nice does not start ({error})");
}

/// One file in a directory of this host and what was found; nothing is kept of it.
#[derive(Debug, serde::Serialize)]
struct Scrubbed {
    sector: SectorName,
    file: FileType,
    path: PathBuf,
    verdict: ScrubVerdict,
    detail: String,
}

async fn here(connection: &Connection, args: &ScrubArgs) -> Outcome {
    at_low_priority();
    let dir = expand(args.dir.as_deref().unwrap_or_default())?;
    let work = args.work.as_deref().map_or_else(|| Ok(std::env::temp_dir()), expand)?;
    let mut scrubbed = Vec::new();
    let miners = super::operate::miners(connection).await?;
    for named in sectors(connection, args).await? {
        let detail = connection.manager.sector_detail(named).await.map_err(rpc_failure)?;
        let number = miners.name(detail.sector);
        let busy = detail.tasks.iter().any(|task| task.ended_ms == 0);
        for (file, path) in files_in(&dir, &detail) {
            let done = if busy {
                let detail = "the sector is being worked on".to_owned();
                Scrubbed { sector: number, file, path, verdict: ScrubVerdict::LeftOut, detail }
            } else {
                let (detail, work) = (detail.clone(), work.clone());
                let job = move || check(&detail, number, file, path, &work);
                tokio::task::spawn_blocking(job)
                    .await
                    .map_err(|error| Failure::from_error(Code::Failed, &error))?
            };
            if !args.json {
                let (path, verdict) = (done.path.to_string_lossy(), painted(done.verdict));
                let text = format!("{verdict} {} ({})", plain(&path), plain(&done.detail));
                line(&format!("sector {number} {file}: {text}"))?;
            }
            scrubbed.push(done);
        }
    }
    let bad = scrubbed.iter().filter(|one| one.verdict.is_bad()).count();
    if args.json {
        print_json(&json!({ "bad": bad, "files": scrubbed }))?;
    } else if scrubbed.is_empty() {
        line("no unsealed or sealed files there")?;
    }
    verdict(bad)
}

/// The unsealed and sealed files of a sector in a directory that is, or was, a storage path.
fn files_in(dir: &Path, detail: &SectorDetail) -> Vec<(FileType, PathBuf)> {
    let at = |kind: FileType| (kind, dir.join(kind.name()).join(detail.sector.to_string()));
    [FileType::Unsealed, FileType::Sealed].into_iter().map(at).filter(|(_, path)| path.exists()).collect()
}

/// Computes and compares.
fn check(detail: &SectorDetail, sector: SectorName, file: FileType, path: PathBuf, work: &Path) -> Scrubbed {
    let judged = |verdict, detail| Scrubbed { sector, file, path: path.clone(), verdict, detail };
    let recorded = if file == FileType::Unsealed { &detail.comm_d } else { &detail.comm_r };
    let Some(expected) = recorded else {
        return judged(ScrubVerdict::LeftOut, "the record has no commitment of it yet".to_owned());
    };
    match computed(detail, file, &path, work) {
        Ok(found) if found == *expected => judged(ScrubVerdict::Intact, found),
        Ok(found) => judged(ScrubVerdict::Differs, format!("expected {expected}, found {found}")),
        Err(why) => judged(ScrubVerdict::Unreadable, why),
    }
}

fn computed(detail: &SectorDetail, file: FileType, path: &Path, work: &Path) -> Result<String, String> {
    let proof = RegisteredSealProof::try_from(detail.proof_type).map_err(|error| error.to_string())?;
    if file == FileType::Unsealed {
        let found = scrub::comm_d(path, proof.sector_size()).map_err(|error| error.to_string())?;
        return Ok(found.to_string());
    }
    let outside = || format!("{} lies in no storage path", path.display());
    let root = path.parent().and_then(Path::parent).ok_or_else(outside)?;
    let cache = root.join(FileType::Cache.name()).join(detail.sector.to_string());
    let trees =
        tempfile::Builder::new().prefix("sealyard-scrub").tempdir_in(work).map_err(|e| e.to_string())?;
    let found = scrub::comm_r(proof, path, &cache, trees.path()).map_err(|error| error.to_string())?;
    Ok(found.to_string())
}
