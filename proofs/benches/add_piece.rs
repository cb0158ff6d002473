//! AddPiece against filecoin-proofs' `add_piece`, and against the disk: how fast, and that both commit to the same.
//!
//! `cargo bench -p proofs --bench add_piece [-- --quick | -- --mib N --rounds N]`. `--quick` takes a small piece through one
//! round in seconds; `cargo test` runs that. All candidates take turns in every round, over the same reused source buffer;
//! figures are medians. In memory means from a buffer into nothing. Rates are raw bytes in wall time; "per core" are bytes
//! in processor time on one thread, which other programs on the machine do not change much. "Split" is the processor time of
//! all threads of the pool over that of the busiest one: what two threads can gain at most on two idle cores. "Apart" are two
//! pieces at once, one thread each, that share nothing: what this machine's cores and memory give two threads of this work.
//! The files go to `TMPDIR`; the direct write, by one writer and by two, and AddPiece write the same amount of noise around the
//! page cache into a file whose space is reserved, and end with fsync.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use filecoin_proofs::UnpaddedBytesAmount;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use pieces::{Kernel, PieceData, add_piece, data_cid, pad_piece};
use rayon::ThreadPool;
use sealtasks::{SectorSize, UnpaddedPieceSize};

/// Bytes written directly at once.
const DIRECT: usize = 4 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| text.parse().expect("a number"))
    };
    let quick = has("--quick") || !has("--bench");
    let (mib, rounds) = if quick { (8, 1) } else { (number("--mib", 512), number("--rounds", 7)) };
    let bench = Bench::new(mib << 20);
    let mut table: Vec<(Case, Vec<Sample>)> =
        bench.cases().into_iter().map(|case| (case, Vec::new())).collect();
    for _ in 0..rounds {
        for (case, samples) in &mut table {
            samples.push(bench.run(case));
        }
    }
    show(&table, &bench, rounds);
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Library,
    Ours(Kernel),
    DirectWrite,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Memory,
    Apart,
    Disk,
    ZeroStream,
    Hole,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Case {
    who: Who,
    what: What,
    threads: usize,
}

/// How long it took.
#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    processor: Duration,
    /// All threads of the pool over the busiest one.
    split: f64,
}

struct Bench {
    /// The piece's raw bytes.
    raw: Vec<u8>,
    size: UnpaddedPieceSize,
    sector: SectorSize,
    expected: [u8; 32],
    pools: [ThreadPool; 2],
    /// One thread each.
    apart: [ThreadPool; 2],
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(padded: u64) -> Self {
        let raw: Vec<u8> = noise(padded / 128 * 127);
        let size = UnpaddedPieceSize::try_from(raw.len() as u64).expect("a power of two of MiB");
        let pool = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
        };
        let (pools, apart) = ([1, 2].map(pool), [1, 1].map(pool));
        let sectors = [SectorSize::MiB8, SectorSize::MiB512, SectorSize::GiB32];
        let sector = sectors.into_iter().find(|sector| sector.bytes() >= padded).expect("a sector holds it");
        let expected = library(&raw, size);
        let directory = tempfile::tempdir().expect("a directory");
        Self { raw, size, sector, expected, pools, apart, directory }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for threads in [1, 2] {
            cases.push(Case { who: Who::Library, what: What::Memory, threads });
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
                cases.push(Case { who: Who::Ours(kernel), what: What::Memory, threads });
            }
        }
        let best = Who::Ours(Kernel::in_use());
        cases.push(Case { who: best, what: What::Apart, threads: 2 });
        cases.push(Case { who: Who::DirectWrite, what: What::Disk, threads: 1 });
        cases.push(Case { who: Who::DirectWrite, what: What::Disk, threads: 2 });
        cases.push(Case { who: best, what: What::Disk, threads: 2 });
        cases.push(Case { who: best, what: What::ZeroStream, threads: 1 });
        cases.push(Case { who: best, what: What::Hole, threads: 1 });
        cases
    }

    fn run(&self, case: &Case) -> Sample {
        let prepared = self.prepare(case);
        let pool = &self.pools[case.threads - 1];
        let threads = || pool.broadcast(|_| processor(UsageWho::RUSAGE_THREAD));
        let before = (Instant::now(), processor(UsageWho::RUSAGE_SELF), threads());
        pool.install(|| self.once(case, prepared));
        let (wall, used) = (before.0.elapsed(), processor(UsageWho::RUSAGE_SELF) - before.1);
        let each: Vec<Duration> = threads().iter().zip(&before.2).map(|(now, then)| *now - *then).collect();
        let busiest = each.iter().max().copied().unwrap_or_default();
        let split = each.iter().sum::<Duration>().as_secs_f64() / busiest.as_secs_f64().max(1e-9);
        Sample { wall, processor: used, split }
    }

    /// What is there before the clock runs.
    fn prepare(&self, case: &Case) -> Option<File> {
        if let Who::Ours(kernel) = case.who {
            assert!(kernel.select());
        }
        let path = self.directory.path().join("file");
        // The file of the round before; there is none before the first.
        let _ = fs::remove_file(&path);
        match (case.who, case.what) {
            (Who::DirectWrite, _) => Some(reserved(&path, self.size.padded().get())),
            (_, What::Hole) => {
                let file = tempfile::tempfile_in(self.directory.path()).expect("a file");
                file.set_len(self.size.get()).expect("a hole");
                Some(file)
            }
            _ => None,
        }
    }

    fn once(&self, case: &Case, prepared: Option<File>) {
        let path = self.directory.path().join("file");
        let mut source = &self.raw[..];
        let stream = PieceData::Stream(&mut source);
        let info = match (case.who, case.what) {
            (Who::Library, _) => return assert_eq!(library(&self.raw, self.size), self.expected),
            (Who::DirectWrite, _) => {
                return write_directly(&prepared.expect("a file"), &self.raw, case.threads);
            }
            (Who::Ours(_), What::Apart) => return self.apart(),
            (Who::Ours(_), What::Memory) => pad_piece(self.size, stream, &mut io::sink()),
            (Who::Ours(_), What::Disk) => add_piece(&path, self.sector, &[], self.size, stream),
            (Who::Ours(_), What::ZeroStream) => {
                return self.zeros(PieceData::Stream(&mut io::repeat(0).take(self.size.get())));
            }
            (Who::Ours(_), What::Hole) => return self.zeros(PieceData::File(&prepared.expect("a file"))),
        };
        assert_eq!(info.expect("the piece fits").cid.commitment().bytes(), &self.expected, "{case:?}");
    }

    fn apart(&self) {
        std::thread::scope(|scope| {
            for pool in &self.apart {
                let one = || pad_piece(self.size, PieceData::Stream(&mut &self.raw[..]), &mut io::sink());
                scope.spawn(move || pool.install(one).expect("the piece fits"));
            }
        });
    }

    fn zeros(&self, data: PieceData<'_>) {
        let info = data_cid(self.size, data).expect("the piece's length");
        assert_eq!(info.cid.commitment(), pieces::commitment::zero_commitment(self.size.padded()));
    }
}

fn noise(len: u64) -> Vec<u8> {
    let mut state = 0x5ea1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// filecoin-proofs' commitment of the piece, its padded bytes going nowhere.
fn library(raw: &[u8], size: UnpaddedPieceSize) -> [u8; 32] {
    let amount = UnpaddedBytesAmount(size.get());
    let (info, _) =
        filecoin_proofs::add_piece(Cursor::new(raw), io::sink(), amount, &[]).expect("the library");
    info.commitment
}

/// A file of this length, its space reserved, open for writing around the page cache.
fn reserved(path: &Path, len: u64) -> File {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).custom_flags(OFlag::O_DIRECT.bits());
    let file = options.open(path).expect("a file system that writes directly");
    fallocate(&file, FallocateFlags::empty(), 0, len.cast_signed()).expect("space");
    file.sync_all().expect("fsync");
    file
}

/// Writes noise until the file is full, by so many writers at once.
fn write_directly(file: &File, raw: &[u8], writers: usize) {
    let padded = raw.len() as u64 / 127 * 128;
    std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || {
                let mut buffer = vec![0u8; DIRECT + 4096];
                let start = buffer.as_ptr().align_offset(4096);
                buffer[start..].copy_from_slice(&raw[..DIRECT + 4096 - start]);
                for at in (0..padded).step_by(DIRECT).skip(writer).step_by(writers) {
                    let len = DIRECT.min((padded - at) as usize);
                    file.write_all_at(&buffer[start..start + len], at).expect("the disk");
                }
            });
        }
    });
    file.sync_all().expect("fsync");
}

/// Processor time that this process, or this thread, has used.
fn processor(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("our own usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

/// The median split.
fn split(samples: &[Sample]) -> f64 {
    let mut splits: Vec<f64> = samples.iter().map(|sample| sample.split).collect();
    splits.sort_unstable_by(f64::total_cmp);
    splits[splits.len() / 2]
}

/// Raw bytes that a case takes through.
fn bytes(case: Case, bench: &Bench) -> u64 {
    bench.size.get() * if case.what == What::Apart { 2 } else { 1 }
}

/// Median rates in MB/s: by wall clock, by processor time.
fn rates(samples: &[Sample], bytes: u64) -> (f64, f64) {
    let median = |of: fn(&Sample) -> Duration| {
        let mut times: Vec<Duration> = samples.iter().map(of).collect();
        times.sort_unstable();
        bytes as f64 / 1e6 / times[times.len() / 2].as_secs_f64().max(1e-9)
    };
    (median(|sample| sample.wall), median(|sample| sample.processor))
}

#[expect(clippy::print_stdout, reason = "a benchmark's table")]
fn show(table: &[(Case, Vec<Sample>)], bench: &Bench, rounds: u64) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "a piece of {} MiB, {rounds} rounds, median MB/s of raw bytes; load {}",
        bench.size.padded().get() >> 20,
        load.trim()
    );
    let rate = |who, what, threads| {
        let case = Case { who, what, threads };
        let found = table.iter().find(|(other, _)| *other == case);
        found.map_or((f64::NAN, f64::NAN), |(_, samples)| rates(samples, bytes(case, bench)))
    };
    println!("{:<44}{:>8}{:>12}{:>10}{:>8}", "", "threads", "wall", "per core", "split");
    for (case, samples) in table {
        let name = match case.who {
            Who::Library => "filecoin-proofs add_piece".to_owned(),
            Who::Ours(kernel) => format!("ours, {kernel}"),
            Who::DirectWrite => "direct write of noise, fsync".to_owned(),
        };
        let (wall, core) = rates(samples, bytes(*case, bench));
        let (name, split) = (format!("{name}: {:?}", case.what), split(samples));
        println!("{name:<44}{:>8}{wall:>12.0}{core:>10.0}{split:>8.2}", case.threads);
    }
    println!("commitments: equal in every run of filecoin-proofs and of every kernel");
    let best =
        Who::Ours(*Kernel::ALL.iter().rfind(|kernel| kernel.is_available()).expect("one runs anywhere"));
    let library = rate(Who::Library, What::Memory, 1);
    let (one, two) = (rate(best, What::Memory, 1), rate(best, What::Memory, 2));
    let disk = rate(best, What::Disk, 2).0;
    let direct = [1, 2].map(|writers| rate(Who::DirectWrite, What::Disk, writers).0);
    let limit = direct[0].max(direct[1]).min(two.0);
    goal("in memory, per core, times filecoin-proofs'", one.1 / library.1, 2.5);
    goal("in memory, two threads, times one (wall)", two.0 / one.0, 1.9);
    println!(
        "  two pieces apart, times one thread: {:.2}, as much as this machine gives two threads",
        rate(best, What::Apart, 2).0 / one.0
    );
    goal("to disk with fsync, of the smaller of direct write and memory", disk / limit, 0.85);
    goal("a stream of zeros, times data in memory", rate(best, What::ZeroStream, 1).1 / one.1, 10.0);
    goal("a hole, times data in memory", rate(best, What::Hole, 1).1 / one.1, 100.0);
    for kernel in [Kernel::ShaExtensions, Kernel::Portable].into_iter().filter(|kernel| kernel.is_available())
    {
        let core = rate(Who::Ours(kernel), What::Memory, 1).1;
        println!("without AVX-512 ({kernel}): {:.2} times filecoin-proofs' per core", core / library.1);
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's table")]
fn goal(what: &str, figure: f64, limit: f64) {
    let verdict = if figure >= limit { "reached" } else { "NOT reached" };
    println!("{what}: {figure:.2}, limit {limit:.2}: {verdict}");
}
