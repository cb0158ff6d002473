//! What a fetch token allows, as a value. Never: signs, checks signatures or reads a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FileType, FileTypes, SectorId, StorageId, WorkerId};

/// One thing that can be done with a sector's file from afar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FetchVerb {
    /// Learn which file it is, its names and its lengths: what is asked before another copy is deleted.
    Look,
    /// Read it, or ask what of it there is.
    Get,
    /// Ask for its deletion, which is obeyed only while another primary copy exists.
    Delete,
    /// Remove every copy, the last one included: the decision is recorded already.
    Remove,
}

impl FetchVerb {
    /// `look`, `get`, `delete` or `remove`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
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

/// What one fetch token allows: these verbs, on these files of these sectors, to this worker, at whoever has this path
/// open, until then. Shown to anyone else it opens nothing there, nor at others when they show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchScope {
    /// The session it was issued to; it allows nothing once that worker is gone.
    pub worker: WorkerId,
    /// The storage path that it was issued for. A process that has not opened this path refuses it.
    pub path: StorageId,
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

    /// Whether `verb` is allowed on this file; who may get it may look at it. Says nothing of the time or the path.
    pub fn allows(&self, verb: FetchVerb, sector: SectorId, kind: FileType) -> bool {
        let named =
            self.verbs.contains(&verb) || (verb == FetchVerb::Look && self.verbs.contains(&FetchVerb::Get));
        named && self.types.contains(kind) && self.sectors.contains(&sector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_what_it_names_and_nothing_else() {
        let scope = FetchScope {
            worker: WorkerId::CLOSED,
            path: "a".parse().expect("an id"),
            sectors: vec![SectorId::new(1000, 1)],
            types: FileTypes::SEALED | FileTypes::CACHE,
            verbs: vec![FetchVerb::Get, FetchVerb::Delete],
            until_ms: 10,
        };
        let (ours, other) = (SectorId::new(1000, 1), SectorId::new(1000, 2));
        assert!(scope.allows(FetchVerb::Get, ours, FileType::Sealed));
        assert!(scope.allows(FetchVerb::Look, ours, FileType::Sealed), "less than to get it");
        let looks = FetchScope { verbs: vec![FetchVerb::Look], ..scope.clone() };
        assert!(!looks.allows(FetchVerb::Get, ours, FileType::Sealed), "more than to look");
        assert!(scope.allows(FetchVerb::Delete, ours, FileType::Cache));
        assert!(!scope.allows(FetchVerb::Remove, ours, FileType::Sealed), "another verb");
        assert!(!scope.allows(FetchVerb::Get, other, FileType::Sealed), "another sector");
        assert!(!scope.allows(FetchVerb::Get, ours, FileType::Unsealed), "another file");
        assert!(!scope.is_over(10) && scope.is_over(11));
    }
}
