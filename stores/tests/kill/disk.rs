//! The directory that is moved, as it lies on disk, and what the receiver has noted of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::support::{both, id};
use stores::{StorageMeta, init_path};

/// Names, contents and lengths.
pub struct Files(Vec<(&'static str, u8, u64)>);

const SECTOR: &str = "s-t01000-1";
/// What is verified, noted and sent again at once (bytes).
pub const BLOCK: u64 = 16 << 20;
/// A record of the journal: what it is (1 for a block), the block's number, its hash and a check, 48 bytes in all.
const RECORD: usize = 48;

/// How far a move is, by the receiver's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Blocks come, or nothing has come yet.
    Arriving,
    /// All is here, noted, and not in its place.
    Arrived,
    /// It is in its place; that it was declared is not noted.
    Placed,
    /// Declared, and noted that the source is to be deleted, which is still there.
    Declared,
    /// The source is gone, and the note is still there.
    Deleted,
    /// Nothing is left to do.
    Done,
}

impl Files {
    /// Makes both storage paths, and the directory in the first.
    pub fn make(node: &Path, mib: u64) -> Self {
        let home = node.parent().expect("a directory above");
        for name in ["a", "b"] {
            init_path(&home.join(name).join("path"), &StorageMeta::new(&id(name), &both())).expect("a path");
        }
        let large = mib << 20;
        let files = Self(vec![
            ("p_aux", 1, 64),
            ("sc-02-data-layer-1.dat", 2, large / 2),
            ("sc-02-data-layer-2.dat", 3, large / 4 + 4097),
            ("sc-02-data-tree-c.dat", 4, large / 8 + 1),
            ("sc-02-data-tree-d.dat", 5, large / 8),
            ("t_aux", 6, 300),
        ]);
        let dir = node.join("path/cache").join(SECTOR);
        fs::create_dir_all(&dir).expect("made");
        for (name, seed, bytes) in &files.0 {
            let pattern = pattern(*seed);
            let mut out = fs::File::create_new(dir.join(name)).expect("created");
            let mut left = *bytes;
            while left > 0 {
                let part = pattern.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                std::io::Write::write_all(&mut out, &pattern[..part]).expect("written");
                left -= part as u64;
            }
            out.sync_all().expect("synced");
        }
        files
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Whether it lies there no more, nor beside its place until it is decided that it goes: a node that is killed then, or
    /// decides against it, puts it back.
    pub fn is_gone(&self, node: &Path) -> bool {
        // Looked at once more after the other, since it may have been put back in between.
        !place(node).exists() && !is_doubted(node) && !place(node).exists()
    }

    /// Whether every byte of every file is in its place.
    pub fn is_whole(&self, node: &Path) -> bool {
        let dir = place(node);
        self.0.iter().all(|(name, seed, bytes)| is_pattern(&dir.join(name), *seed, *bytes))
    }

    pub fn phase(&self, from: &Path, to: &Path) -> Phase {
        let part = part(to);
        let note = fs::read_to_string(part.join("arrived.json"));
        match (part.join("data").exists(), place(to).exists(), note) {
            (true, _, Ok(_)) => Phase::Arrived,
            (false, true, Ok(note)) if !note.contains("\"declared\":true") => Phase::Placed,
            (false, true, Ok(_)) if self.is_gone(from) => Phase::Deleted,
            (false, true, Ok(_)) => Phase::Declared,
            (false, true, Err(_)) => Phase::Done,
            _ => Phase::Arriving,
        }
    }

    /// How many bytes a node has and need never be sent again: what lies in its place, or what its journal lists. Stable
    /// while nothing is received.
    pub fn noted(&self, node: &Path) -> u64 {
        if place(node).exists() {
            return self.total();
        }
        if !part(node).join("data").exists() {
            return 0;
        }
        let journal = fs::read(part(node).join("journal")).unwrap_or_default();
        let number = |record: &[u8], at: usize| {
            u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let records = journal.chunks_exact(RECORD).filter(|record| number(record, 0) == 1);
        let blocks = self.blocks();
        let here: BTreeSet<usize> = records.map(|record| number(record, 4)).collect();
        here.into_iter().map(|index| blocks[index]).sum()
    }

    /// The lengths of the blocks: large files are cut, in the order of their names, and what is left of each shares one.
    fn blocks(&self) -> Vec<u64> {
        let (mut blocks, mut shared) = (Vec::new(), 0);
        for (_, _, bytes) in &self.0 {
            blocks.extend((0..bytes / BLOCK).map(|_| BLOCK));
            let rest = bytes % BLOCK;
            if shared + rest > BLOCK {
                blocks.push(std::mem::take(&mut shared));
            }
            shared += rest;
        }
        blocks.extend((shared > 0).then_some(shared));
        blocks
    }

    /// Which node has a whole copy; one must.
    pub fn expect_a_whole_copy(&self, nodes: &[PathBuf; 2]) -> usize {
        // A deletion may be under way: the copy that it counts on is then looked at second.
        let whole = [0, 1, 0, 1].into_iter().find(|at| self.is_whole(&nodes[*at]));
        whole.unwrap_or_else(|| panic!("no whole copy is left in {nodes:?}"))
    }
}

fn part(node: &Path) -> PathBuf {
    node.join("path/cache/fetching").join(format!("{SECTOR}.part"))
}

fn place(node: &Path) -> PathBuf {
    node.join("path/cache").join(SECTOR)
}

fn is_doubted(node: &Path) -> bool {
    let aside = fs::read_dir(node.join("path/cache/fetching")).into_iter().flatten().flatten();
    aside
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with(&format!("{SECTOR}.doubted-")))
}

/// A prime number of bytes, so that no block is like another.
fn pattern(seed: u8) -> Vec<u8> {
    (0..999_983_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn is_pattern(path: &Path, seed: u8, bytes: u64) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    if file.metadata().map_or(0, |found| found.len()) != bytes {
        return false;
    }
    let pattern = pattern(seed);
    let mut buffer = vec![0; pattern.len()];
    let mut left = bytes;
    while left > 0 {
        let part = pattern.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if std::io::Read::read_exact(&mut file, &mut buffer[..part]).is_err()
            || buffer[..part] != pattern[..part]
        {
            return false;
        }
        left -= part as u64;
    }
    true
}
