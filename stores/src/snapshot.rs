//! The index's memory on disk: which files lay where when it was last written. What is read back is unconfirmed until
//! its path is declared again; see [`MemIndex`].
//!
//! Format: `SEALYIDX`, version (u32), number of paths (u32); per path the length of its description (u32), the
//! description (JSON), the number of its sectors (u64) and 18 bytes for each: miner (u64), number (u64), types, primary
//! types; at the end the BLAKE3 hash of everything before it. Integers are little-endian. Written beside, fsynced and
//! renamed: at every moment either the old or the new file is there. Losing it loses no truth: paths are declared
//! again when their owners start.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sealtasks::{FileTypes, FsStat, SectorDecl, SectorId, StorageInfo};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::StoreError;
use crate::index::IndexError;
use crate::mem_index::{MemIndex, Remembered, SilentUrl};
use crate::meta::StorageMeta;

const MAGIC: &[u8; 8] = b"SEALYIDX";
/// The version written, and the newest one read.
const VERSION: u32 = 1;
/// Bytes of one sector in one path.
const RECORD: usize = 18;
const HASH: u64 = 32;
/// A longer description is none (bytes).
const DESCRIPTION_MAX: u32 = 1 << 20;
/// Sectors read before the index is told of them.
const BATCH: u64 = 10_000;

/// What became of a snapshot that was to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotRead {
    /// There is none.
    Missing,
    /// It was read.
    Restored {
        /// Paths in it.
        paths: usize,
        /// Sectors in paths, one in two paths counted twice.
        sectors: u64,
    },
    /// It was not read, and is kept for whoever wants to look at it.
    Ignored {
        /// What is wrong with it.
        why: String,
        /// Where it lies now.
        kept: PathBuf,
    },
}

/// A path as a snapshot describes it.
#[derive(Serialize, Deserialize)]
struct Description {
    meta: StorageMeta,
    urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    silent: Vec<SilentUrl>,
}

/// Writes what `index` knows into `file`, atomically and durably. Blocks; the index is locked for one path at a time.
///
/// # Errors
/// When the disk refuses; the old file then still stands.
pub fn write_snapshot(index: &MemIndex, file: &Path) -> Result<(), StoreError> {
    let temporary = disk::beside(file);
    let result = write_all(index, &temporary)
        .map_err(StoreError::io("write", &temporary))
        .and_then(|()| fs::rename(&temporary, file).map_err(StoreError::io("rename into", file)))
        .and_then(|()| disk::sync_parent(file));
    if result.is_err() {
        disk::discard(&temporary);
    }
    result
}

/// Reads `file` into `index`, which should be new. A file that is damaged, or of a newer version, is renamed and changes
/// nothing. Blocks.
///
/// # Errors
/// When the disk refuses.
pub fn read_snapshot(index: &MemIndex, file: &Path) -> Result<SnapshotRead, StoreError> {
    let found = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SnapshotRead::Missing),
        found => found.map_err(StoreError::io("open", file))?,
    };
    let ignored = |why: String, suffix: &str| {
        let kept = file.with_extension(suffix);
        fs::rename(file, &kept).map_err(StoreError::io("set aside", file))?;
        Ok(SnapshotRead::Ignored { why, kept })
    };
    let body = match body_of(&found) {
        Ok(body) => body,
        Err(Refusal::Disk(source)) => return Err(StoreError::io("read", file)(source)),
        Err(Refusal::Newer(version)) => {
            let why = format!("it has version {version}; this program reads up to {VERSION}");
            return ignored(why, "newer");
        }
        Err(refusal) => return ignored(refusal.to_string(), "damaged"),
    };
    let file_again = File::open(file).map_err(StoreError::io("open", file))?;
    let mut reader = BufReader::with_capacity(1 << 20, file_again.take(body));
    // Nearly all of it is sectors. Those in two paths are counted twice, for which there is then more room than is needed.
    index.expect_files(usize::try_from(body).unwrap_or(usize::MAX) / RECORD);
    match restore(index, &mut reader) {
        Ok((paths, sectors)) => Ok(SnapshotRead::Restored { paths, sectors }),
        Err(Refusal::Disk(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(StoreError::io("read", file)(source))
        }
        // The hash fits, so this is what was written: a defect of its writer. What was read of it is only remembered.
        Err(refusal) => ignored(refusal.to_string(), "damaged"),
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it ends too early")]
    Disk(#[from] io::Error),
    #[error("it has version {0}")]
    Newer(u32),
    #[error("{0}")]
    Damaged(String),
    #[error("a path of it was refused: {0}")]
    Index(#[from] IndexError),
}

fn damaged(why: &str) -> Refusal {
    Refusal::Damaged(why.to_owned())
}

fn write_all(index: &MemIndex, temporary: &Path) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(temporary)?;
    let mut out = Hashing { out: BufWriter::with_capacity(1 << 20, &file), hash: blake3::Hasher::new() };
    // A path that goes meanwhile is left out, one that comes waits for the next time.
    let paths: Vec<_> = index.path_ids();
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&u32::try_from(paths.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    for id in paths {
        match index.memory_of(&id) {
            Some((info, silent, files)) => write_path(&mut out, &info, silent, &files)?,
            None => write_none(&mut out)?,
        }
    }
    let hash = out.hash.finalize();
    out.out.write_all(hash.as_bytes())?;
    out.out.flush()?;
    drop(out);
    file.sync_all()
}

fn write_path(
    out: &mut impl Write,
    info: &StorageInfo,
    silent: Vec<SilentUrl>,
    files: &[Remembered],
) -> io::Result<()> {
    let (meta, urls) = (StorageMeta::new(&info.id, &info.stanza), info.urls.clone());
    let description = Description { meta, urls, silent };
    let description = serde_json::to_vec(&description)?;
    let length = u32::try_from(description.len()).ok().filter(|length| *length <= DESCRIPTION_MAX);
    // It would be refused when read; its files are declared again all the same.
    let Some(length) = length else { return write_none(out) };
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&description)?;
    out.write_all(&(files.len() as u64).to_le_bytes())?;
    for file in files {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&file.sector.miner.get().to_le_bytes());
        record[8..16].copy_from_slice(&file.sector.number.get().to_le_bytes());
        record[16] = file.types.bits();
        record[17] = file.primary.bits();
        out.write_all(&record)?;
    }
    Ok(())
}

/// A path without a description.
fn write_none(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&0_u32.to_le_bytes())
}

/// Checks version and hash; the number of bytes before the hash.
fn body_of(file: &File) -> Result<u64, Refusal> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut head = [0; 12];
    let body = length.checked_sub(HASH).filter(|body| *body >= head.len() as u64);
    let body = body.ok_or_else(|| damaged("it is too short"))?;
    reader.read_exact(&mut head)?;
    if !head.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a snapshot does"));
    }
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if version > VERSION {
        return Err(Refusal::Newer(version));
    }
    let mut hash = blake3::Hasher::new();
    hash.update(&head);
    hash.update_reader((&mut reader).take(body - head.len() as u64))?;
    let mut written = [0; HASH as usize];
    reader.read_exact(&mut written)?;
    if hash.finalize() == blake3::Hash::from_bytes(written) {
        Ok(body)
    } else {
        Err(damaged("its checksum is wrong"))
    }
}

fn restore(index: &MemIndex, reader: &mut impl Read) -> Result<(usize, u64), Refusal> {
    read::<12>(reader)?;
    let paths = u32::from_le_bytes(read(reader)?);
    let (mut restored, mut sectors) = (0, 0);
    for _ in 0..paths {
        let length = u32::from_le_bytes(read(reader)?);
        if length == 0 {
            continue;
        }
        if length > DESCRIPTION_MAX {
            return Err(damaged("the description of a path is too long"));
        }
        let mut description = vec![0; length as usize];
        reader.read_exact(&mut description)?;
        let Description { meta, urls, silent } =
            serde_json::from_slice(&description).map_err(|error| Refusal::Damaged(error.to_string()))?;
        let (id, stanza) =
            meta.validate(Path::new("")).map_err(|error| Refusal::Damaged(error.to_string()))?;
        index.remember_path(StorageInfo { id: id.clone(), urls, stanza }, FsStat::default(), &silent)?;
        let count = u64::from_le_bytes(read(reader)?);
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            let files: Result<Vec<_>, Refusal> = (0..batch).map(|_| read_record(reader)).collect();
            index.remember_files(&id, &files?)?;
            left -= batch;
        }
        restored += 1;
        sectors += count;
    }
    Ok((restored, sectors))
}

fn read_record(reader: &mut impl Read) -> Result<(SectorDecl, FileTypes), Refusal> {
    let miner = u64::from_le_bytes(read(reader)?);
    let number = u64::from_le_bytes(read(reader)?);
    let [types, primary] = read(reader)?;
    let types_of =
        |bits: u8| FileTypes::try_from(i64::from(bits)).map_err(|_| damaged("a file has no known type"));
    let decl = SectorDecl { sector: SectorId::new(miner, number), types: types_of(types)? };
    Ok((decl, types_of(primary)?))
}

fn read<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct Hashing<W> {
    out: W,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
