//! What is declared: sectors of random numbers, each with its sealed file and cache in one path and its unsealed file in
//! another.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sealtasks::{FileTypes, FsStat, SectorDecl, SectorId, StorageId, StorageInfo, StorageStanza};
use stores::{Index as _, MemIndex};

use crate::measure::Rate;

/// The path that is detached.
pub const BIG: &str = "big";

/// What one path declares.
pub type Batch = (StorageId, Vec<(SectorDecl, bool)>);

pub struct Load {
    pub sectors: usize,
    pub paths: usize,
    pub fills: usize,
    pub questions: usize,
    pub allocs: usize,
    /// Files in the path that is detached.
    pub big: usize,
}

impl Load {
    pub fn full() -> Self {
        let (sectors, big) = (3_400_000, 1_000_000);
        Self { sectors, paths: 1000, fills: 3, questions: 1_000_000, allocs: 100_000, big }
    }

    pub fn small() -> Self {
        Self { sectors: 3000, paths: 10, fills: 1, questions: 1000, allocs: 1000, big: 2000 }
    }

    pub fn files(&self) -> usize {
        self.sectors * 3
    }

    /// An index with the paths, each with another room, and no files.
    pub fn index(&self) -> MemIndex {
        let index = MemIndex::new(Arc::new(|| 1_000_000));
        for path in 0..self.paths {
            attach(&index, &name(path), path as u64);
        }
        index
    }

    /// Every file by itself, path by path, each path's in random order and in one batch.
    pub fn batches(&self) -> Vec<Batch> {
        let mut batches: Vec<Batch> = (0..self.paths).map(|path| (id(&name(path)), Vec::new())).collect();
        let half = self.paths as u64 / 2;
        let mut order: Vec<u32> = (0..self.sectors as u32).collect();
        order.sort_unstable_by_key(|sector| mix(!u64::from(*sector)));
        for sector in order {
            let mixed = mix(u64::from(sector));
            let one = |types| (SectorDecl { sector: sector_of(sector), types }, true);
            let sealed = &mut batches[(mixed % half) as usize].1;
            sealed.push(one(FileTypes::SEALED));
            sealed.push(one(FileTypes::CACHE));
            batches[(half + (mixed >> 32) % half) as usize].1.push(one(FileTypes::UNSEALED));
        }
        batches
    }

    /// Declares them all.
    pub fn declare_all(&self, index: &MemIndex, batches: &[Batch]) -> Rate {
        Rate::of(self.files(), || {
            for (id, batch) in batches {
                now(index.declare_batch(id, batch)).expect("declared");
            }
        })
    }

    /// One more copy of as many files as one path is to have.
    pub fn declare_big(&self, index: &MemIndex) {
        attach(index, BIG, 0);
        let decl = |sector| (SectorDecl { sector: sector_of(sector), types: FileTypes::SEALED }, false);
        let batch: Vec<_> = (0..self.big as u32).map(decl).collect();
        now(index.declare_batch(&id(BIG), &batch)).expect("declared");
    }

    /// Sectors to ask for, others in every round.
    pub fn asked(&self, round: usize) -> impl Iterator<Item = SectorId> + Clone + use<> {
        let (sectors, questions) = (self.sectors as u64, self.questions as u64);
        (0..questions).map(move |at| sector_of((mix(at + round as u64 * questions) % sectors) as u32))
    }

    /// What Lotus sorts: settings and room of every path.
    pub fn model(&self) -> Vec<(StorageInfo, FsStat)> {
        (0..self.paths).map(|path| (info(&name(path)), room(path as u64))).collect()
    }
}

/// Filters by room, sorts by two products a comparison, copies: the shape of Lotus's `StorageBestAlloc`.
pub fn sort_and_copy(paths: &[(StorageInfo, FsStat)], need: i64) -> Vec<StorageInfo> {
    let mut good: Vec<_> = paths.iter().filter(|(_, stat)| stat.available >= need).collect();
    let score =
        |(info, stat): &&(StorageInfo, FsStat)| stat.available as u128 * u128::from(info.stanza.weight);
    good.sort_by_key(|path| std::cmp::Reverse(score(path)));
    good.into_iter().map(|(info, _)| info.clone()).collect()
}

/// The index answers without waiting, but after a detach it lets others run in between.
pub fn now<T>(answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer;
        }
        std::thread::yield_now();
    }
}

pub fn id(name: &str) -> StorageId {
    name.parse().expect("a storage id")
}

pub fn url(name: &str) -> String {
    format!("http://{name}.storage.example:3456/remote")
}

fn name(path: usize) -> String {
    format!("0b9a6bd6-2f44-4f2f-9f3a-{path:012}")
}

fn info(name: &str) -> StorageInfo {
    let stanza = StorageStanza { weight: 10, can_seal: true, can_store: true, ..StorageStanza::default() };
    StorageInfo { id: id(name), urls: vec![url(name)], stanza }
}

/// From half a TiB to below one, another for every path.
fn room(path: u64) -> FsStat {
    let bytes = (1 << 39) + (mix(path) >> 25) as i64;
    FsStat { capacity: bytes, available: bytes, fs_available: bytes, ..FsStat::default() }
}

fn attach(index: &MemIndex, name: &str, path: u64) {
    now(index.attach(info(name), room(path))).expect("attached");
}

/// A number that nobody gave out in a row.
fn sector_of(at: u32) -> SectorId {
    SectorId::new(1000 + u64::from(at % 2), u64::from(at) * 7 + 3)
}

fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
