//! Storage paths of a rehearsal: their files have the true lengths and no bytes. Room is counted by lengths, within a
//! capacity that is made up; what is empty is told to peers and not sent. A file in the path marks it, so that no worker
//! ever takes such files for real ones, nor puts real ones beside them.
//!
//! Only here are a file system's words on holes believed: some (ZFS until 2.2.2) name data that is not yet on disk a hole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::content::Content;
use crate::disk;
use crate::error::StoreError;

/// The file's name in a storage path.
pub const MARK_FILE: &str = "REHEARSAL";

const MARK_TEXT: &[u8] =
    b"REHEARSAL: the sector files in this storage path are empty. Never use it for real sectors.\n";

/// More pieces of data than this are no empty file; it is then sent as a whole.
const EXTENTS_MAX: usize = 4096;

/// How a process opens its storage paths for a rehearsal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The bytes that each path is said to have.
    pub capacity: u64,
}

impl Default for Rehearsal {
    /// 100 TiB: more than most machines that store sectors.
    fn default() -> Self {
        Self { capacity: 100 << 40 }
    }
}

impl Rehearsal {
    /// What a path offers: its capacity, and what its files leave of it.
    pub(crate) fn measure(self, dir: &Path) -> io::Result<(u64, u64)> {
        let taken = lengths(dir).map_err(io::Error::other)?;
        Ok((self.capacity, self.capacity.saturating_sub(taken)))
    }
}

/// Checks that a path is of the kind that it is opened as. One without files becomes a rehearsal's when it is first opened
/// for one.
///
/// # Errors
/// It is of the other kind.
pub(crate) fn claim(dir: &Path, rehearses: bool, has_files: bool) -> Result<(), StoreError> {
    let mark = dir.join(MARK_FILE);
    let marked = mark.try_exists().map_err(StoreError::io("look at", &mark))?;
    match (rehearses, marked) {
        (false, false) | (true, true) => Ok(()),
        (true, false) if !has_files => disk::replace(&mark, MARK_TEXT),
        (rehearses, _) => Err(StoreError::OtherWorld { path: dir.to_owned(), rehearses }),
    }
}

/// The lengths of all files below `path`, holes included; 0 when it is not there.
pub(crate) fn lengths(path: &Path) -> Result<u64, StoreError> {
    let mut total = 0_u64;
    let mut open: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(next) = open.pop() {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_dir() => match fs::read_dir(&next) {
                Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(StoreError::io("measure", &next)(error)),
            },
            Ok(found) => total = total.saturating_add(found.len()),
            // Files come and go while a path is measured.
            Err(error) if gone(&error) => {}
            Err(error) => return Err(StoreError::io("measure", &next)(error)),
        }
    }
    Ok(total)
}

/// Adds to a content list where its files have data. Blocks.
///
/// # Errors
/// When a file cannot be opened.
pub(crate) fn tell_data(path: &Path, content: &mut Content) -> Result<(), StoreError> {
    let mut data = Vec::new();
    for (name, length) in &content.files {
        let file = if name.is_empty() { path.to_owned() } else { path.join(name) };
        data.push(extents(&file, *length).map_err(StoreError::io("look into", &file))?);
    }
    content.data = data;
    Ok(())
}

/// Where a file has data: offset and length, in order. A file system that does not say has data everywhere.
fn extents(path: &Path, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let whole = vec![(0, length)];
    let (mut found, mut at) = (Vec::new(), 0);
    while at < length {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(whole),
            Err(error) => return Err(error.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start))?.min(length);
        if start >= end || found.len() >= EXTENTS_MAX {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    Ok(if found.len() >= EXTENTS_MAX { whole } else { found })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn room_is_counted_by_lengths_and_only_data_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).expect("created");
        let file = File::create(cache.join("p_aux")).expect("created");
        file.set_len(32 << 30).expect("sparse");
        file.write_all_at(b"here", 5 << 30).expect("written");
        assert_eq!(lengths(dir.path()).expect("measured"), 32 << 30);
        let (capacity, free) = Rehearsal { capacity: 40 << 30 }.measure(dir.path()).expect("measured");
        assert_eq!((capacity, free), (40 << 30, 8 << 30));
        assert_eq!(Rehearsal { capacity: 1 << 30 }.measure(dir.path()).expect("measured").1, 0);

        let files = vec![("p_aux".to_owned(), 32 << 30)];
        let etag = "a".repeat(64);
        let mut content = Content { version: crate::content::VERSION, etag, files, data: Vec::new() };
        tell_data(&cache, &mut content).expect("told");
        let told = &content.data[0];
        assert!(told.len() == 1 && told[0].0 == 5 << 30 && told[0].1 < 1 << 20, "{told:?}");
    }

    #[test]
    fn a_path_is_of_one_world_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        claim(dir.path(), false, true).expect("real files in a real path");
        let told = claim(dir.path(), true, true).expect_err("real files").to_string();
        assert!(told.contains("real sector files"), "{told}");
        claim(dir.path(), true, false).expect("an empty one may become a rehearsal's");
        claim(dir.path(), true, true).expect("and stays one");
        for has_files in [false, true] {
            let told = claim(dir.path(), false, has_files).expect_err("empty files").to_string();
            assert!(told.contains("REHEARSAL"), "{told}");
        }
    }
}
