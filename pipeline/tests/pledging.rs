//! When a sector is pledged by itself: each condition alone stands in the way, and room is counted once.

use pipeline::{BEFORE_PC1_MAX, Hindrance, PathRoom, Pledging, take_room};
use sealtasks::{FileTypes, PathType, SectorSize};

const FREE: Pledging = Pledging {
    keep: 10,
    in_pipeline: 9,
    parked: 3,
    parked_max: 3,
    paused: false,
    workers: (1, 1),
    before_pc1: BEFORE_PC1_MAX - 1,
    sealing: (100, 100),
    storage: (10, 10),
};

#[test]
fn each_condition_alone_stands_in_the_way() {
    assert_eq!(FREE.hindrance(), None);
    for (facts, hindrance) in [
        (Pledging { keep: 0, ..FREE }, Hindrance::Off),
        (Pledging { paused: true, ..FREE }, Hindrance::Paused),
        (Pledging { in_pipeline: 10, ..FREE }, Hindrance::Full),
        (Pledging { parked: 4, ..FREE }, Hindrance::Parked),
        (Pledging { workers: (0, 1), ..FREE }, Hindrance::NoWorker),
        (Pledging { workers: (1, 0), ..FREE }, Hindrance::NoWorker),
        (Pledging { before_pc1: BEFORE_PC1_MAX, ..FREE }, Hindrance::Pc1Busy),
        (Pledging { sealing: (99, 100), ..FREE }, Hindrance::NoSealingSpace),
        (Pledging { storage: (9, 10), ..FREE }, Hindrance::NoStorageSpace),
    ] {
        assert_eq!(facts.hindrance(), Some(hindrance), "{facts:?}");
    }
}

const SEALING: FileTypes = FileTypes::UNSEALED.union(FileTypes::SEALED).union(FileTypes::CACHE);
const STORED: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);
const NONE: FileTypes = FileTypes::NONE;

/// Paths of so many sectors' room while they are sealed, and so many bytes.
fn path(sealed: u64, bytes: u64, seals: FileTypes, stores: FileTypes) -> PathRoom {
    let each = PathType::Sealing.space_table().bytes(SEALING, SectorSize::GiB32);
    PathRoom { free: sealed * each + bytes, seals, stores }
}

fn room(paths: &mut [PathRoom], path_type: PathType, types: FileTypes) -> u64 {
    take_room(paths, (path_type, types), SectorSize::GiB32, 1000)
}

#[test]
fn room_is_counted_once_and_only_where_the_files_may_lie() {
    let seal = |paths: &mut [PathRoom]| room(paths, PathType::Sealing, SEALING);
    let store = |paths: &mut [PathRoom]| room(paths, PathType::Storage, STORED);
    assert_eq!(seal(&mut [path(3, 0, SEALING, NONE)]), 3);
    assert_eq!(seal(&mut [path(3, 0, NONE, STORED)]), 0, "it is not for sealing");
    // What lies apart adds up only where whole files fit.
    let half = PathType::Sealing.space_table().bytes(SEALING, SectorSize::GiB32) / 2;
    assert_eq!(seal(&mut [path(0, half, SEALING, NONE), path(0, half, SEALING, NONE)]), 0, "half a cache");
    // A path for caches and one for the rest make one place together, and each alone none.
    let rest = FileTypes::UNSEALED.union(FileTypes::SEALED);
    let mut apart = [path(2, 0, FileTypes::CACHE, NONE), path(1, 0, rest, NONE)];
    assert_eq!(seal(&mut [apart[0]]), 0);
    assert_eq!(seal(&mut apart), 2);
    // One path for both uses: what is stored there is not there to seal in.
    let stored = PathType::Storage.space_table().bytes(STORED, SectorSize::GiB32);
    let mut both = [path(1, stored, SEALING, STORED)];
    assert_eq!(take_room(&mut both, (PathType::Storage, STORED), SectorSize::GiB32, 1), 1);
    assert_eq!(seal(&mut both), 1);
    assert_eq!(store(&mut both), 0);
    // A path that only stores is taken first.
    let mut two = [path(9, 0, SEALING, STORED), path(0, stored, NONE, STORED)];
    assert_eq!(take_room(&mut two, (PathType::Storage, STORED), SectorSize::GiB32, 1), 1);
    assert_eq!((two[1].free, seal(&mut two)), (0, 9));
}
