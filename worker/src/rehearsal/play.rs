//! The tasks as they are played: which files each makes, spread over its time as the real one makes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pieces::PartialFile;
use sealtasks::{
    AddPieceInput, ExecutorFailure, ExecutorRequest, FailureClass, FileType, PieceInfo, ProofFeature,
    SectorRef, SectorSize, TaskInput, TaskOutput, UnpaddedPieceSize, UnsealedRange, rehearsal,
};

use super::Played;
use super::lengths::{Stage, T_AUX, cache_files};

/// Partitions of a proof: 1 for the test sizes, 10 for the others (filecoin-proofs `POREP_PARTITIONS`).
const fn partitions(size: SectorSize) -> usize {
    if size.is_test_size() { 1 } else { 10 }
}

/// Plays a task for `length`.
pub(super) fn perform(request: &ExecutorRequest, length: Duration) -> Played {
    let sector = request.sector;
    if sector.proof.feature() != ProofFeature::None {
        return Err(environment("a rehearsal knows neither synthetic nor non-interactive proofs".into()));
    }
    let files = Files { request, size: sector.proof.sector_size() };
    let pace = Pace { begun: Instant::now(), length };
    tracing::info!(sector = %sector.id, ?length, "REHEARSAL: a task is played");
    match &request.work {
        TaskInput::AddPiece(piece) => add_piece(&files, piece, &pace),
        TaskInput::PreCommit1(input) => {
            pre_commit1(&files, &pace)?;
            Ok(TaskOutput::PreCommit1(rehearsal::pc1(&input.pieces)))
        }
        TaskInput::PreCommit2(input) => {
            let pieces = rehearsal::pieces_in(&input.pc1)
                .ok_or_else(|| environment("the PC1 output is a real one, and this is a REHEARSAL".into()))?;
            pre_commit2(&files, &pace)?;
            let unsealed = if let [piece] = pieces[..] { piece.cid } else { rehearsal::unsealed(sector.id) };
            Ok(TaskOutput::PreCommit2 { unsealed, sealed: rehearsal::sealed(sector.id) })
        }
        TaskInput::Commit1(_) => {
            files.expect_cache(Stage::Treed)?;
            pace.to_end();
            Ok(TaskOutput::Commit1(rehearsal::c1()))
        }
        TaskInput::Commit2(input) => {
            if !rehearsal::is_marked(&input.c1.0) {
                return Err(environment("the C1 output is a real one, and this is a REHEARSAL".into()));
            }
            pace.to_end();
            Ok(TaskOutput::Commit2(rehearsal::proof(partitions(files.size))))
        }
        TaskInput::Finalize(_) => {
            finalize(&files)?;
            pace.to_end();
            Ok(TaskOutput::Finalize)
        }
        TaskInput::ReleaseUnsealed(input) => {
            release(&files, &input.keep)?;
            Ok(TaskOutput::ReleaseUnsealed)
        }
        TaskInput::Unseal(input) => {
            pace.to_end();
            allocate(&files, &input.range)?;
            Ok(TaskOutput::Unseal)
        }
        // A commitment is used outside of sealing, for deals: none is made up.
        TaskInput::DataCid(_)
        | TaskInput::Verify(_)
        | TaskInput::Scrub(_)
        | TaskInput::Vanilla(_)
        | TaskInput::Fetch(_)
        | TaskInput::Move(_) => Err(environment("a rehearsal does not play this task".into())),
    }
}

/// Spreads the steps of a task over its time.
struct Pace {
    begun: Instant,
    length: Duration,
}

impl Pace {
    /// Waits until `done` of `all` steps should be done.
    fn to(&self, done: usize, all: usize) {
        let part = self.length.mul_f64(done as f64 / all.max(1) as f64);
        std::thread::sleep(part.saturating_sub(self.begun.elapsed()));
    }

    fn to_end(&self) {
        self.to(1, 1);
    }
}

/// The files of a request.
struct Files<'a> {
    request: &'a ExecutorRequest,
    size: SectorSize,
}

impl Files<'_> {
    fn path(&self, kind: FileType) -> Result<&Path, ExecutorFailure> {
        let path = self.request.files.0.get(&kind).map(PathBuf::as_path);
        path.ok_or_else(|| environment(format!("the request names no {kind} file")))
    }

    fn sector(&self) -> SectorRef {
        self.request.sector
    }

    /// A file that was to be there with this length, or at least this one.
    fn expect(&self, path: &Path, least: u64) -> Result<(), ExecutorFailure> {
        match fs::metadata(path) {
            Ok(found) if found.len() >= least => Ok(()),
            Ok(found) => Err(bad(format!("{} has {} bytes; expected {least}", path.display(), found.len()))),
            Err(error) => Err(environment(format!("{}: {error}", path.display()))),
        }
    }

    fn expect_cache(&self, stage: Stage) -> Result<(), ExecutorFailure> {
        let dir = self.path(FileType::Cache)?;
        self.expect(self.path(FileType::Sealed)?, self.size.bytes())?;
        cache_files(self.size, stage)
            .iter()
            .try_for_each(|(name, bytes)| self.expect(&dir.join(name), *bytes))
    }
}

fn add_piece(files: &Files<'_>, piece: &AddPieceInput, pace: &Pace) -> Played {
    let path = files.path(FileType::Unsealed)?;
    let before: u64 = piece.existing.iter().map(|size| size.padded().get()).sum();
    let padded = UnpaddedPieceSize::padded(piece.size);
    let mut file = match piece.existing.is_empty() {
        true => {
            PartialFile::remove_leftover(path).map_err(|error| disk(path, error))?;
            PartialFile::create_sparse(path, files.size)
        }
        false => PartialFile::open(path, files.size),
    }
    .map_err(|error| environment(error.to_string()))?;
    pace.to_end();
    file.mark_allocated(before, padded.get()).map_err(|error| environment(error.to_string()))?;
    Ok(TaskOutput::AddPiece(PieceInfo { size: padded, cid: rehearsal::unsealed(files.sector().id) }))
}

fn pre_commit1(files: &Files<'_>, pace: &Pace) -> Result<(), ExecutorFailure> {
    files.expect(files.path(FileType::Unsealed)?, files.size.bytes())?;
    let (sealed, cache) = (files.path(FileType::Sealed)?, files.path(FileType::Cache)?);
    // As the real one does it: what an earlier run made is made anew.
    if cache.exists() {
        fs::remove_dir_all(cache).map_err(|error| disk(cache, error))?;
    }
    fs::create_dir(cache).map_err(|error| disk(cache, error))?;
    empty_file(sealed, files.size.bytes())?;
    let made = cache_files(files.size, Stage::Labelled);
    for (done, (name, bytes)) in made.iter().enumerate() {
        empty_file(&cache.join(name), *bytes)?;
        pace.to(done + 1, made.len());
    }
    sync_dir(cache)
}

fn pre_commit2(files: &Files<'_>, pace: &Pace) -> Result<(), ExecutorFailure> {
    files.expect_cache(Stage::Labelled)?;
    let cache = files.path(FileType::Cache)?;
    let labelled = cache_files(files.size, Stage::Labelled);
    let mut made = cache_files(files.size, Stage::Treed);
    made.retain(|file| !labelled.contains(file));
    for (done, (name, bytes)) in made.iter().enumerate() {
        let path = cache.join(name);
        match name.as_str() {
            "p_aux" | "t_aux" => marked_file(&path, *bytes)?,
            _ => empty_file(&path, *bytes)?,
        }
        pace.to(done + 1, made.len());
    }
    sync_dir(cache)
}

fn finalize(files: &Files<'_>) -> Result<(), ExecutorFailure> {
    let cache = files.path(FileType::Cache)?;
    files.expect(&cache.join("p_aux"), 64)?;
    let kept = cache_files(files.size, Stage::Cleared);
    for (name, _) in cache_files(files.size, Stage::Treed) {
        if kept.iter().any(|(keep, _)| *keep == name) {
            continue;
        }
        match fs::remove_file(cache.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(cache, error)),
            Ok(()) | Err(_) => {}
        }
    }
    sync_dir(cache)
}

fn release(files: &Files<'_>, keep: &[UnsealedRange]) -> Result<(), ExecutorFailure> {
    let path = files.path(FileType::Unsealed)?;
    let failed = |error: pieces::PartialFileError| environment(error.to_string());
    let mut file = PartialFile::open(path, files.size).map_err(failed)?;
    let mut from = 0;
    let mut kept: Vec<_> = keep.iter().map(padded).collect();
    kept.sort_unstable();
    for (start, end) in kept {
        if start > from {
            file.free(from..start).map_err(failed)?;
        }
        from = from.max(end);
    }
    file.free(from..files.size.bytes()).map_err(failed)
}

fn allocate(files: &Files<'_>, range: &UnsealedRange) -> Result<(), ExecutorFailure> {
    let path = files.path(FileType::Unsealed)?;
    let failed = |error: pieces::PartialFileError| environment(error.to_string());
    let mut file = match path.exists() {
        true => PartialFile::open(path, files.size).map_err(failed)?,
        false => PartialFile::create_sparse(path, files.size).map_err(failed)?,
    };
    let (start, end) = padded(range);
    file.mark_allocated(start, end - start).map_err(failed)
}

/// A range of unpadded bytes as padded ones, from its start to its end.
fn padded(range: &UnsealedRange) -> (u64, u64) {
    let pad = |bytes: u64| bytes.div_ceil(127).saturating_mul(128);
    let start = range.offset.get() / 127 * 128;
    (start, start.saturating_add(pad(range.size)))
}

/// A new file of this length that takes no room.
fn empty_file(path: &Path, bytes: u64) -> Result<(), ExecutorFailure> {
    let made = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    made.and_then(|file| file.set_len(bytes).and_then(|()| file.sync_all()))
        .map_err(|error| disk(path, error))
}

/// A short file that says what it is.
fn marked_file(path: &Path, bytes: u64) -> Result<(), ExecutorFailure> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(rehearsal::MARK)?;
        file.set_len(bytes.min(T_AUX))?;
        file.sync_all()
    };
    write().map_err(|error: io::Error| disk(path, error))
}

fn sync_dir(dir: &Path) -> Result<(), ExecutorFailure> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| disk(dir, error))
}

fn disk(path: &Path, error: io::Error) -> ExecutorFailure {
    let class = match error.kind() {
        io::ErrorKind::StorageFull => FailureClass::Space,
        _ => FailureClass::Environment,
    };
    ExecutorFailure { class, message: format!("{}: {error}", path.display()) }
}

fn environment(message: String) -> ExecutorFailure {
    ExecutorFailure { class: FailureClass::Environment, message }
}

fn bad(message: String) -> ExecutorFailure {
    ExecutorFailure { class: FailureClass::BadData, message }
}
