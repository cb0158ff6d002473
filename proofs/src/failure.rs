//! Why a task gave no result, and which class each reason belongs to.

pub(crate) use sealtasks::chain;
use std::io;
use std::path::PathBuf;

use sealtasks::{ExecutorFailure, FailureClass, FileType, SectorSize};

/// A task that gave no result. [`TaskError::class`] decides what happens to the sector.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Fetch and Move.
    #[error(
        "{task} has no executor: the worker's storage does it; expected DC, AP, PC1, PC2, C1, C2, FIN, FUS, UNS or VERIFY"
    )]
    NoExecutor {
        /// The task's short code.
        task: &'static str,
    },
    /// The request lacks a path.
    #[error("{task} needs the {kind} file, but the request's `files` does not name it")]
    FileNotNamed {
        /// The task's short code.
        task: &'static str,
        /// What is missing from `files`.
        kind: FileType,
    },
    /// A path that is not absolute.
    #[error("`files.{kind}` is {}, which is not an absolute path", path.display())]
    FileNotAbsolute {
        /// Which entry.
        kind: FileType,
        /// The path as given.
        path: PathBuf,
    },
    /// A file that should lie there does not.
    #[error("{task} needs the {kind} file at {}, and nothing is there", path.display())]
    FileMissing {
        /// The task's short code.
        task: &'static str,
        /// Which file.
        kind: FileType,
        /// Where it should be.
        path: PathBuf,
    },
    /// The source is a stream and nobody sent one.
    #[error("{task} takes its bytes from a stream, but none was given on file descriptor 3")]
    NoStream {
        /// The task's short code.
        task: &'static str,
    },
    /// The pieces do not add up to the sector.
    #[error(
        "the pieces hold {pieces} bytes unpadded, but a {size} sector holds {sector}; every byte must belong to a piece"
    )]
    PieceSum {
        /// Sum of the pieces, unpadded bytes; saturated at the largest u64.
        pieces: u64,
        /// Unpadded bytes of the sector.
        sector: u64,
        /// The sector's size.
        size: SectorSize,
    },
    /// A field of the input that cannot be right.
    #[error("{field} {problem}")]
    Input {
        /// The field's name in the request.
        field: &'static str,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// Proof parameters that are not there.
    #[error(
        "proof parameters for {size} sectors are incomplete: {} is not in {}; run `sealyard params fetch {size}`{}",
        file, directory.display(),
        if size.is_test_size() { " (or `sealyard params generate` in its place)" } else { "" }
    )]
    Parameters {
        /// The sector size they are for.
        size: SectorSize,
        /// The first file that is missing.
        file: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Files of a stored sector that are not what they should be.
    #[error("{faults}")]
    Faulty {
        /// Which, and what is wrong with each, with semicolons between them.
        faults: String,
    },
    /// The settings in force cannot be served by this program.
    #[error(transparent)]
    Settings(#[from] crate::settings::SettingError),
    /// Reading or writing a file.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing or reading piece data.
    #[error("{doing}: {message}")]
    Pieces {
        /// What was being done.
        doing: &'static str,
        /// The chain of causes.
        message: String,
        /// The class, from the cause.
        class: FailureClass,
    },
    /// The proofs library returned an error.
    #[error("{doing}: {message}")]
    Library {
        /// What was being done.
        doing: &'static str,
        /// The library's chain of causes, outermost first.
        message: String,
        /// The class, from the cause.
        class: FailureClass,
    },
    /// The proofs library panicked.
    #[error("{doing}: the proofs library panicked: {message}")]
    Panic {
        /// What was being done.
        doing: &'static str,
        /// The panic's text.
        message: String,
    },
}

impl TaskError {
    /// The class that decides which budget of retries the failure takes from. [`FailureClass::BadData`] is given only
    /// where the input is proven bad; when in doubt the computation failed.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoExecutor { .. }
            | Self::FileNotNamed { .. }
            | Self::FileNotAbsolute { .. }
            | Self::FileMissing { .. }
            | Self::NoStream { .. }
            | Self::Parameters { .. }
            | Self::Settings(_) => FailureClass::Environment,
            Self::PieceSum { .. } | Self::Input { .. } | Self::Faulty { .. } => FailureClass::BadData,
            Self::Io { source, .. } => class_of_io(source),
            Self::Pieces { class, .. } | Self::Library { class, .. } => *class,
            Self::Panic { .. } => FailureClass::Compute,
        }
    }

    /// An error of the proofs library, classified.
    pub(crate) fn library(doing: &'static str, error: &anyhow::Error) -> Self {
        Self::Library { doing, message: format!("{error:#}"), class: class_of_library(error) }
    }
}

impl From<TaskError> for ExecutorFailure {
    fn from(error: TaskError) -> Self {
        Self { class: error.class(), message: chain(&error) }
    }
}

/// What the library says when the input is proven bad. It has no typed errors for these; the tests of this room fail
/// when a new version words them otherwise.
const PROVEN_BAD: [&str; 4] = [
    "pieces and comm_d do not match",
    "Invalid vanilla proof generated",
    "Invalid all zero commitment",
    "Piece is larger than sector",
];

/// What the library says when parameters are missing.
const PARAMETERS_MISSING: [&str; 2] = ["No cached parameters found", "No cached srs key found"];

fn class_of_library(error: &anyhow::Error) -> FailureClass {
    for cause in error.chain() {
        if let Some(class) = cause.downcast_ref::<io::Error>().and_then(space_shortage) {
            return class;
        }
        let text = cause.to_string();
        if PROVEN_BAD.iter().any(|known| text.contains(known)) {
            return FailureClass::BadData;
        }
        if PARAMETERS_MISSING.iter().any(|known| text.contains(known)) {
            return FailureClass::Environment;
        }
    }
    FailureClass::Compute
}

/// The class of a system error: a shortage of space, or something about this machine.
pub(crate) fn class_of_io(error: &io::Error) -> FailureClass {
    space_shortage(error).unwrap_or(FailureClass::Environment)
}

fn space_shortage(error: &io::Error) -> Option<FailureClass> {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge).then_some(FailureClass::Space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_anywhere_in_the_chain_is_a_lack_of_space() {
        let full = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull))
            .context("could not write layer 1");
        let error = TaskError::library("PC1", &full);
        assert_eq!(error.class(), FailureClass::Space);
        assert!(error.to_string().starts_with("PC1: could not write layer 1: "), "{error}");
    }

    #[test]
    fn an_unknown_library_error_is_a_failed_computation() {
        assert_eq!(TaskError::library("C2", &anyhow::anyhow!("odd")).class(), FailureClass::Compute);
    }

    #[test]
    fn missing_parameters_name_the_command() {
        let error = TaskError::Parameters {
            size: SectorSize::GiB32,
            file: "v28-a.params".into(),
            directory: "/p".into(),
        };
        assert_eq!(error.class(), FailureClass::Environment);
        assert_eq!(
            error.to_string(),
            "proof parameters for 32GiB sectors are incomplete: v28-a.params is not in /p; \
             run `sealyard params fetch 32GiB`"
        );
    }
}
