//! Proof parameters: what each sector size needs, what is there, where it comes from.
//!
//! Published parameters have fixed names, are listed with their digests in the proofs crates, and lie in the directory
//! that is shared with Lotus. Parameters that are generated here exist for the three test sizes only, come from one
//! published, insecure seed, and lie in a directory of their own. A proof made with one kind verifies only with the
//! verifying key of the same kind, so a directory is used as a whole or not at all.
//!
//! This module never mixes the two kinds and never overwrites a parameter file that it did not write.

mod digest;
pub mod fetch;
pub mod generate;
mod status;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sealtasks::SectorSize;
use storage_proofs_core::parameter_cache::{PARAMETERS, VERSION, parameter_cache_dir};

pub use digest::{DIGEST_DIGITS, DigestCache, digest_file};
pub use fetch::{FetchError, FetchEvent, FetchOptions, FetchProgress, fetch};
pub use generate::{GenerateError, GenerateProgress, Generated, Requirement, generate, requirement};
pub use status::{Check, FileState, FileStatus, Origin, status};

use crate::TaskError;

/// The variable that moves the shared directory; the libraries' own.
pub const SHARED_VARIABLE: &str = "FIL_PROOFS_PARAMETER_CACHE";
/// The variable that moves the directory of generated parameters.
pub const INSECURE_VARIABLE: &str = "SEALYARD_INSECURE_PARAMETERS";
/// Where the libraries look when nothing is set.
const SHARED_DEFAULT: &str = "/var/tmp/filecoin-proof-parameters";

/// What parameters are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Commit2: proving key and verifying key.
    Prove,
    /// Verification alone: the verifying key.
    Verify,
}

/// One published parameter file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamFile {
    /// Its file name.
    pub name: String,
    /// The first 32 hexadecimal digits of its BLAKE2b-512.
    pub digest: String,
    /// Its IPFS content id, which gateways serve it under.
    pub cid: String,
    /// Its length in bytes, where it is known without asking a gateway. The circuit fixes it, so published and
    /// generated files have the same; measured on generated ones.
    pub bytes: Option<u64>,
}

/// What sealing sectors of `size` needs, proving key first. Source: `parameters.json` of storage-proofs-core.
pub fn needed(size: SectorSize, purpose: Purpose) -> Vec<ParamFile> {
    let extensions: &[&str] = match purpose {
        Purpose::Prove => &["params", "vk"],
        Purpose::Verify => &["vk"],
    };
    let prefix = format!("v{VERSION}-stacked-proof-of-replication-");
    let with_extension = |extension: &&'static str| {
        PARAMETERS
            .iter()
            .filter(|(name, data)| name.starts_with(&prefix) && data.sector_size == size.bytes())
            .find(|(name, _)| name.rsplit_once('.').is_some_and(|(_, tail)| tail == *extension))
            .map(|(name, data)| ParamFile {
                name: name.clone(),
                digest: data.digest.clone(),
                cid: data.cid.clone(),
                bytes: known_length(size, extension),
            })
    };
    extensions.iter().filter_map(with_extension).collect()
}

/// Lengths measured on generated files.
const fn known_length(size: SectorSize, extension: &str) -> Option<u64> {
    match (size, extension.as_bytes()) {
        (SectorSize::KiB2, b"params") => Some(1_114_707_768),
        (SectorSize::MiB8, b"params") => Some(1_429_027_896),
        (SectorSize::KiB2 | SectorSize::MiB8, b"vk") => Some(4_708),
        _ => None,
    }
}

/// Where parameters may lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// The directory shared with Lotus and the proofs libraries.
    pub shared: PathBuf,
    /// The directory of generated parameters; `None` when neither `SEALYARD_INSECURE_PARAMETERS` nor `HOME` is set.
    pub insecure: Option<PathBuf>,
    /// Where known digests are remembered; `None` without `HOME`.
    pub digests: Option<PathBuf>,
}

/// What parameters of one size an executor can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The published ones, complete.
    Published(PathBuf),
    /// The generated ones, complete: for tests and private networks, worth nothing elsewhere.
    Insecure(PathBuf),
    /// None.
    Missing {
        /// Where the published ones would go.
        shared: PathBuf,
        /// The first published file that is missing or wrong.
        file: String,
    },
}

impl Choice {
    /// What an executor gets as `FIL_PROOFS_PARAMETER_CACHE`, when there is something to get.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Published(directory) | Self::Insecure(directory) => Some(directory),
            Self::Missing { .. } => None,
        }
    }
}

impl Directories {
    /// The directories that this process's environment names, else the defaults.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// The directories for an environment given as a function.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let own = variable("HOME").map(|home| Path::new(&home).join(".cache").join("sealyard"));
        Self {
            shared: variable(SHARED_VARIABLE).map_or_else(|| SHARED_DEFAULT.into(), PathBuf::from),
            insecure: variable(INSECURE_VARIABLE)
                .map(PathBuf::from)
                .or_else(|| own.as_ref().map(|own| own.join("insecure-parameters"))),
            digests: own.map(|own| own.join("parameter-digests.json")),
        }
    }

    /// Which directory an executor for `size` gets: the shared one if it is complete, else the insecure one if that is
    /// (test sizes only). Digests are computed once per file and remembered, so the first call may read every byte
    /// (about a second per GiB) and later ones none.
    pub fn choose(&self, size: SectorSize) -> Choice {
        let mut cache = self.digest_cache();
        let shared = status(&self.shared, size, Check::Digests(&mut cache));
        let wrong = shared.iter().find(|file| !file.state.is_right());
        let insecure = [Some(&self.shared), self.insecure.as_ref()].into_iter().flatten();
        let choice = match wrong {
            None => Choice::Published(self.shared.clone()),
            Some(wrong) => insecure
                .filter(|_| size.is_test_size())
                .find(|directory| generate::is_complete(directory, size, &mut cache))
                .map_or_else(
                    || Choice::Missing { shared: self.shared.clone(), file: wrong.file.name.clone() },
                    |directory| Choice::Insecure(directory.clone()),
                ),
        };
        cache.save();
        choice
    }

    /// The remembered digests.
    pub fn digest_cache(&self) -> DigestCache {
        DigestCache::open(self.digests.clone())
    }
}

/// The directory the libraries use in this process: `FIL_PROOFS_PARAMETER_CACHE` or their default.
pub fn directory() -> PathBuf {
    Directories::from_environment().shared
}

/// Which directory an executor for `size` gets as `FIL_PROOFS_PARAMETER_CACHE`; see [`Directories::choose`].
pub fn choose_directory(size: SectorSize) -> Choice {
    Directories::from_environment().choose(size)
}

/// An error unless the files are there in the directory that the libraries in this very process use. Only presence is
/// looked at: who sets the directory has checked it ([`choose_directory`]), and a proof is verified before it is used.
pub(crate) fn require(size: SectorSize, purpose: Purpose) -> Result<(), TaskError> {
    let directory = parameter_cache_dir();
    match needed(size, purpose).into_iter().find(|file| !directory.join(&file.name).is_file()) {
        None => Ok(()),
        Some(file) => Err(TaskError::Parameters { size, file: file.name, directory }),
    }
}

#[cfg(test)]
mod tests;
