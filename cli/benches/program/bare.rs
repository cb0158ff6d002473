//! A sector sealed up to Commit1 without a manager and without a worker: by calls of the proofs room in this process, or by
//! an executor's process for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use sealtasks::{
    AddPieceInput, Commit1Input, ExecutorReport, ExecutorRequest, FileType, PieceSource, PreCommit1Input,
    PreCommit2Input, RegisteredSealProof, SectorFiles, SectorId, SectorRef, SectorSize, Seed, TaskInput,
    TaskOutput, Ticket, UnpaddedPieceSize,
};

use crate::system::{ok, sealyard};

const TICKET: Ticket = Ticket([0x11; 32]);
const SEED: Seed = Seed([0x22; 32]);

/// Who does it.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// This process, which has done it before.
    Call,
    /// `sealyard exec`, a process for each task, with its request and its report.
    Executor,
}

/// Seals a sector of zeros in `dir`, which is made for it and removed; what each of the four stages took, in milliseconds.
pub(crate) fn seal(dir: &Path, size: SectorSize, by: By) -> [f64; 4] {
    fs::create_dir(dir).expect("a new directory");
    let proof = RegisteredSealProof::for_new_sector(size);
    let sector = SectorRef { id: SectorId::new(1000, 1), proof };
    let files = [FileType::Unsealed, FileType::Sealed, FileType::Cache];
    let files: BTreeMap<_, _> = files.into_iter().map(|kind| (kind, dir.join(kind.name()))).collect();
    let files = SectorFiles(files);
    let request = |work| {
        let version = ExecutorRequest::VERSION;
        ExecutorRequest { version, sector, work, files: files.clone() }
    };
    let run = |work| timed(dir, request(work), by);

    let whole = UnpaddedPieceSize::whole_sector(size);
    let piece = AddPieceInput { existing: Vec::new(), size: whole, source: PieceSource::Zeros };
    let (TaskOutput::AddPiece(piece), ap) = run(TaskInput::AddPiece(piece)) else { panic!("no piece") };
    let pieces = vec![piece];
    let labels = PreCommit1Input { ticket: TICKET, pieces: pieces.clone() };
    let (TaskOutput::PreCommit1(pc1), labelled) = run(TaskInput::PreCommit1(labels)) else {
        panic!("no labels")
    };
    let (TaskOutput::PreCommit2 { unsealed, sealed }, pc2) =
        run(TaskInput::PreCommit2(PreCommit2Input { pc1 }))
    else {
        panic!("no replica")
    };
    let proofs = Commit1Input { ticket: TICKET, seed: SEED, pieces, sealed, unsealed };
    let (TaskOutput::Commit1(_), c1) = run(TaskInput::Commit1(proofs)) else { panic!("no vanilla proofs") };
    fs::remove_dir_all(dir).expect("the sector goes");
    [ap, labelled, pc2, c1]
}

/// One task, and the milliseconds that it took.
fn timed(dir: &Path, request: ExecutorRequest, by: By) -> (TaskOutput, f64) {
    let millis = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
    match by {
        By::Call => {
            let begun = Instant::now();
            let output = proofs::execute(request, None).expect("it works");
            (output, millis(begun))
        }
        By::Executor => {
            let (input, output) = (dir.join("request.json"), dir.join("report.json"));
            let task = request.work.task_type().expect("a task").short().to_ascii_lowercase();
            let mut command = sealyard(dir);
            command.args(["exec", &task, "--input"]).arg(&input).arg("--output").arg(&output);
            let begun = Instant::now();
            fs::write(&input, serde_json::to_vec(&request).expect("JSON")).expect("a request");
            ok(&mut command);
            let report = serde_json::from_slice(&fs::read(&output).expect("a report")).expect("JSON");
            let took = millis(begun);
            let ExecutorReport::Done(output) = report else { panic!("{report:?}") };
            (output, took)
        }
    }
}
