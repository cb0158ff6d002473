//! What a fetch token allows, as a value. Never: signs, checks signatures or reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FileType, FileTypes, SectorId, WorkerId};

/// One thing that can be done with a sector's file from afar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FetchVerb {
    /// Read it, or ask what of it there is.
    Get,
    /// Ask for its deletion, which is obeyed only while another primary copy exists.
    Delete,
    /// Remove every copy, the last one included: the decision is recorded already.
    Remove,
}

impl FetchVerb {
    /// `get`, `delete` or `remove`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for FetchVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one fetch token allows: these verbs, on these files of these sectors, to this worker, until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchScope {
    /// The session it was issued to; it allows nothing once that worker is gone.
    pub worker: WorkerId,
    /// The sectors.
    pub sectors: Vec<SectorId>,
    /// Which of their files.
    pub types: FileTypes,
    /// What may be done with them.
    pub verbs: Vec<FetchVerb>,
    /// The last moment at which it allows anything, in Unix milliseconds.
    pub until_ms: u64,
}

impl FetchScope {
    /// Whether it is too late for this token.
    pub const fn is_over(&self, now_ms: u64) -> bool {
        now_ms > self.until_ms
    }

    /// Whether `verb` is allowed on this file. Says nothing of the time.
    pub fn allows(&self, verb: FetchVerb, sector: SectorId, kind: FileType) -> bool {
        self.verbs.contains(&verb) && self.types.contains(kind) && self.sectors.contains(&sector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_what_it_names_and_nothing_else() {
        let scope = FetchScope {
            worker: WorkerId::CLOSED,
            sectors: vec![SectorId::new(1000, 1)],
            types: FileTypes::SEALED | FileTypes::CACHE,
            verbs: vec![FetchVerb::Get, FetchVerb::Delete],
            until_ms: 10,
        };
        let (ours, other) = (SectorId::new(1000, 1), SectorId::new(1000, 2));
        assert!(scope.allows(FetchVerb::Get, ours, FileType::Sealed));
        assert!(scope.allows(FetchVerb::Delete, ours, FileType::Cache));
        assert!(!scope.allows(FetchVerb::Remove, ours, FileType::Sealed), "another verb");
        assert!(!scope.allows(FetchVerb::Get, other, FileType::Sealed), "another sector");
        assert!(!scope.allows(FetchVerb::Get, ours, FileType::Unsealed), "another file");
        assert!(!scope.is_over(10) && scope.is_over(11));
    }
}
