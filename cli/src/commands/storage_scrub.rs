//! `storage scrub`: the commitments of a sector's files on this host, computed again and compared with its record. Reads
//! only, and holds no locks: files of sectors that are being worked on are left out.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proofs::scrub;
use rpc::extension::SectorDetail;
use sealtasks::{FileType, RegisteredSealProof, SectorNumber};
use serde::Serialize;
use serde_json::json;

use crate::args::ScrubArgs;
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, paint, plain, print_json, talk};

/// Set for the process that was started over at low priority.
const LOW: &str = "SEALYARD_SCRUB_AT_LOW_PRIORITY";

/// One file and what was found.
#[derive(Debug, Serialize)]
struct Scrubbed {
    sector: SectorNumber,
    file: FileType,
    path: PathBuf,
    /// `intact`, `differs`, `unreadable` or `left out`.
    verdict: &'static str,
    /// What was expected, what was found, or why not.
    detail: String,
}

/// `storage scrub`.
pub async fn scrub(connection: &Connection, args: &ScrubArgs) -> Outcome {
    at_low_priority();
    let numbers = if args.sectors.is_empty() {
        connection.manager.sectors_list().await.map_err(rpc_failure)?
    } else {
        args.sectors.iter().copied().map(SectorNumber::new).collect()
    };
    let dir = args.dir.as_deref().map(expand).transpose()?;
    let work = args.work.as_deref().map_or_else(|| Ok(std::env::temp_dir()), expand)?;
    let mut scrubbed = Vec::new();
    for number in numbers {
        let detail = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
        let busy = detail.tasks.iter().any(|task| task.ended_ms == 0);
        for (file, path) in files(connection, &detail, dir.as_deref()).await? {
            let done = if busy {
                let detail = "the sector is being worked on".to_owned();
                Scrubbed { sector: number, file, path, verdict: "left out", detail }
            } else {
                let (detail, work) = (detail.clone(), work.clone());
                let job = move || check(&detail, file, path, &work);
                tokio::task::spawn_blocking(job)
                    .await
                    .map_err(|error| Failure::from_error(Code::Failed, &error))?
            };
            if !args.json {
                print_one(&done)?;
            }
            scrubbed.push(done);
        }
    }
    let bad = scrubbed.iter().filter(|one| matches!(one.verdict, "differs" | "unreadable")).count();
    if args.json {
        print_json(&json!({ "bad": bad, "files": scrubbed }))?;
    } else if scrubbed.is_empty() {
        line("no unsealed or sealed files on this host")?;
    }
    match bad {
        0 => Ok(()),
        count => Err(Failure::new(Code::Sealing, format!("{count} files are not what the records say"))
            .advise("keep them; fetch or seal those sectors again before anything is deleted")),
    }
}

/// Starts this command over under `nice`, once. Without `nice` it goes on as it is.
fn at_low_priority() {
    if std::env::var_os(LOW).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new("nice");
    let error =
        command.args(["-n", "19"]).arg(program).args(std::env::args_os().skip(1)).env(LOW, "1").exec();
    talk!("note: not at low priority: nice does not start ({error})");
}

/// The unsealed and sealed files of a sector on this host.
async fn files(
    connection: &Connection,
    detail: &SectorDetail,
    dir: Option<&Path>,
) -> Result<Vec<(FileType, PathBuf)>, Failure> {
    let kinds = [FileType::Unsealed, FileType::Sealed];
    let at = |dir: &Path, kind: FileType| dir.join(kind.name()).join(detail.sector.to_string());
    if let Some(dir) = dir {
        let there = kinds.into_iter().map(|kind| (kind, at(dir, kind))).filter(|(_, path)| path.exists());
        return Ok(there.collect());
    }
    let places = connection.storage.sector_places(detail.sector.number).await.map_err(rpc_failure)?.places;
    let here = places.iter().filter_map(|place| Some((place.local.as_deref()?, place.types)));
    Ok(here
        .flat_map(|(dir, types)| {
            kinds
                .into_iter()
                .filter(move |kind| types.contains(*kind))
                .map(move |kind| (kind, at(Path::new(dir), kind)))
        })
        .collect())
}

/// Computes and compares.
fn check(detail: &SectorDetail, file: FileType, path: PathBuf, work: &Path) -> Scrubbed {
    let sector = detail.sector.number;
    let judged = |verdict, detail| Scrubbed { sector, file, path: path.clone(), verdict, detail };
    let recorded = if file == FileType::Unsealed { &detail.comm_d } else { &detail.comm_r };
    let Some(expected) = recorded else {
        return judged("left out", "the record has no commitment of it yet".to_owned());
    };
    match computed(detail, file, &path, work) {
        Ok(found) if found == *expected => judged("intact", found),
        Ok(found) => judged("differs", format!("expected {expected}, found {found}")),
        Err(why) => judged("unreadable", why),
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

fn print_one(one: &Scrubbed) -> Outcome {
    let verdict = match one.verdict {
        "intact" => paint::green("intact"),
        "left out" => paint::yellow("left out"),
        bad => paint::red(bad),
    };
    let path = one.path.to_string_lossy();
    line(&format!("sector {} {}: {verdict} {} ({})", one.sector, one.file, plain(&path), plain(&one.detail)))
}
