//! Two nodes with an index between them, and the files that go from one to the other.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use sealtasks::{AcquireMode, FileType, FileTypes, PathType, RegisteredSealProof, SectorRef, SectorSize};
use stores::{TransferLimits, TransferMeter};
use tokio::runtime::Runtime;

use super::rivals::{self, AT_ONCE};
use super::support::{Node, World, both, id, sector};
use super::{Cost, Sizes, cost_of};

/// Files of a directory.
pub const FILES: usize = 24;
/// A small file's length (bytes).
pub const SMALL: usize = 4096;
const LARGE: u64 = 1;
const DIRECTORY: u64 = 2;
/// The sectors of small files begin here.
const FIRST_SMALL: u64 = 10;

pub struct Yard {
    _world: World,
    _source: Node,
    target: Node,
    source_dir: PathBuf,
    pub directory_bytes: u64,
}

/// Of a size for which little room is reserved; a transfer takes directories of any stage, with larger files, too.
fn wanted(number: u64) -> SectorRef {
    SectorRef { proof: RegisteredSealProof::for_new_sector(SectorSize::MiB8), ..sector(number) }
}

fn names() -> Vec<String> {
    let layers = (1..=11).map(|number| format!("sc-02-data-layer-{number}.dat"));
    let trees = (0..8).map(|number| format!("sc-02-data-tree-c-{number}.dat"));
    let last = (0..5).map(|number| format!("sc-02-data-tree-r-last-{number}.dat"));
    layers.chain(trees).chain(last).collect()
}

impl Yard {
    pub async fn new(sizes: &Sizes) -> Self {
        let world = World::new();
        let (source, target) = (world.node().await, world.node().await);
        let source_dir = source.path("a", both()).await;
        target.path("b", both()).await;
        let dir = |number: u64| {
            let dir = source_dir.join(format!("cache/{}", wanted(number).id));
            fs::create_dir_all(&dir).expect("made");
            dir
        };
        fill(&dir(LARGE).join("sc-02-data-layer-1.dat"), sizes.file);
        let mut directory_bytes = 0;
        for name in names() {
            let bytes = match &name {
                last if last.contains("r-last") => sizes.layer.min(9 << 20),
                tree if tree.contains("tree-c") => sizes.layer * 2 / 3,
                _ => sizes.layer,
            };
            fill(&dir(DIRECTORY).join(name), bytes);
            directory_bytes += bytes;
        }
        for number in 0..sizes.small_dirs {
            let dir = dir(FIRST_SMALL + number);
            names().iter().for_each(|name| fill(&dir.join(name), SMALL as u64));
        }
        source.local.redeclare(Some(&id("a")), false).await.expect("declared");
        Self { _world: world, _source: source, target, source_dir, directory_bytes }
    }

    pub fn large(&self) -> PathBuf {
        self.source_dir.join(format!("cache/{}/sc-02-data-layer-1.dat", wanted(LARGE).id))
    }

    /// A place on the target's disk.
    pub fn scratch(&self) -> PathBuf {
        self.target.dir.path().to_owned()
    }

    /// Connections of one download.
    pub fn set_streams(&self, streams: usize) {
        self.target.remote.set_limits(TransferLimits { streams, ..self.target.remote.limits() });
    }

    pub fn streams(&self) -> usize {
        self.target.remote.limits().streams
    }

    pub fn fetch_large(&self, runtime: &Runtime, verify: bool) -> Cost {
        let limits = TransferLimits { verify, ..self.target.remote.limits() };
        self.target.remote.set_limits(limits);
        let cost = self.fetch(runtime, LARGE, 1);
        self.target.remote.set_limits(TransferLimits { verify: true, ..limits });
        cost
    }

    pub fn fetch_directory(&self, runtime: &Runtime) -> Cost {
        for name in names() {
            rivals::forget(&self.source_dir.join(format!("cache/{}/{name}", wanted(DIRECTORY).id)));
        }
        self.fetch(runtime, DIRECTORY, 1)
    }

    pub fn fetch_small(&self, runtime: &Runtime, count: u64) -> Cost {
        self.target.remote.set_limits(TransferLimits { parallel: AT_ONCE, ..self.target.remote.limits() });
        self.fetch(runtime, FIRST_SMALL, count)
    }

    /// Fetches copies of `count` sectors' directories and removes them again, which is not timed.
    fn fetch(&self, runtime: &Runtime, first: u64, count: u64) -> Cost {
        let meter = TransferMeter::default();
        let one = |number| {
            let (remote, meter) = (&self.target.remote, &meter);
            async move {
                let (none, path) = (FileTypes::NONE, PathType::Sealing);
                let sector = wanted(number);
                let got =
                    remote.acquire(sector, FileTypes::CACHE, none, path, AcquireMode::Copy, meter).await;
                assert_eq!(got.expect("fetched").fetched, FileTypes::CACHE);
            }
        };
        let all = futures_util::stream::iter(first..first + count).for_each_concurrent(AT_ONCE, one);
        let (_, cost) = cost_of(|| runtime.block_on(all));
        runtime.block_on(async {
            for number in first..first + count {
                let types = FileType::Cache.into();
                self.target.remote.remove_copies(wanted(number).id, types).await.expect("removed");
            }
        });
        cost
    }
}

fn fill(path: &Path, bytes: u64) {
    let mut state = bytes ^ 0x5ea1;
    let chunk: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let mut file = fs::File::create_new(path).expect("created");
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(chunk.len()).min(chunk.len());
        file.write_all(&chunk[..part]).expect("written");
        left -= part as u64;
    }
    // Ten thousand small ones would take longer to sync here than all the rest.
    if bytes > SMALL as u64 {
        file.sync_all().expect("synced");
    }
}
