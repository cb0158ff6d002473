//! `repair export`: from a full node to a file. Asks no manager.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use chain::Lotus;
use chain::recovery::{Export, FailedSector, SECTORS_MAX, export, file_name, sector_numbers, write};
use sealtasks::ActorId;
use serde::Serialize;

use crate::args::{ExportArgs, RepairCommand};
use crate::exit::{Code, Failure, Outcome};
use crate::full_node::{ADVICE, FULL_NODE, connect, failure, synced};
use crate::show::{line, print_json, talk};

/// While many sectors are read, every so many are reported.
const REPORT_EVERY: usize = 100;
/// So many failed sectors are named in the last line; each has a line of its own before it.
const NAMED_MAX: usize = 20;

/// What it says with `--json`.
#[derive(Serialize)]
struct ExportView {
    /// `null`: nothing was written.
    file: Option<PathBuf>,
    miner: String,
    sector_size: u64,
    exported: Vec<u64>,
    failed: Vec<FailedView>,
}

#[derive(Serialize)]
struct FailedView {
    sector: u64,
    code: &'static str,
    why: String,
}

/// `repair …`.
pub async fn repair(repo: &Path, command: &RepairCommand) -> Outcome {
    match command {
        RepairCommand::Export(args) => run_export(repo, args).await,
        RepairCommand::Run(args) => super::rebuild::run_file(repo, args).await,
    }
}

/// `repair export` and `export`.
pub async fn run_export(repo: &Path, args: &ExportArgs) -> Outcome {
    let usage = |error: &dyn std::error::Error| Failure::new(Code::Usage, error.to_string());
    let miner: ActorId = args.miner.parse().map_err(|error| usage(&error))?;
    let numbers = sector_numbers(&args.numbers).map_err(|error| usage(&error))?;
    debug_assert!(numbers.len() <= SECTORS_MAX);
    let lotus = of_environment(repo, args.nosync).await?;
    let result = export(&lotus, miner, &numbers, report).await.map_err(|error| failure(&error))?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(file_name(miner)));
    let written = !result.metadata.sectors.is_empty();
    if written {
        let unwritable = |error: io::Error| {
            Failure::new(Code::Failed, format!("{} cannot be written: {error}", path.display()))
        };
        write_whole(&path, &write(&result.metadata)).map_err(unwritable)?;
    }
    if args.json {
        print_json(&view(&result, written.then_some(path)))?;
    } else {
        for FailedSector { number, why } in &result.failed {
            talk!("sector {number}: {}: {}", why.code(), sealtasks::chain(why));
        }
        if written {
            line(&format!("{}   {} sectors", path.display(), result.metadata.sectors.len()))?;
        }
    }
    incomplete(&result, numbers.len())
}

/// A failure if a sector is missing.
fn incomplete(result: &Export, asked: usize) -> Outcome {
    if result.failed.is_empty() {
        return Ok(());
    }
    let named: Vec<String> =
        result.failed.iter().take(NAMED_MAX).map(|failed| failed.number.to_string()).collect();
    let more = if result.failed.len() > NAMED_MAX { " …" } else { "" };
    let text =
        format!("{} of {asked} sectors are not exported: {}{more}", result.failed.len(), named.join(" "));
    Err(Failure::new(Code::Failed, text))
}

fn view(result: &Export, file: Option<PathBuf>) -> ExportView {
    let failed = |failed: &FailedSector| FailedView {
        sector: failed.number.get(),
        code: failed.why.code(),
        why: sealtasks::chain(&failed.why),
    };
    ExportView {
        file,
        miner: format!("f0{}", result.metadata.miner.get()),
        sector_size: result.metadata.size.bytes(),
        exported: result.metadata.sectors.iter().map(|sector| sector.number.get()).collect(),
        failed: result.failed.iter().map(failed).collect(),
    }
}

/// Says now and then how far the reading of many sectors is.
pub(super) fn report(done: usize, all: usize) {
    if done.is_multiple_of(REPORT_EVERY) && done < all {
        talk!("{done} of {all} sectors are read");
    }
}

/// The full node of the environment, waited for unless it is not to be.
pub(super) async fn of_environment(repo: &Path, nosync: bool) -> Result<Lotus, Failure> {
    let text = std::env::var(FULL_NODE).ok().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| {
        Failure::new(Code::Setting, format!("{FULL_NODE} is not set, and this asks a full node"))
            .advise(ADVICE)
    })?;
    let lotus = connect(repo, &text).await?;
    if !nosync {
        synced(&lotus).await?;
    }
    Ok(lotus)
}

/// The file is the old one or the new one, whatever happens in between.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(file.path(), readable)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}
