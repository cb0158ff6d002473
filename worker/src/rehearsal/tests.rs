use std::os::unix::fs::MetadataExt as _;

use sealtasks::{
    AddPieceInput, C1Output, Commit2Input, FileType, PieceSource, PreCommit1Input, PreCommit2Input,
    RegisteredSealProof, SectorFiles, SectorId, SectorRef, SectorSize, Ticket, UnpaddedPieceSize, rehearsal,
};

use super::lengths::Stage;
use super::*;

/// Plays one task of a 32 GiB sector in `dir` at once, through the files of the seam.
fn play(dir: &Path, work: TaskInput) -> ExecutorReport {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
    let names = [
        (FileType::Unsealed, dir.join("unsealed")),
        (FileType::Sealed, dir.join("sealed")),
        (FileType::Cache, dir.join("cache")),
    ];
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector: SectorRef { id: SectorId::new(1000, 1), proof },
        work,
        files: SectorFiles(names.into()),
    };
    let (input, output) = (dir.join("request.json"), dir.join("report.json"));
    fs::write(&input, serde_json::to_vec(&request).unwrap()).unwrap();
    let none = || Err(io::Error::other("no stream"));
    let done = exec_files(&input, &output, none, |_| Duration::ZERO).unwrap();
    let report: ExecutorReport = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!(done, matches!(report, ExecutorReport::Done(_)));
    report
}

fn done(report: ExecutorReport) -> TaskOutput {
    match report {
        ExecutorReport::Done(output) => output,
        ExecutorReport::Failed(failure) => panic!("{failure}"),
    }
}

fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_32_gib_sector_is_played_with_true_lengths_and_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let size = SectorSize::GiB32;
    let whole = UnpaddedPieceSize::whole_sector(size);
    let zeros = AddPieceInput { existing: vec![], size: whole, source: PieceSource::Zeros };
    let TaskOutput::AddPiece(piece) = done(play(dir, TaskInput::AddPiece(zeros))) else { panic!("AP") };
    let unsealed = fs::metadata(dir.join("unsealed")).unwrap();
    assert!(unsealed.len() > size.bytes() && unsealed.len() < size.bytes() + 64, "with its trailer");

    let input = PreCommit1Input { ticket: Ticket([1; 32]), pieces: vec![piece] };
    let TaskOutput::PreCommit1(pc1) = done(play(dir, TaskInput::PreCommit1(input))) else { panic!("PC1") };
    assert_eq!(listing(&dir.join("cache")), cache_files(size, Stage::Labelled));
    let output = done(play(dir, TaskInput::PreCommit2(PreCommit2Input { pc1 })));
    assert!(matches!(output, TaskOutput::PreCommit2 { unsealed, .. } if unsealed == piece.cid));
    let files = listing(&dir.join("cache"));
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    // Lotus's tables have 14.1 times the sector's size for such a cache.
    assert!((bytes as f64 / size.bytes() as f64 - 14.14).abs() < 0.05, "{bytes}: {files:?}");
    assert!(files.contains(&("sc-02-data-tree-r-last-7.dat".to_owned(), 9_586_976)), "{files:?}");

    done(play(dir, TaskInput::Finalize(sealtasks::FinalizeInput {})));
    assert_eq!(listing(&dir.join("cache")), cache_files(size, Stage::Cleared));
    let used: u64 =
        ["unsealed", "sealed"].iter().map(|name| fs::metadata(dir.join(name)).unwrap().blocks()).sum();
    assert!(used * 512 < 1 << 20, "{used} blocks");
}

#[test]
fn real_results_and_made_up_commitments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |work| match play(dir.path(), work) {
        ExecutorReport::Failed(failure) => failure.message,
        ExecutorReport::Done(output) => panic!("{output:?}"),
    };
    let pc1 = sealtasks::Pc1Output(b"{\"registered_proof\":1}".to_vec());
    let told = refused(TaskInput::PreCommit2(PreCommit2Input { pc1 }));
    assert!(told.contains("real one"), "{told}");
    let told = refused(TaskInput::Commit2(Commit2Input { c1: C1Output(b"{}".to_vec()) }));
    assert!(told.contains("real one"), "{told}");
    let size = UnpaddedPieceSize::whole_sector(SectorSize::KiB2);
    let told = refused(TaskInput::DataCid(sealtasks::DataCidInput { size, source: PieceSource::Zeros }));
    assert!(told.contains("does not play"), "{told}");
    // Nothing was labelled.
    let told = refused(TaskInput::PreCommit2(PreCommit2Input { pc1: rehearsal::pc1(&[]) }));
    assert!(told.contains("sealed"), "{told}");
}
