//! Protocol versions: which numbers we answer, which peers we accept, and how Sealyards introduce themselves.

use std::fmt;

use sealtasks::Reign;

use crate::extension::Hello;

/// What a manager answers to `Version`: Lotus's miner API 1.5.0. A Lotus worker accepts exactly this number.
pub const MANAGER_VERSION: u32 = 0x01_05_00;
/// What a worker answers to `Version`: Lotus's worker API 1.7.0. A Lotus miner compares major and minor.
pub const WORKER_VERSION: u32 = 0x01_07_00;
/// The version of the `Sealyard.*` methods spoken here.
pub const EXTENSION_VERSION: u32 = 1;

/// In the [`Hello`] of a manager and of a worker of rehearsals, whose sectors are empty. One that says so never works with
/// one that does not.
const REHEARSAL: &str = "rehearsal";

/// Abilities that a Sealyard names in its [`Hello`]; a peer uses only those it finds there.
pub const FEATURES: [&str; 5] = ["abort", "declare-batch", PLANS, "push-state", "start-attempt"];

/// The feature of a manager that sends a worker only sectors that its plans take.
pub const PLANS: &str = "plans";

impl Hello {
    /// How this build introduces itself; `software` is for people, for example `sealyard 0.1.0`.
    pub fn of_this_build(software: impl Into<String>) -> Self {
        Self {
            software: software.into(),
            versions: vec![EXTENSION_VERSION],
            features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
            reign: None,
        }
    }

    /// The same of a manager of this reign, or of a worker that serves it.
    #[must_use]
    pub fn of_reign(self, reign: Option<Reign>) -> Self {
        Self { reign, ..self }
    }

    /// The same of a manager or worker of rehearsals.
    pub fn rehearsing(mut self, rehearses: bool) -> Self {
        if rehearses {
            self.features.insert(REHEARSAL.to_owned());
        }
        self
    }

    /// Whether it introduces a manager or a worker of rehearsals.
    pub fn rehearses(&self) -> bool {
        self.features.contains(REHEARSAL)
    }

    /// The highest extension version that both sides speak.
    pub fn common_version(&self, other: &Self) -> Option<u32> {
        self.versions.iter().copied().filter(|version| other.versions.contains(version)).max()
    }
}

/// Refuses a manager whose API is not exactly [`MANAGER_VERSION`].
///
/// # Errors
/// Any other number.
pub fn check_manager(version: u32) -> Result<(), VersionError> {
    if version == MANAGER_VERSION {
        return Ok(());
    }
    Err(VersionError::Manager { found: Version(version), expected: Version(MANAGER_VERSION) })
}

/// Refuses a worker whose API differs from [`WORKER_VERSION`] in major or minor.
///
/// # Errors
/// Any other major or minor.
pub fn check_worker(version: u32) -> Result<(), VersionError> {
    if version >> 8 == WORKER_VERSION >> 8 {
        return Ok(());
    }
    Err(VersionError::Worker { found: Version(version), expected: Version(WORKER_VERSION) })
}

/// A protocol version as Lotus packs it: `major << 16 | minor << 8 | patch`. Shown as `1.5.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 16, self.0 >> 8 & 0xff, self.0 & 0xff)
    }
}

/// A peer of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The manager's API is not ours.
    #[error("the manager speaks API {found}, this worker {expected}; run the same release on both")]
    Manager {
        /// What it said.
        found: Version,
        /// What would be right.
        expected: Version,
    },
    /// The worker's API is not ours.
    #[error(
        "the worker speaks API {found}, this manager {expected} (the last part may differ); run the same release on both"
    )]
    Worker {
        /// What it said.
        found: Version,
        /// What would be right.
        expected: Version,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_lotus_s() {
        assert_eq!((MANAGER_VERSION, WORKER_VERSION), (66816, 67328));
    }

    #[test]
    fn managers_are_checked_exactly_and_workers_by_major_and_minor() {
        assert!(check_manager(66816).is_ok());
        for other in [66815, 66817, 67328, 0, u32::MAX] {
            let error = check_manager(other).expect_err("another manager version").to_string();
            assert!(error.contains(&Version(other).to_string()) && error.contains("1.5.0"), "{error}");
        }
        for same in [0x01_07_00, 0x01_07_01, 0x01_07_ff] {
            assert!(check_worker(same).is_ok());
        }
        for other in [0x01_06_00, 0x01_06_ff, 0x01_08_00, 0x02_07_00, 0x00_07_00] {
            let error = check_worker(other).expect_err("another worker version").to_string();
            assert!(error.contains(&Version(other).to_string()) && error.contains("1.7.0"), "{error}");
        }
    }

    #[test]
    fn the_highest_common_extension_version_is_used() {
        let ours = Hello::of_this_build("sealyard 0.1.0");
        assert_eq!(ours.common_version(&Hello { versions: vec![1, 2], ..Hello::default() }), Some(1));
        assert_eq!(ours.common_version(&Hello::default()), None);
    }
}
