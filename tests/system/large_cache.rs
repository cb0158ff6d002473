//! A small sector's cache directory with one large file in it, which moves between two storage paths, and what the receiver of
//! such a move has noted.
#![allow(dead_code, reason = "each test target uses its part of this")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A unit of the large file (bytes).
const PART: usize = 1 << 20;
/// What is verified and noted at once (bytes).
const BLOCK: u64 = 16 << 20;
/// A record of the journal: what it is, a number, a hash and a check, 48 bytes in all.
const RECORD: usize = 48;
const BLOCK_IS_HERE: u32 = 1;
const SYNCED: u32 = 2;

/// The cache directory of sector 1, made large.
pub struct LargeCache {
    /// The storage paths between which it moves.
    paths: [PathBuf; 2],
    noise: Vec<u8>,
    bytes: u64,
    /// The other files of the directory, as the sealing left them.
    small: Vec<(OsString, Vec<u8>)>,
}

impl LargeCache {
    /// It lies in the first of the paths; its large file gets so many bytes, a multiple of a block.
    pub fn make(paths: [PathBuf; 2], bytes: u64) -> Self {
        let noise = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut cache = Self { paths, noise, bytes: 0, small: Vec::new() };
        for file in fs::read_dir(cache.dir(0)).expect("the cache").flatten() {
            cache.small.push((file.file_name(), fs::read(file.path()).expect("a small file")));
        }
        assert!(cache.small.len() >= 3, "p_aux, t_aux and tree-d are there: {:?}", cache.small);
        cache.write(0, bytes);
        cache
    }

    /// Writes the large file anew, where the directory lies.
    pub fn write(&mut self, at: usize, bytes: u64) {
        let mut file = File::create(self.large(at)).expect("created");
        for part in 0..bytes / PART as u64 {
            file.write_all(&self.part(part)).expect("written");
        }
        file.sync_all().expect("synced");
        self.bytes = bytes;
    }

    /// No part is like another.
    fn part(&self, number: u64) -> Vec<u8> {
        let mut part = self.noise.clone();
        part[4096..4104].copy_from_slice(&number.to_le_bytes());
        part
    }

    /// Its place in a path.
    pub fn dir(&self, at: usize) -> PathBuf {
        self.paths[at].join("cache/s-t01000-1")
    }

    /// The large file in its place.
    pub fn large(&self, at: usize) -> PathBuf {
        large_in(&self.dir(at))
    }

    /// Whether every byte is in its place.
    pub fn is_whole(&self, at: usize) -> bool {
        self.is_whole_in(&self.dir(at))
    }

    /// Whether every byte is in this directory.
    pub fn is_whole_in(&self, dir: &Path) -> bool {
        let Ok(mut file) = File::open(large_in(dir)) else { return false };
        let mut buffer = vec![0; PART];
        let is = |(name, bytes): &(_, Vec<u8>)| fs::read(dir.join(name)).is_ok_and(|is| is == *bytes);
        self.small.iter().all(is)
            && file.metadata().is_ok_and(|found| found.len() == self.bytes)
            && (0..self.bytes / PART as u64)
                .all(|number| file.read_exact(&mut buffer).is_ok() && buffer == self.part(number))
    }

    /// Numbers of the blocks that have arrived, in the order of the journal.
    pub fn arrived(&self, at: usize) -> Vec<u32> {
        let records = self.records(at).into_iter().filter(|(what, _)| *what == BLOCK_IS_HERE);
        records.map(|(_, number)| number).collect()
    }

    /// Those of them that the last mark says to be on stable storage.
    pub fn synced(&self, at: usize) -> Vec<u32> {
        let records = self.records(at);
        let mark = records.iter().rfind(|(what, _)| *what == SYNCED);
        let upto = mark.map_or(0, |(_, records)| *records as usize);
        let blocks = records.iter().take(upto).filter(|(what, _)| *what == BLOCK_IS_HERE);
        blocks.map(|(_, number)| *number).collect()
    }

    /// What the journal lists: each record's kind and number.
    fn records(&self, at: usize) -> Vec<(u32, u32)> {
        let journal = fs::read(self.arriving(at).join("journal")).unwrap_or_default();
        let number =
            |record: &[u8], at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
        journal.chunks_exact(RECORD).map(|record| (number(record, 0), number(record, 4))).collect()
    }

    /// Whether every byte of a block is where it arrives. The blocks of the large file come first; what is behind it is not
    /// looked at.
    pub fn has_arrived(&self, at: usize, block: u32) -> bool {
        let parts = BLOCK / PART as u64;
        let first = u64::from(block) * parts;
        if first * PART as u64 >= self.bytes {
            return true;
        }
        let Ok(file) = File::open(large_in(&self.arriving(at).join("data"))) else { return false };
        let mut buffer = vec![0; PART];
        (first..first + parts).all(|number| {
            let offset = number * PART as u64;
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, offset).is_ok()
                && buffer == self.part(number)
        })
    }

    /// The blocks that have arrived, with the plan that they belong to, if there is one.
    pub fn noted(&self, at: usize) -> Option<Noted> {
        let plan = || fs::read(self.arriving(at).join("plan.json")).ok();
        let (before, blocks) = (plan()?, self.arrived(at));
        // The plan goes before its journal, and comes before it.
        (plan()? == before).then_some(Noted { plan: before, blocks })
    }

    fn arriving(&self, at: usize) -> PathBuf {
        self.fetching(at).join("s-t01000-1.part")
    }

    /// Where cache directories of a path arrive, and where they lie on their way out.
    pub fn fetching(&self, at: usize) -> PathBuf {
        self.paths[at].join("cache/fetching")
    }
}

fn large_in(dir: &Path) -> PathBuf {
    dir.join("sc-02-data-layer-11.dat")
}

/// What a receiver has noted of a fetch.
pub struct Noted {
    plan: Vec<u8>,
    blocks: Vec<u32>,
}

impl Noted {
    /// Whatever was killed meanwhile: what was here is here, and no block has come twice. So all that is sent again is what
    /// each connection had in hand, less than a block.
    pub fn follows(&self, before: Option<&Self>) {
        let once: BTreeSet<u32> = self.blocks.iter().copied().collect();
        assert_eq!(once.len(), self.blocks.len(), "a block came twice: {:?}", self.blocks);
        if let Some(before) = before.filter(|before| before.plan == self.plan) {
            let kept = self.blocks.starts_with(&before.blocks);
            assert!(kept, "of {:?} only {:?} are left", before.blocks, self.blocks);
        }
    }
}

/// The paths that hold a primary copy of the cache directory, by what `storage find` tells.
pub fn holders(told: &Value) -> Vec<String> {
    let places = told["places"].as_array().cloned().unwrap_or_default();
    let holds = |place: &Value| {
        place["primary"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "cache"))
    };
    places
        .iter()
        .filter(|place| holds(place))
        .filter_map(|it| Some(it["path"].as_str()?.to_owned()))
        .collect()
}
