//! A copy of a sector's file in another directory of this machine, and whether it is what its source is, byte by byte, as the
//! disk has it. Never: deletes a source.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use blake3::Hash;

use crate::direct;
use crate::disk::{flat_listing, shape, sync_dir};
use crate::error::StoreError;
use crate::identity::look;

/// A copy that was made, and what it was made of.
pub(crate) struct Copied {
    from: PathBuf,
    to: PathBuf,
    /// The source's state before it was read.
    etag: String,
    /// The names of its files, the empty one for a plain file, and the hashes of their bytes as they were read. `None`
    /// where the file system let the copy share the source's blocks.
    hashes: Vec<(String, Option<Hash>)>,
}

/// Copies a file or a flat directory to `to`, which must not exist, and makes it durable.
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    let etag = look(from)?.etag;
    let found = fs::metadata(from).map_err(StoreError::io("look at", from))?;
    let mut hashes = Vec::new();
    if found.is_dir() {
        DirBuilder::new().mode(0o755).create(to).map_err(StoreError::io("create directory", to))?;
        for (name, _) in flat_listing(from)? {
            let hash = direct::copy(&from.join(&name), &to.join(&name))?;
            hashes.push((name, hash));
        }
        sync_dir(to)?;
    } else {
        hashes.push((String::new(), direct::copy(from, to)?));
    }
    Ok(Copied { from: from.to_owned(), to: to.to_owned(), etag, hashes })
}

impl Copied {
    /// Reads the copy back from the disk and compares it with what was read of the source, which must be as it was.
    ///
    /// # Errors
    /// [`StoreError::Miscopied`] for bytes that differ, [`StoreError::Archive`] for a source that has changed, and whatever
    /// the disk refuses.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let Self { from, to, .. } = self;
        for (name, read) in &self.hashes {
            let file = if name.is_empty() { to.clone() } else { to.join(name) };
            if let Some(read) = read
                && direct::on_disk(&file)?.hash != *read
            {
                return Err(StoreError::Miscopied { from: from.clone(), to: file });
            }
        }
        if look(from)?.etag != self.etag || shape(from)? != shape(to)? {
            return Err(StoreError::Archive { reason: format!("{from:?} changed while it was copied") });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    fn spoil(path: &Path, at: u64) {
        let mut file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(b"!").expect("written");
        file.sync_all().expect("on disk");
    }

    fn reason(copied: &Copied) -> String {
        copied.check().expect_err("it is spoilt").to_string()
    }

    #[test]
    fn one_wrong_byte_of_a_copy_is_found_by_reading_it_back() {
        let dir = tempfile::tempdir().expect("a directory");
        for length in [1, 5000, (3 << 20) + 7] {
            let (from, to) = (dir.path().join(format!("a{length}")), dir.path().join(format!("b{length}")));
            fs::write(&from, vec![7; length]).expect("written");
            let copied = copy_synced(&from, &to).expect("copied");
            copied.check().expect("the same");
            if copied.hashes[0].1.is_none() {
                continue; // this file system shares blocks, and the copy has none of its own to be wrong
            }
            spoil(&to, length as u64 - 1);
            assert!(reason(&copied).contains("is not what was read of"), "{length}");
        }
    }

    #[test]
    fn a_directory_is_compared_file_by_file_and_a_changed_source_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).expect("made");
        for name in ["p_aux", "t_aux"] {
            fs::write(from.join(name), [7; 64]).expect("written");
        }
        let copied = copy_synced(&from, &to).expect("copied");
        copied.check().expect("the same");
        spoil(&from.join("t_aux"), 3);
        assert!(reason(&copied).contains("changed while it was copied"));
    }
}
