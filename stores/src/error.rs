//! What can go wrong with stores: one enum, each variant with a stable code and a class that decides what follows.

use std::io;
use std::path::{Path, PathBuf};

use sealtasks::{CallErrorCode, FailureClass, FileType, FileTypes, IdError, PathType, SectorId, StorageId};

use crate::index::IndexError;

/// A failed operation on stores. [`StoreError::code`] is stable; the text may change.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried, for example `read`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A JSON file that is not JSON, or not of the right shape.
    #[error(
        "{path:?} is damaged: not the JSON it should be; restore it from a copy, nothing else was touched"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// A field of `sectorstore.json` whose value cannot be used.
    #[error("{path:?}: {field} is {value:?}; expected {expected}")]
    MetaField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value, cut to 256 characters.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `sectorstore.json` exists already.
    #[error("{path:?} is already initialized; attach it without --init")]
    AlreadyInitialized {
        /// The storage path.
        path: PathBuf,
    },
    /// A rehearsal's path that is opened for real sectors, or the other way round.
    #[error(
        "{path:?} {}", if *.rehearses {
            "holds real sector files, or may; a rehearsal needs a path without any"
        } else {
            "is marked REHEARSAL: its sector files are empty; real sectors need another path"
        }
    )]
    OtherWorld {
        /// The storage path.
        path: PathBuf,
        /// Whether it was opened for a rehearsal.
        rehearses: bool,
    },
    /// Two paths claim one id.
    #[error("{path:?} has the id {id} of the open path {open:?}; give one of them another ID or detach it")]
    DuplicateId {
        /// The id.
        id: StorageId,
        /// The path that has it already.
        open: PathBuf,
        /// The path that was to be opened.
        path: PathBuf,
    },
    /// The path with this id is not open in this process.
    #[error("storage path {id} is not open here")]
    NotOpen {
        /// The id.
        id: StorageId,
    },
    /// No open path has this directory.
    #[error("{path:?} is not an open storage path")]
    NotAttached {
        /// The directory as given.
        path: PathBuf,
    },
    /// The same type was to be both found and allocated.
    #[error("{types} of {sector} cannot be both existing and allocated")]
    Overlap {
        /// The sector.
        sector: SectorId,
        /// The types in both sets.
        types: FileTypes,
    },
    /// No path that is open here takes this file.
    #[error(
        "no {path_type} path here takes the {kind} file of {sector}: none has the space, or their type and miner filters exclude it"
    )]
    NoPath {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// What the path was wanted for.
        path_type: PathType,
    },
    /// A path that was named does not take this file.
    #[error(
        "{path:?} ({id}) takes no {kind} file of {sector}: it is for neither sealing nor storing, or its type and miner \
         filters exclude it"
    )]
    Unsuited {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// The path's id.
        id: StorageId,
        /// Its directory.
        path: PathBuf,
    },
    /// A path has too little room.
    #[error("{sector} needs {need} more bytes on {path:?} ({detail}); available are {available}")]
    NoSpace {
        /// The sector.
        sector: SectorId,
        /// The path.
        path: PathBuf,
        /// Bytes wanted beyond what is on disk already.
        need: u64,
        /// Bytes free after reservations and within the path's limit.
        available: u64,
        /// The need per file type.
        detail: String,
    },
    /// No copy is known.
    #[error("no copy of the {kind} file of {sector} is known")]
    NotFound {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
    },
    /// Deleting would lose the last primary copy.
    #[error("the {kind} file of {sector} is kept: {why}")]
    LastCopy {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// Which check failed.
        why: String,
    },
    /// Every holder and every URL was tried.
    #[error("cannot fetch the {kind} file of {sector} from any of {tried} places")]
    FetchFailed {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// How many URLs were tried.
        tried: usize,
        /// The last failure.
        source: Box<StoreError>,
    },
    /// A peer answered something else than was asked for.
    #[error("{url} answered {status}: {text}")]
    PeerAnswer {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, or what is wrong with the answer.
        text: String,
    },
    /// A peer could not be reached, hung up or fell silent.
    #[error("transfer with {url} failed")]
    Transport {
        /// The URL.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A URL that cannot be dialled.
    #[error("{url:?} is no usable peer URL; expected http://host:port/remote or https://host:port/remote")]
    Url {
        /// The URL as given.
        url: String,
    },
    /// A file arrived with the wrong number of bytes.
    #[error("the {kind} file of {sector} has {got} bytes; expected {expected}")]
    Length {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// Bytes there are.
        got: u64,
        /// What would be right.
        expected: String,
    },
    /// A directory stream or its manifest was refused.
    #[error("directory stream refused: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// A path did not answer in time.
    #[error("storage path {path:?} did not answer within {seconds} s; is its mount hanging?")]
    Hangs {
        /// The path.
        path: PathBuf,
        /// The bound.
        seconds: u64,
    },
    /// A deletion has set the file aside and has not decided yet whether it is the one that is meant.
    #[error(
        "the {kind} file of {sector} at {path:?} is being looked at by another deletion; ask again when that is done"
    )]
    Doubted {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// Its place.
        path: PathBuf,
    },
    /// Another process fetches the same file into the same path.
    #[error(
        "the {kind} file of {sector} is being fetched into {path:?} by another process; try again when it is done"
    )]
    Arriving {
        /// The sector.
        sector: SectorId,
        /// The file.
        kind: FileType,
        /// Where it arrives.
        path: PathBuf,
    },
    /// The source was written while it was fetched.
    #[error("the file at {url} changed while it was fetched")]
    Changed {
        /// Where it was fetched from.
        url: String,
    },
    /// A block's hash is not the one that was announced.
    #[error("a block from {url} arrived damaged")]
    Corrupt {
        /// Where it was fetched from.
        url: String,
    },
    /// A copy within this machine does not read back as it was written. The source is kept.
    #[error(
        "{to:?} is not what was read of {from:?}: the disk or the memory is faulty; the original is kept"
    )]
    Miscopied {
        /// The original.
        from: PathBuf,
        /// The copy's file.
        to: PathBuf,
    },
    /// The index refused or could not be reached.
    #[error("the sector index refused or was not reached")]
    Index(#[from] IndexError),
    /// An id that is none.
    #[error("bad storage path id")]
    Id(#[from] IdError),
    /// Raw bytes that are not there to be read.
    #[error("bytes {start} to {end} of {sector} were asked for; there are {whole}")]
    OutsideSector {
        /// The sector.
        sector: SectorId,
        /// First raw byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// How many there are in the sector, or in the piece that is read.
        whole: u64,
    },
    /// A background thread ended without an answer: a defect of ours.
    #[error("{what} ended without a result")]
    Lost {
        /// What it was doing.
        what: &'static str,
    },
}

impl StoreError {
    /// The stable code, for documentation and scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "STO001",
            Self::Json { .. } => "STO002",
            Self::MetaField { .. } => "STO003",
            Self::AlreadyInitialized { .. } => "STO004",
            Self::DuplicateId { .. } => "STO005",
            Self::NotOpen { .. } => "STO006",
            Self::NotAttached { .. } => "STO007",
            Self::Overlap { .. } => "STO008",
            Self::NoPath { .. } => "STO009",
            Self::NoSpace { .. } => "STO010",
            Self::NotFound { .. } => "STO011",
            Self::LastCopy { .. } => "STO012",
            Self::FetchFailed { .. } => "STO013",
            Self::PeerAnswer { .. } => "STO014",
            Self::Transport { .. } => "STO015",
            Self::Url { .. } => "STO016",
            Self::Length { .. } => "STO017",
            Self::Archive { .. } => "STO018",
            Self::Hangs { .. } => "STO019",
            Self::Index(_) => "STO020",
            Self::Id(_) => "STO021",
            Self::Lost { .. } => "STO022",
            Self::Arriving { .. } => "STO023",
            Self::Changed { .. } => "STO024",
            Self::Corrupt { .. } => "STO025",
            Self::Miscopied { .. } => "STO026",
            Self::OutsideSector { .. } => "STO030",
            Self::Unsuited { .. } => "STO031",
            Self::OtherWorld { .. } => "STO032",
            Self::Doubted { .. } => "STO033",
        }
    }

    /// What kind of failure this is, for retry budgets.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoPath { .. } | Self::NoSpace { .. } => FailureClass::Space,
            Self::FetchFailed { source, .. } => source.class(),
            Self::PeerAnswer { .. }
            | Self::Transport { .. }
            | Self::Index(_)
            | Self::Arriving { .. }
            | Self::Doubted { .. }
            | Self::Changed { .. } => FailureClass::Network,
            Self::Length { .. }
            | Self::Archive { .. }
            | Self::Corrupt { .. }
            | Self::OutsideSector { .. } => FailureClass::BadData,
            Self::Io { source, .. } if crate::disk::is_full(source) => FailureClass::Space,
            Self::Io { .. }
            | Self::Json { .. }
            | Self::MetaField { .. }
            | Self::AlreadyInitialized { .. }
            | Self::DuplicateId { .. }
            | Self::NotOpen { .. }
            | Self::NotAttached { .. }
            | Self::Overlap { .. }
            | Self::NotFound { .. }
            | Self::LastCopy { .. }
            | Self::Unsuited { .. }
            | Self::Url { .. }
            | Self::Miscopied { .. }
            | Self::Hangs { .. }
            | Self::Id(_)
            | Self::OtherWorld { .. }
            | Self::Lost { .. } => FailureClass::Environment,
        }
    }

    /// The code that travels in a call's error: 102 when room was missing, else 0.
    pub fn call_code(&self) -> CallErrorCode {
        match self.class() {
            FailureClass::Space => CallErrorCode::TempAllocateSpace,
            FailureClass::Environment
            | FailureClass::Network
            | FailureClass::Compute
            | FailureClass::BadData
            | FailureClass::Aborted => CallErrorCode::Unknown,
        }
    }

    /// An operating system failure of `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
