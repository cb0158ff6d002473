//! The packed index against one that is written as simply as can be, over random histories.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use sealtasks::{FileTypes, SectorDecl, SectorId, StorageId};
use stores::{CopyKind, Index, MemIndex};
use support::{both, clock, id, info, room};

const PATHS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Few, so that copies meet; and many, so that the table grows and entries move while they are held.
const SECTORS: [u64; 4] = [40, 40, 400, 4000];
const STEPS: usize = 6000;

/// By path, by sector: the types and the primary ones.
type Model = BTreeMap<&'static str, BTreeMap<SectorId, (FileTypes, FileTypes)>>;

/// A small generator of numbers, the same in every run.
struct Numbers {
    state: u64,
    sectors: u64,
}

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % bound
    }

    fn sector(&mut self) -> SectorId {
        SectorId::new(1000 + self.below(11), self.below(self.sectors))
    }

    fn types(&mut self) -> FileTypes {
        FileTypes::try_from(self.below(64) as i64).expect("six bits")
    }
}

fn url(name: &str) -> String {
    format!("http://{name}/remote")
}

#[tokio::test]
async fn random_histories_end_as_in_the_simple_one() {
    for (seed, sectors) in (1..).zip(SECTORS) {
        let mut numbers = Numbers { state: seed, sectors };
        let (index, mut model) = (MemIndex::new(clock().1), Model::new());
        for _ in 0..STEPS {
            let path = PATHS[numbers.below(PATHS.len() as u64) as usize];
            step(&mut numbers, &index, &mut model, path).await;
        }
        compare(&index, &model);
    }
}

async fn step(numbers: &mut Numbers, index: &MemIndex, model: &mut Model, path: &'static str) {
    let known = model.contains_key(path);
    match numbers.below(100) {
        0..3 => {
            let gone = index.detach(&id(path), &url(path)).await;
            assert_eq!(gone.is_ok(), model.remove(path).is_some());
        }
        3..10 => {
            index.attach(info(path, &url(path), both()), room(1)).await.expect("attached");
            model.entry(path).or_default();
        }
        10..70 => {
            let count = numbers.below(40);
            let batch: Vec<_> = (0..count)
                .map(|_| {
                    (SectorDecl { sector: numbers.sector(), types: numbers.types() }, numbers.below(3) == 0)
                })
                .collect();
            assert_eq!(index.declare_batch(&id(path), &batch).await.is_ok(), known);
            let Some(files) = model.get_mut(path) else { return };
            for (decl, primary) in batch.into_iter().filter(|(decl, _)| !decl.types.is_empty()) {
                let (types, marks) = files.entry(decl.sector).or_default();
                *types = *types | decl.types;
                *marks = *marks | if primary { decl.types } else { FileTypes::NONE };
            }
        }
        _ => {
            for _ in 0..20 {
                let (sector, taken) = (numbers.sector(), numbers.types());
                assert_eq!(index.drop_files(&id(path), sector, taken).await.is_ok(), known);
                let Some(files) = model.get_mut(path) else { return };
                if let Some((types, marks)) = files.get_mut(&sector) {
                    (*types, *marks) = (types.difference(taken), marks.difference(taken));
                    if types.is_empty() {
                        files.remove(&sector);
                    }
                }
            }
        }
    }
}

fn compare(index: &MemIndex, model: &Model) {
    let listed: BTreeMap<StorageId, Vec<SectorDecl>> = model
        .iter()
        .map(|(path, files)| {
            let decl = |(sector, (types, _)): (&SectorId, &(FileTypes, FileTypes))| SectorDecl {
                sector: *sector,
                types: *types,
            };
            (id(path), files.iter().map(decl).collect())
        })
        .collect();
    assert_eq!(index.list(), listed);
    for (path, files) in model {
        let expected: Vec<_> = files
            .iter()
            .map(|(sector, (types, marks))| (SectorDecl { sector: *sector, types: *types }, *marks))
            .collect();
        assert_eq!(index.path_files(&id(path)), expected);
        assert_eq!(index.path_view(&id(path)).expect("known").sectors, files.len());
    }
    let sectors: BTreeSet<_> = model.values().flat_map(BTreeMap::keys).copied().collect();
    let mut claimed_twice = Vec::new();
    for sector in &sectors {
        let held: Vec<_> =
            model.iter().filter_map(|(path, files)| Some((path, files.get(sector)?))).collect();
        let found = index.sector_files(*sector);
        let shown: Vec<_> = found.iter().map(|held| (held.id.as_str(), held.types, held.primary)).collect();
        let expected: Vec<_> = held.iter().map(|(path, (types, marks))| (**path, *types, *marks)).collect();
        assert_eq!(shown, expected);
        let twice = FileTypes::ALL
            .iter()
            .filter(|kind| held.iter().filter(|(_, (_, marks))| marks.contains(*kind)).count() > 1);
        let twice: FileTypes = twice.collect();
        assert_eq!(index.conflict_of(*sector), twice);
        if !twice.is_empty() {
            claimed_twice.push(*sector);
        }
    }
    let (count, conflicts) = index.conflicts(usize::MAX);
    assert_eq!(count, claimed_twice.len());
    assert_eq!(conflicts.iter().map(|one| one.sector).collect::<Vec<_>>(), claimed_twice);
    let mut many = Vec::new();
    let asked: Vec<_> = sectors.iter().copied().collect();
    index.locate_many(&asked, FileTypes::ALL, |sector, _| many.push(sector));
    let expected: usize = model.values().map(BTreeMap::len).sum();
    assert_eq!(many.len(), expected);
}

#[tokio::test]
async fn two_primary_copies_are_a_conflict_until_one_goes() {
    let index = MemIndex::new(clock().1);
    let sector = SectorId::new(1000, 1);
    for path in ["b", "a", "c"] {
        index.attach(info(path, &url(path), both()), room(1)).await.expect("attached");
        index
            .declare(&id(path), sector, FileTypes::SEALED | FileTypes::CACHE, CopyKind::from(path != "c"))
            .await
            .expect("declared");
    }
    let (count, conflicts) = index.conflicts(10);
    assert_eq!((count, conflicts.len()), (1, 1));
    assert_eq!(conflicts[0].types, FileTypes::SEALED | FileTypes::CACHE);
    assert_eq!(conflicts[0].paths, [id("a"), id("b")]);
    assert_eq!(index.conflicts(0), (1, Vec::new()), "the count is whole, the list bounded");
    index.drop_files(&id("a"), sector, FileTypes::SEALED).await.expect("dropped");
    assert_eq!(index.conflict_of(sector), FileTypes::CACHE);
    index.detach(&id("b"), &url("b")).await.expect("detached");
    assert_eq!(index.conflicts(10), (0, Vec::new()));
}

/// A caller that gives up in the middle of a detach leaves the rest to whoever declares next.
#[tokio::test]
async fn a_detach_that_is_left_halfway_is_over_for_everyone_and_swept_by_others() {
    let index = MemIndex::new(clock().1);
    let files = |from: u64| -> Vec<_> {
        let decl = |number| SectorDecl { sector: SectorId::new(1000, number), types: FileTypes::SEALED };
        (from..from + 10_000).map(|number| (decl(number), true)).collect()
    };
    for path in ["a", "b"] {
        index.attach(info(path, &url(path), both()), room(1)).await.expect("attached");
        index.declare_batch(&id(path), &files(0)).await.expect("declared");
    }
    assert_eq!(index.conflicts(0).0, 10_000);
    assert!(index.detach(&id("a"), &url("a")).now_or_never().is_none(), "it lets others in between");
    assert_eq!(index.conflicts(10), (0, Vec::new()), "what is gone claims nothing");
    // The same path comes back with other files while the old ones are being swept away, and the table grows.
    index.attach(info("a", &url("a"), both()), room(1)).await.expect("attached");
    for from in [20_000, 40_000, 60_000] {
        index.declare_batch(&id("a"), &files(from)).await.expect("declared");
    }
    let all: BTreeMap<_, _> = [20_000, 40_000, 60_000]
        .into_iter()
        .flat_map(files)
        .map(|(decl, _)| (decl.sector, (decl.types, decl.types)))
        .collect();
    let of_b = files(0).into_iter().map(|(decl, _)| (decl.sector, (decl.types, decl.types))).collect();
    compare(&index, &Model::from([("a", all), ("b", of_b)]));
}
