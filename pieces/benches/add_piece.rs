//! What a piece costs: padding, its commitment, and the whole of adding it to a file.
//!
//! Buffers are written before anything is timed: fresh pages cost more than the work measured here. The file case goes
//! through the page cache to the directory that `TMPDIR` names, and ends with the data on stable storage.

use std::hint::black_box;
use std::io::Read;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pieces::commitment::PieceHasher;
use pieces::{PieceData, add_piece, data_cid, fr32};
use sealtasks::{SectorSize, UnpaddedPieceSize};

/// Raw bytes of the pieces hashed: the whole of an 8 MiB sector.
const PIECE: usize = 127 << 16;

fn data(len: usize) -> Vec<u8> {
    let mut state = 0x5ea1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn padding(c: &mut Criterion) {
    let raw = data(127 << 12);
    let mut padded = vec![0; 128 << 12];
    let mut back = vec![0; raw.len()];
    let mut group = c.benchmark_group("fr32");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    group.bench_function("pad", |b| b.iter(|| fr32::pad(black_box(&raw), black_box(&mut padded))));
    group.bench_function("unpad", |b| b.iter(|| fr32::unpad(black_box(&padded), black_box(&mut back))));
    group.finish();
}

fn commitment(c: &mut Criterion) {
    let raw = data(PIECE);
    let size = UnpaddedPieceSize::try_from(PIECE as u64).expect("127 times a power of two");
    let mut group = c.benchmark_group("commp");
    group.throughput(Throughput::Bytes(PIECE as u64));
    for threads in [1, std::thread::available_parallelism().map_or(2, usize::from)] {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        group.bench_function(BenchmarkId::new("hasher", threads), |b| {
            b.iter(|| {
                pool.install(|| {
                    let mut hasher = PieceHasher::new();
                    hasher.update(black_box(&raw));
                    hasher.finish(size)
                })
            })
        });
        group.bench_function(BenchmarkId::new("data_cid", threads), |b| {
            b.iter(|| pool.install(|| data_cid(size, PieceData::Stream(&mut black_box(&raw[..])))))
        });
    }
    group.finish();
}

fn to_file(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the file");
    let file = directory.path().join("s-t01000-1");
    let raw = data(PIECE);
    // Sixty-four times the same bytes: a 512 MiB sector, without half a gigabyte of source.
    let size = UnpaddedPieceSize::whole_sector(SectorSize::MiB512);
    let mut group = c.benchmark_group("add_piece");
    group.sample_size(10).throughput(Throughput::Bytes(size.get()));
    group.bench_function("file", |b| {
        b.iter(|| {
            // Each round replaces the piece of the one before, as a repeated attempt does.
            let mut source: Box<dyn Read> = Box::new(std::io::empty());
            for _ in 0..64 {
                source = Box::new(source.chain(&raw[..]));
            }
            add_piece(&file, SectorSize::MiB512, &[], size, PieceData::Stream(&mut source))
        })
    });
    group.finish();
}

criterion_group!(benches, padding, commitment, to_file);
criterion_main!(benches);
