//! A sector in a temporary directory, driven through `execute` and, beside it, through the bare library.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use filecoin_proofs_api::seal as library;
use filecoin_proofs_api::{PieceInfo as LibraryPiece, UnpaddedBytesAmount};
use proofs::{execute, to_library};
use sealtasks::{
    AddPieceInput, Commit1Input, ExecutorFailure, ExecutorRequest, FileType, Pc1Output, PieceInfo,
    PieceSource, PreCommit1Input, PreCommit2Input, ProverId, RegisteredSealProof, SealedCid, SectorFiles,
    SectorId, SectorRef, SectorSize, Seed, TaskInput, TaskOutput, Ticket, UnpaddedPieceSize, UnsealedCid,
};

/// The sealing randomness of every test.
pub const TICKET: Ticket = Ticket([0x11; 32]);
/// The interactive randomness of every test.
pub const SEED: Seed = Seed([0x22; 32]);

/// A 2 KiB sector of f0`miner` with the newest interactive proof.
pub fn sector(miner: u64, number: u64) -> SectorRef {
    SectorRef {
        id: SectorId::new(miner, number),
        proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2),
    }
}

/// Bytes that look random and are the same every time.
pub fn noise(length: u64, salt: u64) -> Vec<u8> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A raw piece size.
pub fn unpadded(bytes: u64) -> UnpaddedPieceSize {
    UnpaddedPieceSize::try_from(bytes).expect("a piece size")
}

/// One piece's content.
#[derive(Clone)]
pub enum Content {
    /// All zeros.
    Zeros(u64),
    /// These bytes, sent as a stream.
    Bytes(Vec<u8>),
}

impl Content {
    /// Its raw bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Zeros(length) => vec![0; usize::try_from(*length).expect("small")],
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A sector's files.
pub struct World {
    root: tempfile::TempDir,
    /// The sector.
    pub sector: SectorRef,
}

/// What sealing up to PC2 gave.
pub struct Sealed {
    pub pieces: Vec<PieceInfo>,
    pub pc1: Pc1Output,
    pub unsealed: UnsealedCid,
    pub sealed: SealedCid,
}

impl World {
    pub fn new(sector: SectorRef) -> Self {
        Self { root: tempfile::tempdir().expect("a temporary directory"), sector }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn path(&self, kind: FileType) -> PathBuf {
        self.root().join(kind.name())
    }

    pub fn request(&self, work: TaskInput) -> ExecutorRequest {
        let files = [FileType::Unsealed, FileType::Sealed, FileType::Cache];
        let files: BTreeMap<_, _> = files.into_iter().map(|kind| (kind, self.path(kind))).collect();
        let version = ExecutorRequest::VERSION;
        ExecutorRequest { version, sector: self.sector, work, files: SectorFiles(files) }
    }

    pub fn run(&self, work: TaskInput) -> Result<TaskOutput, ExecutorFailure> {
        execute(self.request(work), None)
    }

    /// A file with `bytes`, read from its start: what a piece stream is to an executor.
    pub fn stream(&self, bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile_in(self.root()).expect("a temporary file");
        file.write_all(bytes).expect("written");
        file.rewind().expect("seekable");
        file
    }

    pub fn add_piece(
        &self,
        existing: &[UnpaddedPieceSize],
        content: &Content,
    ) -> Result<PieceInfo, ExecutorFailure> {
        let (size, source, stream) = match content {
            Content::Zeros(length) => (*length, PieceSource::Zeros, None),
            Content::Bytes(bytes) => (bytes.len() as u64, PieceSource::Stream, Some(self.stream(bytes))),
        };
        let input = AddPieceInput { existing: existing.to_vec(), size: unpadded(size), source };
        match execute(self.request(TaskInput::AddPiece(input)), stream)? {
            TaskOutput::AddPiece(piece) => Ok(piece),
            other => panic!("AddPiece gave {other:?}"),
        }
    }

    /// All of `contents`, one behind the other.
    pub fn add_pieces(&self, contents: &[Content]) -> Vec<PieceInfo> {
        let mut existing = Vec::new();
        let add = |content| {
            let piece = self.add_piece(&existing, content).expect("the piece fits");
            existing.push(piece.size.unpadded());
            piece
        };
        contents.iter().map(add).collect()
    }

    pub fn pre_commit1(&self, pieces: &[PieceInfo]) -> Result<Pc1Output, ExecutorFailure> {
        let input = PreCommit1Input { ticket: TICKET, pieces: pieces.to_vec() };
        match self.run(TaskInput::PreCommit1(input))? {
            TaskOutput::PreCommit1(output) => Ok(output),
            other => panic!("PC1 gave {other:?}"),
        }
    }

    /// AddPiece to PreCommit2.
    pub fn seal(&self, contents: &[Content]) -> Sealed {
        let pieces = self.add_pieces(contents);
        let pc1 = self.pre_commit1(&pieces).expect("PC1");
        let input = PreCommit2Input { pc1: pc1.clone() };
        match self.run(TaskInput::PreCommit2(input)).expect("PC2") {
            TaskOutput::PreCommit2 { unsealed, sealed } => Sealed { pieces, pc1, unsealed, sealed },
            other => panic!("PC2 gave {other:?}"),
        }
    }

    pub fn commit1_input(&self, sealed: &Sealed) -> Commit1Input {
        Commit1Input {
            ticket: TICKET,
            seed: SEED,
            pieces: sealed.pieces.clone(),
            sealed: sealed.sealed,
            unsealed: sealed.unsealed,
        }
    }
}

/// What the bare library makes of the same data.
pub struct Bare {
    pub pc1: library::SealPreCommitPhase1Output,
    pub pc2: library::SealPreCommitPhase2Output,
    pub c1: library::SealCommitPhase1Output,
    pub pieces: Vec<LibraryPiece>,
    pub unsealed: Vec<u8>,
}

/// Seals with bare filecoin-proofs-api calls in `root`, which must not be the world's own directory.
pub fn bare(root: &Path, sector: SectorRef, contents: &[Content]) -> Bare {
    let proof = to_library(sector.proof);
    let prover = *ProverId::from(sector.id.miner).bytes();
    let number = sector.id.number.get().into();
    let [unsealed, sealed, cache] = ["unsealed", "sealed", "cache"].map(|name| root.join(name));
    std::fs::create_dir_all(&cache).expect("a directory");
    File::create(&sealed).expect("a file");
    let (pieces, data) = bare_pieces(&unsealed, sector, contents);
    let pc1 =
        library::seal_pre_commit_phase1(proof, &cache, &unsealed, &sealed, prover, number, TICKET.0, &pieces)
            .expect("bare PC1");
    let pc2 = library::seal_pre_commit_phase2(pc1.clone(), &cache, &sealed).expect("bare PC2");
    let c1 =
        library::seal_commit_phase1(&cache, &sealed, prover, number, TICKET.0, SEED.0, pc2.clone(), &pieces)
            .expect("bare C1");
    Bare { pc1, pc2, c1, pieces, unsealed: data }
}

/// The library's own AddPiece, which writes the staged sector without a trailer.
pub fn bare_pieces(path: &Path, sector: SectorRef, contents: &[Content]) -> (Vec<LibraryPiece>, Vec<u8>) {
    let options =
        || File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a file");
    let mut lengths = Vec::new();
    let mut pieces = Vec::new();
    for content in contents {
        let bytes = content.bytes();
        let mut target = options();
        target.seek(std::io::SeekFrom::End(0)).expect("seekable");
        let size = UnpaddedBytesAmount(bytes.len() as u64);
        let (piece, _) =
            library::add_piece(to_library(sector.proof), bytes.as_slice(), target, size, &lengths)
                .expect("bare AddPiece");
        lengths.push(size);
        pieces.push(piece);
    }
    let mut data = Vec::new();
    options().read_to_end(&mut data).expect("readable");
    (pieces, data)
}
