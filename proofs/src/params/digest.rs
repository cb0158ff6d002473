//! The published digests' hash, and a memory of which file had which, so that gigabytes are read once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Hexadecimal digits of BLAKE2b-512 that the published list gives.
pub const DIGEST_DIGITS: usize = 32;
/// Read at a time; large enough that the disk is the limit.
const BUFFER_BYTES: usize = 1 << 20;
/// A few hundred entries at most; a longer file is not ours and is started anew.
const CACHE_BYTES_MAX: u64 = 1 << 20;

/// The first 32 hexadecimal digits of a file's BLAKE2b-512. About a second per GiB.
pub fn digest_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut state = blake2b_simd::Params::new().to_state();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => state.update(&buffer[..read]),
        };
    }
    let mut digits = state.finalize().to_hex().to_string();
    digits.truncate(DIGEST_DIGITS);
    Ok(digits)
}

/// What a digest was computed of: a file with another length or modification time is another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    modified_ns: u128,
    digest: String,
}

/// Digests that have been computed, kept in a file of our own, never beside the parameters.
#[derive(Debug)]
pub struct DigestCache {
    file: Option<PathBuf>,
    entries: BTreeMap<PathBuf, Entry>,
    changed: bool,
}

impl DigestCache {
    /// The digests remembered in `file`. An absent or unreadable file is an empty memory: it only saves time.
    pub fn open(file: Option<PathBuf>) -> Self {
        let entries = file.as_deref().and_then(read_entries).unwrap_or_default();
        Self { file, entries, changed: false }
    }

    /// The digest of the file at `path`, computed unless it is remembered.
    pub fn digest(&mut self, path: &Path) -> io::Result<String> {
        let (bytes, modified_ns) = identity(path)?;
        if let Some(digest) = self.remembered(path, bytes, modified_ns) {
            return Ok(digest);
        }
        let digest = digest_file(path)?;
        // A file that changed while it was read has no digest worth keeping.
        if identity(path)? == (bytes, modified_ns) {
            let entry = Entry { bytes, modified_ns, digest: digest.clone() };
            self.entries.insert(path.to_owned(), entry);
            self.changed = true;
        }
        Ok(digest)
    }

    /// The digest if it is remembered; nothing is computed.
    pub fn known(&self, path: &Path) -> Option<String> {
        let (bytes, modified_ns) = identity(path).ok()?;
        self.remembered(path, bytes, modified_ns)
    }

    /// Writes the memory back if it grew. Failing to is no harm and only logged.
    pub fn save(&mut self) {
        let Some(file) = self.file.as_deref().filter(|_| self.changed) else { return };
        self.entries.retain(|path, _| path.exists());
        match write_entries(file, &self.entries) {
            Ok(()) => self.changed = false,
            Err(error) => {
                tracing::debug!(file = %file.display(), %error, "parameter digests are not remembered")
            }
        }
    }

    fn remembered(&self, path: &Path, bytes: u64, modified_ns: u128) -> Option<String> {
        let entry = self.entries.get(path)?;
        (entry.bytes == bytes && entry.modified_ns == modified_ns).then(|| entry.digest.clone())
    }
}

fn identity(path: &Path) -> io::Result<(u64, u128)> {
    let metadata = std::fs::metadata(path)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), modified.as_nanos()))
}

fn read_entries(file: &Path) -> Option<BTreeMap<PathBuf, Entry>> {
    let mut text = String::new();
    File::open(file).ok()?.take(CACHE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_entries(file: &Path, entries: &BTreeMap<PathBuf, Entry>) -> io::Result<()> {
    let Some(parent) = file.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    std::fs::create_dir_all(parent)?;
    // The process id keeps two writers apart; the last one's memory stays, which costs the other a second look.
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    File::create(&temporary)?.write_all(&serde_json::to_vec(entries)?)?;
    std::fs::rename(&temporary, file)
}
