//! Parameters for the test sizes, made here from one fixed, published seed.
//!
//! The seed is no secret, so anybody can forge proofs for these parameters: they are for tests and for development
//! networks that use them on every node. They are the same on every machine, are pinned by digest, and lie in a
//! directory of their own. Nothing here ever writes to the shared directory.
//!
//! A crash loses the work and leaves a directory `.generating-…` that the next run removes; a file under its final name
//! is always whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bellperson::groth16::generate_random_parameters;
use blstrs::Bls12;
use filecoin_proofs::parameters::public_params;
use filecoin_proofs::{DefaultPieceHasher, PoRepConfig, with_shape};
use fs2::FileExt;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sealtasks::{RegisteredSealProof, SectorSize};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_core::parameter_cache::{
    CacheableParameters, ParameterSetMetadata, metadata_id, parameter_id, verifying_key_id,
};
use storage_proofs_porep::stacked::{StackedCircuit, StackedCompound};

use super::{DigestCache, Purpose, digest_file, needed};

/// The published, insecure seed of the ChaCha20 generator that all generated parameters come from.
pub const INSECURE_SEED: &[u8; 32] = b"Sealyard insecure parameters v1.";

/// How often progress is reported.
const TICK: Duration = Duration::from_secs(1);
const GIB: u64 = 1 << 30;

/// What generating parameters of one size takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Free memory, in bytes.
    pub memory: u64,
    /// Free disk space in the target directory, in bytes: the files and some slack.
    pub disk: u64,
    /// The time it takes on two 3.5 GHz cores without other work. It scales with the number of cores.
    pub expected: Duration,
}

/// What generating takes for `size`; `None` for production sizes, which nobody generates. Times of 2 KiB and 8 MiB were
/// measured on two cores; those of 512 MiB are estimates from the size of its circuit. Memory is the measured peak of
/// 2 KiB, and scaled from it with some slack for the others.
pub const fn requirement(size: SectorSize) -> Option<Requirement> {
    let (memory, disk, seconds) = match size {
        SectorSize::KiB2 => (5 * GIB, GIB + GIB / 4, 490),
        SectorSize::MiB8 => (7 * GIB, GIB + GIB / 2, 640),
        SectorSize::MiB512 => (10 * GIB, 3 * GIB, 1_200),
        SectorSize::GiB32 | SectorSize::GiB64 => return None,
    };
    Some(Requirement { memory, disk, expected: Duration::from_secs(seconds) })
}

/// Digests of generated files: `.params`, `.vk`, `.meta`. `None` where they have not been pinned yet; then the digests
/// are logged.
const fn pins(size: SectorSize) -> Option<[(&'static str, &'static str); 3]> {
    match size {
        SectorSize::KiB2 => Some([
            ("params", "5cfdfb18b847affdb2c5b1ec16878c75"),
            ("vk", "7ed130c162338570b03830bedc86d95a"),
            ("meta", "4745d560d6e545deac1863c6ea1a1d8d"),
        ]),
        SectorSize::MiB8 => Some([
            ("params", "380eed01f9500fb359655ddf3f0e9118"),
            ("vk", "37a104c31e62e770ae91c32b72a40744"),
            ("meta", "78bbf4e7b13f401c132240e75600cabb"),
        ]),
        SectorSize::MiB512 | SectorSize::GiB32 | SectorSize::GiB64 => None,
    }
}

/// The digest that the generated file of this name must have, where it is pinned.
pub fn pinned(size: SectorSize, name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    pins(size)?.into_iter().find_map(|(known, digest)| (known == extension).then_some(digest))
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerateProgress {
    /// Another process is generating the same; its result will be taken.
    Waiting,
    /// Work is going on; reported about once a second.
    Working {
        /// Since the start.
        elapsed: Duration,
        /// What it takes in all on two quiet cores; see [`Requirement::expected`].
        expected: Duration,
    },
}

/// Complete parameters of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The directory they lie in.
    pub directory: PathBuf,
    /// Each new file's name and digest; empty when they were there already.
    pub made: Vec<(String, String)>,
}

/// Why there are no generated parameters.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// 32 and 64 GiB.
    #[error(
        "parameters for {size} sectors cannot be generated, only those for 2KiB, 8MiB and 512MiB; run `sealyard params fetch {size}`"
    )]
    Size {
        /// The size asked for.
        size: SectorSize,
    },
    /// There is no place for them.
    #[error("there is no directory for generated parameters; set {} or HOME", super::INSECURE_VARIABLE)]
    NoDirectory,
    /// The target is the shared directory.
    #[error("{} is the directory of the published parameters, which insecure ones never go into; set {} to another", directory.display(), super::INSECURE_VARIABLE)]
    SharedDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// Not enough free memory.
    #[error("generating parameters for {size} sectors takes {} MiB of memory and {} MiB are free; stop other programs, or run `sealyard params fetch {size}`", needed >> 20, free >> 20)]
    Memory {
        /// The size asked for.
        size: SectorSize,
        /// Bytes it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Not enough free disk space.
    #[error("generating parameters for {size} sectors takes {} MiB in {} and {} MiB are free; make room or set {}", needed >> 20, directory.display(), free >> 20, super::INSECURE_VARIABLE)]
    Disk {
        /// The size asked for.
        size: SectorSize,
        /// The target.
        directory: PathBuf,
        /// Bytes it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The system refused something.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The library failed.
    #[error("the proofs library could not generate parameters: {message}")]
    Library {
        /// The library's chain of causes.
        message: String,
    },
    /// The result is not the one every other machine has.
    #[error(
        "generated {name} has digest {found}, not {expected}; nothing was kept: this build or this machine computes wrongly"
    )]
    Digest {
        /// The file.
        name: String,
        /// Its digest.
        found: String,
        /// The pinned one.
        expected: &'static str,
    },
}

/// Makes the parameters for `size` in the directory that this process's environment names, unless they are there.
///
/// Takes minutes on every core and blocks; run it in a process of its own if it must be stoppable. When another process
/// is at it this one waits for it and takes its result.
pub fn generate(
    size: SectorSize,
    progress: &(dyn Fn(GenerateProgress) + Sync),
) -> Result<Generated, GenerateError> {
    let directories = super::Directories::from_environment();
    let target = directories.insecure.clone().ok_or(GenerateError::NoDirectory)?;
    let requirement = requirement(size).ok_or(GenerateError::Size { size })?;
    let expected = requirement.expected;
    Target { directory: target, size, requirement }.fill(&directories.shared, progress, &|files| {
        let proof = crate::to_library(RegisteredSealProof::for_new_sector(size)).as_v1_config();
        ticking(progress, expected, || with_shape!(size.bytes(), write_parameters, &proof, files))
    })
}

/// Whether a file under a published name, whose digest is `found`, was generated here.
pub(super) fn is_ours(path: &Path, size: SectorSize, found: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match pinned(size, &name) {
        Some(pin) => pin == found,
        None => size.is_test_size() && path.with_file_name(marker(size)).is_file(),
    }
}

/// Whether `directory` holds generated parameters for `size`, whole and with the right digests.
pub(super) fn is_complete(directory: &Path, size: SectorSize, cache: &mut DigestCache) -> bool {
    needed(size, Purpose::Prove).iter().all(|file| {
        let path = directory.join(&file.name);
        match pinned(size, &file.name) {
            Some(pin) => cache.digest(&path).is_ok_and(|found| found == pin),
            // Not pinned: a file under its final name is whole, and only this module writes into its own directory.
            None => path.is_file() && directory.join(marker(size)).is_file(),
        }
    })
}

/// Where one size's parameters go.
pub(super) struct Target {
    pub directory: PathBuf,
    pub size: SectorSize,
    /// What must be free before a run begins.
    pub requirement: Requirement,
}

impl Target {
    /// Takes the lock, looks, checks memory and disk, lets `produce` write files into a temporary directory, checks
    /// their digests, and moves them into place.
    pub fn fill(
        &self,
        shared: &Path,
        progress: &(dyn Fn(GenerateProgress) + Sync),
        produce: &dyn Fn(&Path) -> Result<(), GenerateError>,
    ) -> Result<Generated, GenerateError> {
        fs::create_dir_all(&self.directory).map_err(self.error("creating"))?;
        if same_directory(&self.directory, shared) {
            return Err(GenerateError::SharedDirectory { directory: self.directory.clone() });
        }
        let _lock = self.lock(progress)?;
        let done = |made| Generated { directory: self.directory.clone(), made };
        if is_complete(&self.directory, self.size, &mut DigestCache::open(None)) {
            return Ok(done(Vec::new()));
        }
        self.remove_leftovers()?;
        self.check_room()?;
        let temporary = tempfile::Builder::new()
            .prefix(&self.leftover_prefix())
            .tempdir_in(&self.directory)
            .map_err(self.error("creating a temporary directory in"))?;
        produce(temporary.path())?;
        self.take_over(temporary.path()).map(done)
    }

    /// Held until the file is closed; the system releases it when a process dies.
    fn lock(&self, progress: &(dyn Fn(GenerateProgress) + Sync)) -> Result<File, GenerateError> {
        let path = self.directory.join(format!(".generate-{}.lock", self.size));
        let file = File::create(&path).map_err(self.error("creating a lock in"))?;
        if file.try_lock_exclusive().is_err() {
            progress(GenerateProgress::Waiting);
            file.lock_exclusive().map_err(self.error("locking"))?;
        }
        Ok(file)
    }

    fn leftover_prefix(&self) -> String {
        format!(".generating-{}-", self.size)
    }

    /// What a run that died left behind; the lock says that none is alive.
    fn remove_leftovers(&self) -> Result<(), GenerateError> {
        for entry in fs::read_dir(&self.directory).map_err(self.error("reading"))? {
            let entry = entry.map_err(self.error("reading"))?;
            if entry.file_name().to_string_lossy().starts_with(&self.leftover_prefix()) {
                fs::remove_dir_all(entry.path()).map_err(self.error("clearing leftovers from"))?;
            }
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), GenerateError> {
        let requirement = self.requirement;
        if let Some(free) = free_memory().filter(|free| *free < requirement.memory) {
            return Err(GenerateError::Memory { size: self.size, needed: requirement.memory, free });
        }
        let free = fs2::available_space(&self.directory).map_err(self.error("asking for free space in"))?;
        if free < requirement.disk {
            let directory = self.directory.clone();
            return Err(GenerateError::Disk { size: self.size, directory, needed: requirement.disk, free });
        }
        Ok(())
    }

    /// Checks every file, then moves all; the marker last.
    fn take_over(&self, from: &Path) -> Result<Vec<(String, String)>, GenerateError> {
        let mut made = Vec::new();
        for entry in fs::read_dir(from).map_err(self.error("reading"))? {
            let entry = entry.map_err(self.error("reading"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let found = digest_file(&entry.path()).map_err(self.error("reading back"))?;
            match pinned(self.size, &name) {
                Some(expected) if found != expected => {
                    return Err(GenerateError::Digest { name, found, expected });
                }
                Some(_) => {}
                None => tracing::warn!(name, digest = found, "no digest is pinned for this file yet"),
            }
            made.push((name, found));
        }
        made.sort();
        for (name, _) in &made {
            fs::rename(from.join(name), self.directory.join(name))
                .map_err(self.error("moving files into"))?;
        }
        File::create(self.directory.join(marker(self.size))).map_err(self.error("writing to"))?;
        File::open(&self.directory).and_then(|dir| dir.sync_all()).map_err(self.error("syncing"))?;
        Ok(made)
    }

    fn error(&self, doing: &'static str) -> impl Fn(io::Error) -> GenerateError {
        move |source| GenerateError::Io { doing, path: self.directory.clone(), source }
    }
}

/// Says that every file of a size has been moved into place.
fn marker(size: SectorSize) -> String {
    format!(".complete-{size}")
}

fn same_directory(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Runs `work` while a second thread reports the time.
fn ticking<T>(
    progress: &(dyn Fn(GenerateProgress) + Sync),
    expected: Duration,
    work: impl FnOnce() -> T,
) -> T {
    let started = Instant::now();
    let (done, until_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while until_done.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                progress(GenerateProgress::Working { elapsed: started.elapsed(), expected });
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Proving key, verifying key and metadata, byte for byte as the library's own cache would write them.
fn write_parameters<Tree: 'static + MerkleTreeTrait>(
    config: &PoRepConfig,
    directory: &Path,
) -> Result<(), GenerateError> {
    let library = |message: String| GenerateError::Library { message };
    let params = public_params::<Tree>(config).map_err(|error| library(format!("{error:#}")))?;
    let id = <StackedCompound<Tree, DefaultPieceHasher> as CacheableParameters<
        StackedCircuit<Tree, DefaultPieceHasher>,
        _,
    >>::cache_identifier(&params);
    let circuit = <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<_, _>>::blank_circuit(&params);
    let mut random = ChaCha20Rng::from_seed(*INSECURE_SEED);
    let keys = generate_random_parameters::<Bls12, _, _>(circuit, &mut random)
        .map_err(|error| library(error.to_string()))?;
    write_file(&directory.join(parameter_id(&id)), |file| keys.write(file))?;
    write_file(&directory.join(verifying_key_id(&id)), |file| keys.vk.write(file))?;
    let metadata = format!("{{\"sector_size\":{}}}", params.sector_size());
    write_file(&directory.join(metadata_id(&id)), |file| file.write_all(metadata.as_bytes()))
}

fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), GenerateError> {
    let run = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    run().map_err(|source| GenerateError::Io { doing: "writing", path: path.to_owned(), source })
}

/// Memory that can be had without swapping, in bytes, within this process's control group; `None` where the system does
/// not say.
fn free_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    let in_group =
        number("memory.max").zip(number("memory.current")).map(|(max, used)| max.saturating_sub(used));
    Some(in_group.unwrap_or(u64::MAX).min(kib.saturating_mul(1024)))
}
