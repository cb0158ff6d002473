//! What each sealing stage asks for: its files, locks and room, as the manager asks for them (Lotus's table of prepare
//! steps and locks). One place, so that every simulation asks for the same.

use sealtasks::{AcquireMode, FileType, FileTypes, PathType, SectorRef, SpaceTable, StorageId, TaskType};

use crate::{Allocate, Existing, ExistingRule, HeldFile, Locks, Millis, Needs, NewFile, Request};

/// A stage of a sector's life that the scheduler places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SealStage {
    /// Writes the whole sector's data.
    AddPiece,
    /// Labels the layers.
    PreCommit1,
    /// Builds the trees and the replica.
    PreCommit2,
    /// Collects the vanilla proofs.
    Commit1,
    /// Computes the SNARK; needs no files.
    Commit2,
    /// Drops what a proven sector no longer needs.
    Finalize,
    /// Brings the finished sector to long-term storage.
    Move,
    /// Recovers the unsealed file.
    Unseal,
}

impl SealStage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AddPiece,
        Self::PreCommit1,
        Self::PreCommit2,
        Self::Commit1,
        Self::Commit2,
        Self::Finalize,
        Self::Move,
        Self::Unseal,
    ];

    /// What a new sector goes through, in order.
    pub const SEALING: [Self; 7] = [
        Self::AddPiece,
        Self::PreCommit1,
        Self::PreCommit2,
        Self::Commit1,
        Self::Commit2,
        Self::Finalize,
        Self::Move,
    ];

    /// The task type that it runs as. Moving runs as Fetch, as in Lotus.
    pub const fn task(self) -> TaskType {
        match self {
            Self::AddPiece => TaskType::AddPiece,
            Self::PreCommit1 => TaskType::PreCommit1,
            Self::PreCommit2 => TaskType::PreCommit2,
            Self::Commit1 => TaskType::Commit1,
            Self::Commit2 => TaskType::Commit2,
            Self::Finalize => TaskType::Finalize,
            Self::Move => TaskType::Fetch,
            Self::Unseal => TaskType::Unseal,
        }
    }

    /// What it asks for and leaves behind.
    pub const fn shape(self) -> Shape {
        const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);
        const ALL_THREE: FileTypes = REPLICA.union(FileTypes::UNSEALED);
        let bare = Shape::bare(self.task());
        let fetched = ExistingRule::Fetch(PathType::Sealing);
        match self {
            Self::AddPiece => Shape { allocate: FileTypes::UNSEALED, write: FileTypes::UNSEALED, ..bare },
            Self::PreCommit1 => Shape {
                input: input(FileTypes::UNSEALED, fetched, AcquireMode::Move),
                allocate: REPLICA,
                read: FileTypes::UNSEALED,
                write: REPLICA,
                ..bare
            },
            Self::PreCommit2 => Shape {
                input: input(REPLICA, fetched, AcquireMode::Move),
                read: FileTypes::SEALED,
                write: FileTypes::CACHE,
                ..bare
            },
            Self::Commit1 => Shape {
                input: input(REPLICA, ExistingRule::PartlyHere(PathType::Sealing), AcquireMode::Move),
                read: FileTypes::SEALED,
                write: FileTypes::CACHE,
                ..bare
            },
            Self::Commit2 => bare,
            Self::Finalize => Shape {
                input: input(FileTypes::CACHE, ExistingRule::Here, AcquireMode::Move),
                write: ALL_THREE,
                after: After { drops: FileTypes::NONE, finalizes: true },
                ..bare
            },
            Self::Move => Shape {
                input: input(REPLICA, ExistingRule::MoveTo(PathType::Storage), AcquireMode::Move),
                write: ALL_THREE,
                space: SpaceTable::Finalized,
                ..bare
            },
            Self::Unseal => Shape {
                input: input(REPLICA, fetched, AcquireMode::Copy),
                allocate: FileTypes::UNSEALED,
                read: REPLICA,
                write: FileTypes::UNSEALED,
                ..bare
            },
        }
    }
}

const fn input(types: FileTypes, rule: ExistingRule, mode: AcquireMode) -> Option<Input> {
    Some(Input { types, rule, mode })
}

/// What one task asks for and what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The task type.
    pub task: TaskType,
    /// The files it reads.
    pub input: Option<Input>,
    /// The files it makes, in sealing paths.
    pub allocate: FileTypes,
    /// The files it locks for reading.
    pub read: FileTypes,
    /// The files it locks for writing.
    pub write: FileTypes,
    /// The table that its files' sizes are taken from.
    pub space: SpaceTable,
    /// What becomes of the sector's files when it has finished.
    pub after: After,
}

/// Files that a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Which.
    pub types: FileTypes,
    /// How near they must be.
    pub rule: ExistingRule,
    /// What becomes of the source of a fetched one.
    pub mode: AcquireMode,
}

/// What a finished task does to its sector's files, besides making new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// These are deleted.
    pub drops: FileTypes,
    /// The rest shrinks to what a finished sector takes.
    pub finalizes: bool,
}

impl Shape {
    /// A task that touches no files, for example Commit2.
    pub const fn bare(task: TaskType) -> Self {
        Self {
            task,
            input: None,
            allocate: FileTypes::NONE,
            read: FileTypes::NONE,
            write: FileTypes::NONE,
            space: SpaceTable::Sealing,
            after: After { drops: FileTypes::NONE, finalizes: false },
        }
    }

    /// The same task, which deletes these files when it has finished: for a sector without deals, whose unsealed file is
    /// of no use once it is sealed.
    pub const fn dropping(self, drops: FileTypes) -> Self {
        Self { after: After { drops, ..self.after }, ..self }
    }

    /// The request for such a task. `held_by` tells which paths hold a file of the sector. Priority 0, wanted since
    /// `since`, no limit or deadline of its own, no attempts yet.
    pub fn request(
        &self,
        sector: SectorRef,
        since: Millis,
        held_by: impl Fn(FileType) -> Vec<StorageId>,
    ) -> Request {
        let size = sector.proof.sector_size();
        let bytes = |kind: FileType| self.space.bytes(kind.into(), size);
        let existing = self.input.map(|input| Existing {
            rule: input.rule,
            mode: input.mode,
            files: input
                .types
                .iter()
                .map(|kind| HeldFile { kind, bytes: bytes(kind), held_by: held_by(kind) })
                .collect(),
        });
        let new: Vec<_> = self.allocate.iter().map(|kind| NewFile { kind, bytes: bytes(kind) }).collect();
        let allocate = (!new.is_empty()).then_some(Allocate { path_type: PathType::Sealing, files: new });
        Request {
            sector,
            task: self.task,
            purpose: None,
            avoid: None,
            priority: 0,
            needs: Needs { existing, allocate },
            locks: Locks { read: self.read, write: self.write },
            since,
            wait_limit: None,
            deadline: None,
            attempts: 0,
        }
    }
}
