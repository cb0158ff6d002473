//! What tells one state of a sector's file or directory from another: names, lengths, times of change and inodes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::content::{self, Content};
use crate::error::StoreError;
use crate::members::Manifest;

/// The content list of the file or directory at `path`. Its etag changes whenever a file is written, replaced, added or
/// removed; a rename of the whole changes nothing. Blocks.
///
/// # Errors
/// When it cannot be looked at.
pub(crate) fn look(path: &Path) -> Result<Content, StoreError> {
    let found = std::fs::metadata(path).map_err(StoreError::io("look at", path))?;
    let mut files = Vec::new();
    let mut identity = blake3::Hasher::new();
    let mut note = |name: &str, found: &Metadata| {
        let line =
            format!("{name} {} {}.{:09} {}\n", found.len(), found.mtime(), found.mtime_nsec(), found.ino());
        identity.update(line.as_bytes());
        files.push((name.to_owned(), found.len()));
    };
    if found.is_dir() {
        for name in Manifest::of_dir(path)?.0.keys() {
            let file = path.join(name);
            note(name, &std::fs::metadata(&file).map_err(StoreError::io("look at", &file))?);
        }
    } else {
        note("", &found);
    }
    let etag = identity.finalize().to_hex().to_string();
    Ok(Content { version: content::VERSION, etag, files, data: Vec::new() })
}
