//! The sector's data in the sealed file, as PreCommit1 left it there and before PreCommit2 encodes it in place: whether
//! it is there still, and how it comes back.
//!
//! The library would encode whatever it finds, so a second run on a file that is encoded, wholly or in part, would give
//! a CommR that nothing fits. The leaves of tree-d are the same bytes once more: PreCommit1 builds the tree from them.
//! Never touches tree-d or the layers.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::TaskError;
use crate::files::{remove, sync, sync_all};

/// Read at a time from either file (bytes).
const CHUNK: usize = 4 << 20;

/// Bytes of a tree's node.
const NODE: u64 = 32;

/// What PreCommit2 makes in the cache; `sc-02-data-tree-c-3.dat` and the like begin so.
const MADE_BY_PRE_COMMIT2: [&str; 5] =
    ["sc-02-data-tree-c", "sc-02-data-tree-r-last", "p_aux", "t_aux", "syn-porep-vanilla-proofs"];

/// A sector between PreCommit1 and the end of PreCommit2.
pub(crate) struct Unencoded<'a> {
    /// The sealed file.
    pub sealed: &'a Path,
    /// The cache directory.
    pub cache: &'a Path,
    /// The tree over the data, in the cache.
    pub tree_d: &'a Path,
    /// The sector's size in bytes.
    pub bytes: u64,
}

impl Unencoded<'_> {
    /// Whether tree-d is there in its full length: a binary tree over the sector's nodes.
    pub fn has_tree(&self) -> Result<bool, TaskError> {
        match fs::metadata(self.tree_d) {
            Ok(found) => Ok(found.is_file() && found.len() == 2 * self.bytes - NODE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed("looking at", self.tree_d)(source)),
        }
    }

    /// Brings the files back to what PreCommit1 left, if an earlier PreCommit2 changed them. Needs tree-d.
    pub fn restore(&self) -> Result<(), TaskError> {
        let left = self.left_behind()?;
        let intact = self.holds_data()?;
        if left.is_empty() && intact {
            return Ok(());
        }
        tracing::warn!(sealed = %self.sealed.display(), intact, ?left, "an earlier PreCommit2 is undone");
        // Before the data: without them no later run can take the sector for a finished one.
        for path in &left {
            remove(path)?;
        }
        sync(self.cache)?;
        if intact { Ok(()) } else { self.write_data() }
    }

    fn left_behind(&self) -> Result<Vec<PathBuf>, TaskError> {
        let listing = || failed("listing", self.cache);
        let mut left = Vec::new();
        for entry in fs::read_dir(self.cache).map_err(listing())? {
            let path = entry.map_err(listing())?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if MADE_BY_PRE_COMMIT2.iter().any(|made| name.starts_with(made)) {
                left.push(path);
            }
        }
        Ok(left)
    }

    /// Compares the two files, each read once; stops at the first difference.
    fn holds_data(&self) -> Result<bool, TaskError> {
        let mut leaves = self.leaves()?;
        let mut sealed = File::open(self.sealed).map_err(failed("opening", self.sealed))?;
        if sealed.metadata().map_err(failed("looking at", self.sealed))?.len() != self.bytes {
            return Ok(false);
        }
        let (mut data, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
        loop {
            let read = leaves.read(&mut data).map_err(failed("reading", self.tree_d))?;
            if read == 0 {
                return Ok(true);
            }
            sealed.read_exact(&mut found[..read]).map_err(failed("reading", self.sealed))?;
            if data[..read] != found[..read] {
                return Ok(false);
            }
        }
    }

    /// An interrupted run is found by the next one, which compares again.
    fn write_data(&self) -> Result<(), TaskError> {
        let mut leaves = self.leaves()?;
        let writing = || failed("restoring", self.sealed);
        let mut sealed = File::options().write(true).open(self.sealed).map_err(writing())?;
        let mut data = vec![0; CHUNK];
        loop {
            let read = leaves.read(&mut data).map_err(failed("reading", self.tree_d))?;
            if read == 0 {
                break;
            }
            sealed.write_all(&data[..read]).map_err(writing())?;
        }
        sealed.set_len(self.bytes).map_err(writing())?;
        sync_all(&sealed, self.sealed)
    }

    fn leaves(&self) -> Result<io::Take<File>, TaskError> {
        Ok(File::open(self.tree_d).map_err(failed("opening", self.tree_d))?.take(self.bytes))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TaskError {
    let path = path.to_owned();
    move |source| TaskError::Io { doing, path, source }
}
