//! Whether there is room for lost sectors before they are sealed again. Never: begins one, or promises room to it.

use pipeline::{PathRoom, SectorState, take_room};
use rpc::pipelining::{RoomView, RoomWish};
use sealtasks::{FileTypes, PathType, SealingPurpose, SectorId, SectorSize, SpaceTable};

use super::Driver;
use super::originals::REPLICA;
use super::pledging::SEALING;

/// What stays of a sector that holds data.
const WITH_DATA: FileTypes = REPLICA.union(FileTypes::UNSEALED);

impl Driver {
    /// What is known of the room for the sectors of this wish that would begin; `None`: there are none.
    pub(crate) fn rebuild_room(&self, wish: &RoomWish) -> Option<RoomFacts> {
        let begins = |id: &SectorId| match self.sectors.get(id) {
            Some(known) => known.record.state() == SectorState::Proving && !self.seems_all_there(*id),
            None => true,
        };
        let begin: Vec<_> = wish.sectors.iter().filter(|(id, _)| begins(id)).collect();
        let sectors = begin.len() as u64;
        let with_data = begin.iter().filter(|(_, data)| *data).count() as u64;
        let (id, _) = begin.first()?;
        Some(RoomFacts {
            need: Need { sectors, with_data, at_once: u64::from(wish.at_once).min(sectors) },
            rooms: self.rooms(id.miner, SealingPurpose::Rebuild, WITH_DATA),
            size: self.shared.miner.sector_size,
            awaited: self.may_be_back().unwrap_or_default(),
        })
    }
}

/// Sectors that would begin, and the paths that there are for them.
pub(crate) struct RoomFacts {
    need: Need,
    rooms: Vec<PathRoom>,
    size: SectorSize,
    awaited: String,
}

impl RoomFacts {
    /// Counted. Takes its time with many sectors and paths.
    pub(crate) fn counted(self) -> RoomView {
        let Self { need, rooms, size, awaited } = self;
        let (sealing, storing) = need.found_in(&rooms, size);
        let stored =
            |types: FileTypes, count: u64| SpaceTable::Finalized.bytes(types, size).saturating_mul(count);
        RoomView {
            sectors: need.sectors,
            at_once: need.at_once,
            sealing_bytes: SpaceTable::Sealing.bytes(SEALING, size).saturating_mul(need.at_once),
            storing_bytes: stored(REPLICA, need.sectors)
                .saturating_add(stored(FileTypes::UNSEALED, need.with_data)),
            sealing,
            storing,
            awaited,
        }
    }
}

/// Sectors that room is sought for.
#[derive(Clone, Copy)]
struct Need {
    sectors: u64,
    /// So many of them hold data.
    with_data: u64,
    /// So many are sealed at the same time.
    at_once: u64,
}

impl Need {
    /// For how many of `at_once` there is room to be sealed, and for how many of all to be stored. No byte counts twice; a
    /// sector that is sealed where it may be stored stays there.
    fn found_in(self, rooms: &[PathRoom], size: SectorSize) -> (u64, u64) {
        let mut apart = rooms.to_vec();
        let storing = self.store(&mut apart, size);
        let sealing = take_room(&mut apart, (PathType::Sealing, SEALING), size, self.at_once);
        if (sealing, storing) == (self.at_once, self.sectors) {
            return (sealing, storing);
        }
        let mut stays: Vec<PathRoom> = rooms.to_vec();
        for room in stays.iter_mut().filter(|room| room.stores != WITH_DATA) {
            room.seals = FileTypes::NONE;
        }
        let sealed = take_room(&mut stays, (PathType::Sealing, SEALING), size, self.at_once);
        let left = self.sectors.saturating_sub(self.at_once);
        let moved = Self { sectors: left, with_data: self.with_data.min(left), ..self };
        if sealed == self.at_once && moved.store(&mut stays, size) == left {
            return (self.at_once, self.sectors);
        }
        (sealing, storing)
    }

    /// Those that take more come first.
    fn store(self, rooms: &mut [PathRoom], size: SectorSize) -> u64 {
        let with_data = take_room(rooms, (PathType::Storage, WITH_DATA), size, self.with_data);
        let others = self.sectors.saturating_sub(self.with_data);
        with_data.saturating_add(take_room(rooms, (PathType::Storage, REPLICA), size, others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SectorSize = SectorSize::GiB32;

    fn found(rooms: &[(u64, bool, bool)], sectors: u64, with_data: u64, at_once: u64) -> (u64, u64) {
        let taken = |may: bool, types| if may { types } else { FileTypes::NONE };
        let room = |(gib, seals, stores): &(u64, bool, bool)| PathRoom {
            free: gib << 30,
            seals: taken(*seals, SEALING),
            stores: taken(*stores, WITH_DATA),
        };
        let rooms: Vec<PathRoom> = rooms.iter().map(room).collect();
        Need { sectors, with_data, at_once }.found_in(&rooms, SIZE)
    }

    #[test]
    fn no_byte_is_counted_for_two_sectors() {
        // 32 GiB sectors: 515.2 GiB while they are sealed, 35.2 GiB stored, 67.2 GiB with data.
        assert_eq!(found(&[(516, true, false), (36, false, true)], 1, 0, 1), (1, 1));
        assert_eq!(found(&[(516, true, false), (71, false, true)], 3, 0, 2), (1, 2));
        assert_eq!(found(&[(516, true, false), (67, false, true)], 1, 1, 1), (1, 0), "its data stays, too");
        assert_eq!(found(&[(515, true, false), (36, false, true)], 1, 0, 1), (0, 1));
    }

    #[test]
    fn what_is_sealed_where_it_may_be_stored_takes_no_second_place() {
        assert_eq!(found(&[(516, true, true)], 1, 0, 1), (1, 1));
        assert_eq!(found(&[(516, true, true)], 2, 0, 1).1 + found(&[(516, true, true)], 2, 0, 1).0, 2);
        assert_eq!(found(&[(552, true, true)], 2, 0, 1), (1, 2));
    }
}
