//! Nodes of the binary tree over padded data: SHA-256 of two children, cut to 254 bits.
//!
//! All hashing of this room goes through [`hash_level`], which is given many pairs at once so that a kernel works on
//! several of them side by side. Never knows sizes of pieces or sectors.

use std::sync::LazyLock;

use rayon::prelude::*;

use crate::kernel;

/// A node or leaf: 32 bytes, the two highest bits of the last one zero.
pub(crate) type Node = [u8; 32];

/// Bytes per leaf.
pub(crate) const LEAF: u64 = 32;

/// Levels of a tree over 2^63 bytes, the largest piece size, plus the leaves.
pub(crate) const LEVELS: usize = 59;

/// Leaf bytes that one task hashes: the two scratch buffers for it, three quarters of this, stay in the nearest caches.
pub(crate) const BLOCK: usize = 64 << 10;

/// Hashes each 64 bytes of `children` to 32 bytes of `parents`.
///
/// Panics if the lengths do not match.
pub(crate) fn hash_level(children: &[u8], parents: &mut [u8]) {
    assert_eq!(children.len(), 2 * parents.len(), "a parent has two children");
    #[cfg(test)]
    HASHED.with(|hashed| hashed.set(hashed.get() + parents.len() as u64 / LEAF));
    kernel::hash_pairs(children.as_chunks().0, parents.as_chunks_mut().0);
}

#[cfg(test)]
thread_local! {
    /// Nodes that this thread has hashed.
    pub(crate) static HASHED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The parent of two nodes.
pub(crate) fn parent(left: &Node, right: &Node) -> Node {
    let mut children = [0; 64];
    children[..32].copy_from_slice(left);
    children[32..].copy_from_slice(right);
    let mut node = [0; 32];
    hash_level(&children, &mut node);
    node
}

/// The root over `leaves`, on all threads of the current pool.
///
/// Panics if the length is not a power of two, at least 32.
pub(crate) fn subtree_root(leaves: &[u8]) -> Node {
    if leaves.len() <= BLOCK {
        return block_root(leaves);
    }
    assert!(leaves.len().is_power_of_two(), "a tree has a power of two of leaves");
    let roots: Vec<Node> = leaves.par_chunks_exact(BLOCK).map(block_root).collect();
    subtree_root(roots.as_flattened())
}

/// The root over at most [`BLOCK`] bytes of leaves, on the calling thread.
///
/// Panics as [`subtree_root`] does.
pub(crate) fn block_root(leaves: &[u8]) -> Node {
    assert!(leaves.len().is_power_of_two() && leaves.len() >= 32, "a tree has a power of two of leaves");
    let (mut these, mut next) = ([0; BLOCK / 2], [0; BLOCK / 4]);
    let mut len = leaves.len();
    if len == 32 {
        these[..32].copy_from_slice(leaves);
    } else {
        len /= 2;
        hash_level(leaves, &mut these[..len]);
    }
    let (mut these, mut next) = (&mut these[..], &mut next[..]);
    while len > 32 {
        len /= 2;
        hash_level(&these[..2 * len], &mut next[..len]);
        std::mem::swap(&mut these, &mut next);
    }
    let mut root = [0; 32];
    root.copy_from_slice(&these[..32]);
    root
}

/// The root over 2^level leaves that are all zero. `level` is below [`LEVELS`].
pub(crate) fn zero_node(level: u32) -> Node {
    static NODES: LazyLock<[Node; LEVELS]> = LazyLock::new(|| {
        let mut nodes = [[0; 32]; LEVELS];
        for level in 1..LEVELS {
            nodes[level] = parent(&nodes[level - 1], &nodes[level - 1]);
        }
        nodes
    });
    NODES[level as usize]
}

/// A tree that grows from the left: the roots of the full subtrees so far, at most one of each height.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frontier {
    /// Bytes of leaves so far.
    filled: u64,
    /// Subtrees from left to right: level and root. Levels fall strictly, so there are at most [`LEVELS`].
    subtrees: Vec<(u32, Node)>,
}

impl Frontier {
    /// Bytes of leaves so far.
    pub(crate) fn filled(&self) -> u64 {
        self.filled
    }

    /// Appends a subtree over 2^level leaves. Panics if it would not lie at a multiple of its own size.
    pub(crate) fn push(&mut self, level: u32, root: Node) {
        let size = LEAF << level;
        assert!(self.filled.is_multiple_of(size), "a subtree lies at a multiple of its size");
        self.filled += size;
        let (mut level, mut root) = (level, root);
        while let Some((_, left)) = self.subtrees.pop_if(|(top, _)| *top == level) {
            root = parent(&left, &root);
            level += 1;
        }
        self.subtrees.push((level, root));
    }

    /// Appends padded data, a multiple of 32 bytes, as the largest subtrees that fit.
    pub(crate) fn push_leaves(&mut self, mut leaves: &[u8]) {
        while !leaves.is_empty() {
            let fits = 1 << leaves.len().ilog2();
            let aligned = if self.filled == 0 { fits } else { 1 << self.filled.trailing_zeros().min(62) };
            let take = fits.min(aligned);
            let (these, rest) = leaves.split_at(take);
            self.push(take.trailing_zeros() - LEAF.trailing_zeros(), subtree_root(these));
            leaves = rest;
        }
    }

    /// Appends zeros until a subtree over 2^level leaves can follow: one node for each height that is missing.
    pub(crate) fn align(&mut self, level: u32) {
        while !self.filled.is_multiple_of(LEAF << level) {
            let missing = self.filled.trailing_zeros() - LEAF.trailing_zeros();
            self.push(missing, zero_node(missing));
        }
    }

    /// The root over 2^level leaves, the missing ones being zeros. Panics if there are more leaves than that.
    pub(crate) fn root(mut self, level: u32) -> Node {
        assert!(self.filled <= LEAF << level, "the tree holds what was pushed");
        if self.filled == 0 {
            return zero_node(level);
        }
        self.align(level);
        match self.subtrees[..] {
            [(_, root)] => root,
            _ => unreachable!("a tree filled to a power of two is one subtree"),
        }
    }
}
