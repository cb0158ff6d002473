//! Names and lengths of the files in a sector's cache, by size of sector and step of sealing.
//!
//! Source: rust-fil-proofs (`storage-proofs-porep`, `storage-proofs-core`, constants and merkle/builders): layers and the
//! replica have the sector's size; tree-d is a whole binary tree; tree-c and tree-r-last are trees of arity 8, one for
//! every 2^27 leaves at most, of which tree-r-last keeps neither its leaves nor two rows above them.

use sealtasks::SectorSize;

/// Bytes of a node.
const NODE: u64 = 32;
/// The arity of tree-c and tree-r-last.
const ARITY: u64 = 8;
/// Rows above the leaves that tree-r-last leaves out; `FIL_PROOFS_ROWS_TO_DISCARD`'s default.
const DISCARDED: u32 = 2;

/// Where sealing has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// PreCommit1 is done: the labels and tree-d.
    Labelled,
    /// PreCommit2 is done: all trees, and what they are described by.
    Treed,
    /// Finalize is done: what proving needs.
    Cleared,
}

/// The files of a cache of this size at this stage: their names and lengths in bytes, in the names' order. That of `t_aux`
/// is a bound: the real one holds the cache's own path.
pub fn cache_files(size: SectorSize, stage: Stage) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    if stage != Stage::Cleared {
        let layers = 1..=size.layers();
        files.extend(layers.map(|layer| (format!("sc-02-data-layer-{layer}.dat"), size.bytes())));
        files.push(("sc-02-data-tree-d.dat".to_owned(), 2 * size.bytes() - NODE));
    }
    if stage == Stage::Treed {
        files.extend(trees(size, "tree-c", rows(size)));
    }
    if stage != Stage::Labelled {
        // The leaves and the rows that are left out; a root stays.
        let left_out = 1 + DISCARDED.min(rows(size).saturating_sub(2));
        files.extend(trees(size, "tree-r-last", rows(size) - left_out));
        files.extend([("p_aux".to_owned(), 64), ("t_aux".to_owned(), T_AUX)]);
    }
    files.sort();
    files
}

/// What stands in for `t_aux` (bytes); no real one is longer than 10 KiB.
pub(super) const T_AUX: u64 = 2048;

/// Rows of one tree, root and leaves included.
fn rows(size: SectorSize) -> u32 {
    let leaves = size.bytes() / NODE / size.tree_count() as u64;
    leaves.ilog(ARITY) + 1
}

/// Trees of so many rows, counted from the root.
fn trees(size: SectorSize, name: &str, rows: u32) -> Vec<(String, u64)> {
    let bytes = (ARITY.pow(rows) - 1) / (ARITY - 1) * NODE;
    match size.tree_count() {
        1 => vec![(format!("sc-02-data-{name}.dat"), bytes)],
        count => (0..count).map(|number| (format!("sc-02-data-{name}-{number}.dat"), bytes)).collect(),
    }
}
