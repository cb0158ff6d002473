//! Which blocks of a fetch are here, so that a killed process goes on where it was.
//!
//! A record is written when its block is verified and written. It is believed after a power cut, too, once a later mark says
//! that data and journal were synced; the few blocks after the last mark are compared with their hashes before they count.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::content::{BLOCK, HASH};
use crate::error::StoreError;

/// A record: what it is (4 bytes), a block's number (4), its hash (32), and a check of these (8).
const RECORD: usize = 48;
const BLOCK_IS_HERE: u32 = 1;
const SYNCED: u32 = 2;
/// A block that was noted is not what was noted: it is to be brought again.
const LOST: u32 = 3;
/// Bytes received between two marks; at most so much is read again after a kill.
const UNSYNCED_MAX: u64 = 256 << 20;

/// What a journal told when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Blocks that are here.
    pub(super) here: Vec<usize>,
    /// Blocks that may be here, with the hashes that they must have.
    pub(super) doubtful: Vec<(usize, [u8; HASH])>,
}

/// An open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    unsynced: u64,
}

impl Journal {
    /// Opens or creates the journal of a fetch of `count` blocks. What follows the last whole record is cut off.
    pub(super) fn open(path: &Path, count: usize) -> Result<(Self, Known), StoreError> {
        let broken = StoreError::io("open", path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(broken)?;
        let mut bytes = Vec::new();
        // Every block comes once, or a few times when it was found damaged; more is no journal of ours.
        let most = (count as u64 + 1) * 4 * RECORD as u64;
        (&mut file).take(most).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
        let (known, whole) = read(&bytes, count);
        file.set_len(whole as u64)
            .and_then(|()| file.seek(SeekFrom::Start(whole as u64)).map(drop))
            .map_err(StoreError::io("write", path))?;
        // What a killed process had not synced waits for the same mark as what comes now.
        let unsynced = known.doubtful.len() as u64 * BLOCK;
        Ok((Self { path: path.to_owned(), file, unsynced }, known))
    }

    /// Notes that a block is here. Returns whether it is time to sync the data and then call [`Journal::synced`].
    pub(super) fn add(&mut self, index: usize, hash: &[u8; HASH], bytes: u64) -> Result<bool, StoreError> {
        self.write(BLOCK_IS_HERE, index, hash)?;
        self.unsynced += bytes;
        if self.unsynced < UNSYNCED_MAX {
            return Ok(false);
        }
        self.unsynced = 0;
        Ok(true)
    }

    /// Notes that a block is not here, whatever was noted before: no later mark vouches for it.
    pub(super) fn lost(&mut self, index: usize) -> Result<(), StoreError> {
        self.write(LOST, index, &[0; HASH])
    }

    /// How long it is: what [`Journal::synced`] is told after the data was synced.
    pub(super) fn position(&mut self) -> Result<u64, StoreError> {
        self.file.stream_position().map_err(StoreError::io("read", &self.path))
    }

    /// The data of every record up to `position` is durable.
    pub(super) fn synced(&mut self, position: u64) -> Result<(), StoreError> {
        let records = usize::try_from(position / RECORD as u64).unwrap_or(usize::MAX);
        // The records first: a mark that got to the disk without them would vouch for nothing.
        self.sync()?;
        self.write(SYNCED, records, &[0; HASH])?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))
    }

    fn write(&mut self, what: u32, number: usize, hash: &[u8; HASH]) -> Result<(), StoreError> {
        let number = u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        let written = number.and_then(|number| self.file.write_all(&record(what, number, hash)));
        written.map_err(StoreError::io("write", &self.path))
    }
}

fn record(what: u32, number: u32, hash: &[u8; HASH]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..4].copy_from_slice(&what.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..40].copy_from_slice(hash);
    let check = *blake3::hash(&bytes[..40]).as_bytes();
    bytes[40..].copy_from_slice(&check[..8]);
    bytes
}

/// What the records say, and how many bytes of them are whole.
fn read(bytes: &[u8], count: usize) -> (Known, usize) {
    // Of each block that a record is about, its hash unless it was lost.
    let mut records: Vec<Option<(usize, Option<[u8; HASH]>)>> = Vec::new();
    let mut synced = 0;
    for chunk in bytes.chunks_exact(RECORD) {
        let (mut what, mut number, mut hash) = ([0; 4], [0; 4], [0; HASH]);
        what.copy_from_slice(&chunk[..4]);
        number.copy_from_slice(&chunk[4..8]);
        hash.copy_from_slice(&chunk[8..40]);
        let (what, number) = (u32::from_le_bytes(what), u32::from_le_bytes(number));
        if record(what, number, &hash) != chunk {
            break;
        }
        match what {
            BLOCK_IS_HERE if (number as usize) < count => records.push(Some((number as usize, Some(hash)))),
            LOST if (number as usize) < count => records.push(Some((number as usize, None))),
            SYNCED if number as usize <= records.len() => {
                synced = number as usize;
                records.push(None);
            }
            _ => break,
        }
    }
    let whole = records.len() * RECORD;
    let mut known = Known::default();
    let mut state: Vec<Option<(bool, [u8; HASH])>> = vec![None; count];
    for (at, (index, hash)) in records.into_iter().enumerate().filter_map(|(at, one)| Some((at, one?))) {
        state[index] = hash.map(|hash| (at < synced, hash));
    }
    for (index, state) in state.into_iter().enumerate() {
        match state {
            Some((true, _)) => known.here.push(index),
            Some((false, hash)) => known.doubtful.push((index, hash)),
            None => {}
        }
    }
    (known, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_counts_and_the_rest_is_doubted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut journal, known) = Journal::open(&path, 4).expect("new");
        assert_eq!(known, Known::default());
        journal.add(2, &[2; HASH], 1).expect("written");
        let position = journal.position().expect("known");
        journal.add(0, &[7; HASH], 1).expect("written while the data is synced");
        journal.synced(position).expect("written");
        assert!(journal.add(1, &[1; HASH], UNSYNCED_MAX).expect("written"), "time for a mark");
        drop(journal);
        let expected = Known { here: vec![2], doubtful: vec![(0, [7; HASH]), (1, [1; HASH])] };
        assert_eq!(Journal::open(&path, 4).expect("opened again").1, expected);
    }

    #[test]
    fn no_mark_vouches_for_a_block_that_was_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path, 4).expect("new");
        journal.add(0, &[1; HASH], BLOCK).expect("written");
        journal.add(2, &[2; HASH], BLOCK).expect("written");
        drop(journal);
        // The power was cut: its data is not what was noted.
        let (mut journal, known) = Journal::open(&path, 4).expect("opened");
        assert_eq!(known.doubtful, [(0, [1; HASH]), (2, [2; HASH])]);
        journal.lost(0).expect("written");
        journal.add(1, &[3; HASH], BLOCK).expect("written");
        let position = journal.position().expect("known");
        journal.synced(position).expect("written");
        drop(journal);
        let (mut journal, known) = Journal::open(&path, 4).expect("opened");
        assert_eq!(known, Known { here: vec![1, 2], doubtful: Vec::new() });
        journal.add(0, &[1; HASH], BLOCK).expect("brought again");
        drop(journal);
        let (_, known) = Journal::open(&path, 4).expect("opened");
        assert_eq!(known, Known { here: vec![1, 2], doubtful: vec![(0, [1; HASH])] });
    }

    #[test]
    fn what_a_killed_process_had_not_synced_counts_towards_the_next_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let blocks = usize::try_from(UNSYNCED_MAX / BLOCK).expect("a few");
        for index in 0..blocks - 1 {
            // Each of them is noted by a process that is killed then.
            let (mut journal, known) = Journal::open(&path, blocks).expect("opened");
            assert_eq!(known.doubtful.len(), index);
            assert!(!journal.add(index, &[1; HASH], BLOCK).expect("written"), "not yet");
        }
        let (mut journal, _) = Journal::open(&path, blocks).expect("opened");
        assert!(journal.add(blocks - 1, &[1; HASH], BLOCK).expect("written"), "time for a mark");
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path, 4).expect("new");
        journal.add(0, &[1; HASH], 1).expect("written");
        journal.add(1, &[1; HASH], 1).expect("written");
        drop(journal);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[RECORD + 9] ^= 1;
        bytes.extend([0; 5]);
        std::fs::write(&path, bytes).expect("torn");
        let (mut journal, known) = Journal::open(&path, 4).expect("opened");
        assert_eq!(known.doubtful, [(0, [1; HASH])]);
        journal.add(3, &[3; HASH], 1).expect("written");
        drop(journal);
        let (_, known) = Journal::open(&path, 4).expect("opened");
        assert_eq!(known.doubtful, [(0, [1; HASH]), (3, [3; HASH])]);
        let (_, known) = Journal::open(&path, 2).expect("of fewer blocks");
        assert_eq!(known.doubtful, [(0, [1; HASH])]);
    }
}
