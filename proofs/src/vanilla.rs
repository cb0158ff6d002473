//! Vanilla proofs of a stored sector for PoSt, and, when none can be made, which of its files is at fault: the replica,
//! `p_aux` or a file of tree-r-last. Nothing of the sector is written. `t_aux` is not needed, and not looked at.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::anyhow;
use blstrs::Scalar;
use filecoin_hashers::{Domain, HashFunction, Hasher};
use filecoin_proofs::constants::DefaultTreeHasher;
use filecoin_proofs_api::PrivateReplicaInfo;
use filecoin_proofs_api::post::generate_single_vanilla_proof;
use sealtasks::{CHALLENGES_MAX, FileType, SectorRef, SectorSize, TaskOutput, VanillaInput, VanillaProof};
use storage_proofs_core::util::default_rows_to_discard;

use crate::TaskError;
use crate::execute::panic_text;
use crate::files::Files;
use crate::p_aux::PAux;
use crate::proof_kind::window_post;
use crate::seal::number;

type Node = <DefaultTreeHasher as Hasher>::Domain;
type NodeFunction = <DefaultTreeHasher as Hasher>::Function;

/// What the library says when it panics over bytes: they are no field element, or, in debug builds, a proof of them does not
/// hold.
const OVER_BYTES: [&str; 2] = ["from_repr failure", "proof.validate"];

/// Bytes of a node.
const NODE: usize = 32;
/// The arity of tree-r-last, and of what joins several of its files.
const ARITY: usize = 8;

/// Proves the challenged leaves of the replica. The proof holds against CommR: a `p_aux` of another replica is found, too.
pub(crate) fn vanilla(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &VanillaInput,
) -> Result<TaskOutput, TaskError> {
    let stored = Stored {
        size: sector.proof.sector_size(),
        sealed: files.path(FileType::Sealed)?,
        cache: files.path(FileType::Cache)?,
        comm_r: *input.sealed.commitment().bytes(),
    };
    let leaves = stored.size.bytes() / NODE as u64;
    let count = input.challenges.len();
    if count == 0 || count > CHALLENGES_MAX || input.challenges.iter().any(|leaf| *leaf >= leaves) {
        let problem = format!("must be 1 to {CHALLENGES_MAX} leaves, each below {leaves}; there are {count}");
        return Err(TaskError::Input { field: "challenges", problem });
    }
    faulty(stored.lengths()?)?;
    faulty(stored.p_aux()?)?;
    let proof = window_post(sector.proof);
    let replica = PrivateReplicaInfo::new(proof, stored.comm_r, stored.cache.into(), stored.sealed.into());
    // Bytes that are no field element make the library panic.
    let made = catch_unwind(AssertUnwindSafe(|| {
        generate_single_vanilla_proof(proof, number(sector), &replica, &input.challenges)
    }));
    let error = match made {
        Ok(Ok(bytes)) => return Ok(TaskOutput::Vanilla(VanillaProof(bytes))),
        Ok(Err(error)) => error,
        Err(panic) => {
            let message = panic_text(panic.as_ref());
            if !OVER_BYTES.iter().any(|words| message.contains(words)) {
                return Err(TaskError::Panic { doing: "proving the replica", message });
            }
            anyhow!("the proof does not hold")
        }
    };
    if error.chain().any(|cause| cause.is::<io::Error>()) {
        return Err(TaskError::library("proving the replica", &error));
    }
    faulty(stored.trees()?)?;
    Err(TaskError::Faulty {
        faults: format!(
            "sealed: {} is not the replica that tree-r-last was built from: {error:#}",
            stored.sealed.display()
        ),
    })
}

fn faulty(faults: Vec<String>) -> Result<(), TaskError> {
    if faults.is_empty() { Ok(()) } else { Err(TaskError::Faulty { faults: faults.join("; ") }) }
}

/// A sector's files and what they commit to.
struct Stored<'a> {
    size: SectorSize,
    sealed: &'a Path,
    cache: &'a Path,
    comm_r: [u8; 32],
}

/// Whether a file, or its directory, is a link to where nothing is: the disk that has it is away, and what it holds is not
/// known.
fn leads_nowhere(path: &Path) -> bool {
    let dangles = |path: &Path| path.is_symlink() && !path.exists();
    dangles(path) || path.parent().is_some_and(dangles)
}

/// A file that cannot be read is this machine's trouble, not the sector's: none of these tells it as a fault.
impl Stored<'_> {
    /// Files that are missing, or have another length than files of this size.
    fn lengths(&self) -> Result<Vec<String>, TaskError> {
        let sealed = ("sealed".to_owned(), self.sealed.to_owned(), self.size.bytes());
        let in_cache = |name: String, length| (name.clone(), self.cache.join(name), length);
        let cached = [in_cache("p_aux".to_owned(), 2 * NODE as u64)].into_iter();
        let length = nodes_in(self.size).iter().sum::<usize>() * NODE;
        let trees = tree_names(self.size).into_iter().map(|name| in_cache(name, length as u64));
        let all = std::iter::once(sealed).chain(cached).chain(trees);
        let mut faults = Vec::new();
        for (name, path, expected) in all {
            match std::fs::metadata(&path) {
                Ok(found) if found.len() == expected => {}
                Ok(found) => {
                    let length = found.len();
                    faults
                        .push(format!("{name}: {} has {length} bytes instead of {expected}", path.display()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !leads_nowhere(&path) => {
                    faults.push(format!("{name}: {} is not there", path.display()));
                }
                Err(source) => return Err(TaskError::Io { doing: "looking at", path, source }),
            }
        }
        Ok(faults)
    }

    /// A `p_aux` that does not belong to this CommR.
    fn p_aux(&self) -> Result<Vec<String>, TaskError> {
        match PAux::read(self.cache)?.comm_r() {
            Ok(found) if found == self.comm_r => Ok(Vec::new()),
            Ok(_) => Ok(vec![format!(
                "p_aux: {} is not that of the replica with this CommR",
                self.cache.join("p_aux").display()
            )]),
            Err(error) => Ok(vec![format!("p_aux: {error}")]),
        }
    }

    fn trees(&self) -> Result<Vec<String>, TaskError> {
        let root = PAux::read(self.cache)?.comm_r_last;
        faults_in_trees(self.cache, &tree_names(self.size), &nodes_in(self.size), root)
    }
}

/// Files of tree-r-last whose nodes are not the hashes of those below them, or that together do not end in this root, which is
/// the one that `p_aux` has. Each has so many nodes in its rows.
fn faults_in_trees(
    cache: &Path,
    names: &[String],
    rows: &[usize],
    expected: [u8; NODE],
) -> Result<Vec<String>, TaskError> {
    let mut roots = Vec::new();
    let mut faults = Vec::new();
    for name in names {
        let path = cache.join(name);
        let bytes = std::fs::read(&path).map_err(|source| TaskError::Io {
            doing: "reading",
            path: path.clone(),
            source,
        })?;
        match root_of::<NodeFunction, Node>(&bytes, rows) {
            Ok(root) => roots.push(root),
            Err(what) => faults.push(format!("{name}: {} {what}", path.display())),
        }
    }
    if !faults.is_empty() {
        return Ok(faults);
    }
    let joined = roots.chunks(ARITY).map(join::<NodeFunction, Node>).collect::<Option<Vec<_>>>();
    let root = joined.and_then(|some| join::<NodeFunction, Node>(&some));
    if root.map(|root| bytes_of(&root)) == Some(expected) {
        return Ok(Vec::new());
    }
    let name = if let [only] = names { only } else { "tree-r-last" };
    Ok(vec![format!("{name}: it ends in another root than p_aux has, in {}", cache.display())])
}

/// The files of tree-r-last.
fn tree_names(size: SectorSize) -> Vec<String> {
    match size.tree_count() {
        1 => vec!["sc-02-data-tree-r-last.dat".to_owned()],
        count => (0..count).map(|number| format!("sc-02-data-tree-r-last-{number}.dat")).collect(),
    }
}

/// How many nodes the rows of one file have, the lowest that is kept first.
fn nodes_in(size: SectorSize) -> Vec<usize> {
    // A sector of 64 GiB has 2^31 leaves.
    let leaves = (size.bytes() / NODE as u64) as usize / size.tree_count();
    // The leaves are the replica's own.
    let mut nodes = leaves / ARITY.pow(1 + default_rows_to_discard(leaves, ARITY) as u32);
    let mut rows = vec![nodes];
    while nodes > 1 {
        nodes /= ARITY;
        rows.push(nodes);
    }
    rows
}

/// The root of a file of tree-r-last, when every node in it is the hash of its children. Else what is wrong with it.
fn root_of<F: HashFunction<D>, D: Domain>(bytes: &[u8], rows: &[usize]) -> Result<D, String> {
    let nodes: Vec<Option<D>> = bytes.chunks(NODE).map(node).collect();
    let mut from = 0;
    for row in rows.windows(2) {
        let above = from + row[0];
        for parent in 0..row[1] {
            let children = from + parent * ARITY;
            let children = nodes[children..children + ARITY].iter().copied().collect::<Option<Vec<D>>>();
            let hash = children.and_then(|children| join::<F, D>(&children));
            if hash.is_none() || hash != nodes[above + parent] {
                let byte = (above + parent) * NODE;
                return Err(format!("is damaged: the node at byte {byte} is not the hash of its children"));
            }
        }
        from = above;
    }
    nodes.last().copied().flatten().ok_or_else(|| "has no root".to_owned())
}

/// The node above these; one alone is itself. `None` for a number of them that no tree has.
fn join<F: HashFunction<D>, D: Domain>(nodes: &[D]) -> Option<D> {
    match nodes.len() {
        1 => Some(nodes[0]),
        2 | ARITY => Some(F::default().multi_node(nodes, 0)),
        _ => None,
    }
}

/// A node's bytes, if they are a field element's.
fn node<D: Domain>(bytes: &[u8]) -> Option<D> {
    let bytes = <&[u8; NODE]>::try_from(bytes).ok()?;
    Option::<Scalar>::from(Scalar::from_bytes_le(bytes))?;
    D::try_from_bytes(bytes).ok()
}

fn bytes_of<D: Domain>(node: &D) -> [u8; NODE] {
    let mut bytes = [0; NODE];
    // It has as many bytes.
    let _ = node.write_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use filecoin_proofs::{SectorShape32GiB, SectorShape64GiB};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;
    use storage_proofs_core::merkle::{MerkleTreeTrait, generate_tree};

    use super::*;

    /// Of a file in the tests: its leaves, their parents, and the root.
    const ROWS: [usize; 3] = [64, 8, 1];

    /// Files of tree-r-last over random leaves, and the root that the proofs library gives the whole tree.
    fn trees<Tree: MerkleTreeTrait>(cache: &Path, size: SectorSize) -> [u8; NODE]
    where
        Tree::Store: 'static,
    {
        let library = tempfile::tempdir().expect("a directory");
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let leaves = ROWS[0] * size.tree_count();
        let (leaves, tree) = generate_tree::<Tree, _>(&mut rng, leaves, Some(library.path().to_owned()));
        for (name, leaves) in tree_names(size).iter().zip(leaves.chunks(ROWS[0] * NODE)) {
            let mut row: Vec<Node> = leaves.chunks(NODE).map(|leaf| node(leaf).expect("a leaf")).collect();
            let mut bytes = leaves.to_vec();
            while row.len() > 1 {
                let parent = |children: &[Node]| join::<NodeFunction, Node>(children).expect("eight");
                row = row.chunks(ARITY).map(parent).collect();
                row.iter().for_each(|node| bytes.extend(bytes_of(node)));
            }
            assert_eq!(bytes.len(), ROWS.iter().sum::<usize>() * NODE);
            std::fs::write(cache.join(name), bytes).expect("a file");
        }
        let mut root = [0; NODE];
        tree.root().write_bytes(&mut root).expect("a node");
        root
    }

    /// Changes one bit of a file.
    fn flip(path: &Path, byte: usize) {
        let mut bytes = std::fs::read(path).expect("a file");
        bytes[byte] ^= 1;
        std::fs::write(path, bytes).expect("a file");
    }

    /// The trees of a sector of 32 GiB are joined by one node, those of 64 GiB by two and one above them.
    fn are_joined<Tree: MerkleTreeTrait>(size: SectorSize)
    where
        Tree::Store: 'static,
    {
        let cache = tempfile::tempdir().expect("a directory");
        let cache = cache.path();
        let (root, names) = (trees::<Tree>(cache, size), tree_names(size));
        let faults = |root| faults_in_trees(cache, &names, &ROWS, root).expect("they are read");
        assert_eq!(faults(root), [""; 0]);

        // Every file of another replica: each is whole in itself.
        let other = faults([9; NODE]);
        assert_eq!(
            other,
            [format!("tree-r-last: it ends in another root than p_aux has, in {}", cache.display())]
        );
        // So are two that have changed places.
        let [one, another] = [&names[3], &names[4]].map(|name| cache.join(name));
        let aside = cache.join("aside");
        let swap = || {
            for (from, to) in [(&one, &aside), (&another, &one), (&aside, &another)] {
                std::fs::rename(from, to).expect("renamed");
            }
        };
        swap();
        assert_eq!(faults(root), other);
        swap();

        // The fifth and the last: a leaf, a node above, the root.
        for name in [&names[4], &names[names.len() - 1]] {
            for row in [0, 64, 72] {
                let path = cache.join(name);
                flip(&path, row * NODE);
                let told = faults(root);
                let named = format!("{name}: {} is damaged: the node at byte ", path.display());
                assert!(matches!(&told[..], [only] if only.starts_with(&named)), "{told:?}");
                flip(&path, row * NODE);
            }
        }
        assert_eq!(faults(root), [""; 0]);
    }

    #[test]
    fn files_of_tree_r_last_end_in_one_root_and_a_flipped_byte_is_in_one_of_them() {
        are_joined::<SectorShape32GiB>(SectorSize::GiB32);
        are_joined::<SectorShape64GiB>(SectorSize::GiB64);
    }

    /// The lengths that Lotus expects of a finalized sector's files. Source: storage-proofs-core's builders; the figures of
    /// 32 GiB are those of files on disks.
    #[test]
    fn the_files_of_each_size_have_their_length() {
        let all = |size| {
            let bytes = nodes_in(size).iter().sum::<usize>() * NODE;
            (tree_names(size).len(), bytes)
        };
        assert_eq!(all(SectorSize::KiB2), (1, 32));
        assert_eq!(all(SectorSize::MiB8), (1, 18_720));
        assert_eq!(all(SectorSize::MiB512), (1, 1_198_368));
        assert_eq!(all(SectorSize::GiB32), (8, 9_586_976));
        assert_eq!(all(SectorSize::GiB64), (16, 9_586_976));
        assert_eq!(tree_names(SectorSize::GiB32)[7], "sc-02-data-tree-r-last-7.dat");
    }
}
