//! Which files a sector's directory may hold, how large each may be, and which of them belong together.
//!
//! The names are a closed list, so that no name from a peer ever reaches the file system unread. Source of names and
//! bounds: Lotus `storage/sealer/tarutil`; `sc-02-data-tree-c.dat` (one tree, sectors up to 512 MiB) and the synthetic
//! proofs are ours, since Lotus cannot fetch such a directory.

use std::collections::BTreeMap;

use sealtasks::SectorSize;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::index::CopyKind;

const GIB: u64 = 1 << 30;

/// More files than the whole list of names has cannot be in one directory.
pub(crate) const MEMBERS_MAX: usize = 64;

/// The header in which a Sealyard names the files of a directory: `name:bytes`, joined by `,`.
pub(crate) const MANIFEST_HEADER: &str = "x-sealyard-manifest";

/// The most bytes that a file of this name may have; `None` for a name that no sector directory holds.
pub(crate) fn size_max(name: &str) -> Option<u64> {
    let numbered = |prefix: &str, numbers: std::ops::RangeInclusive<u8>| {
        let digits = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".dat"))?;
        let number: u8 = digits.parse().ok()?;
        (number.to_string() == digits && numbers.contains(&number)).then_some(())
    };
    match name {
        "p_aux" => Some(64),
        "t_aux" => Some(10_240),
        "sc-02-data-tree-r-last.dat" => Some(10_000_000),
        "sc-02-data-tree-c.dat" => Some(5 * GIB),
        "sc-02-data-tree-d.dat" => Some(130 * GIB),
        "syn-porep-vanilla-proofs.dat" => Some(65 * GIB),
        _ if numbered("sc-02-data-tree-r-last-", 0..=15).is_some() => Some(10_000_000),
        _ if numbered("sc-02-data-tree-c-", 0..=15).is_some() => Some(5 * GIB),
        _ if numbered("sc-02-data-layer-", 1..=11).is_some() => Some(65 * GIB),
        _ => None,
    }
}

/// Names and lengths of a directory's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest(pub(crate) BTreeMap<String, u64>);

impl Manifest {
    /// The header's value.
    pub(crate) fn to_header(&self) -> String {
        let parts: Vec<_> = self.0.iter().map(|(name, bytes)| format!("{name}:{bytes}")).collect();
        parts.join(",")
    }

    /// Reads a header's value.
    pub(crate) fn parse(header: &str) -> Result<Self, StoreError> {
        let bad =
            |part: &str| StoreError::Archive { reason: format!("manifest entry {part:?} is not name:bytes") };
        let mut files = BTreeMap::new();
        for part in header.split(',').filter(|part| !part.is_empty()) {
            let (name, bytes) = part.split_once(':').ok_or_else(|| bad(part))?;
            let bytes = bytes.parse().map_err(|_| bad(part))?;
            if size_max(name).is_none_or(|most| bytes > most) {
                let shown: String = part.chars().take(100).collect();
                let reason = format!("manifest entry {shown:?} is no file of a sector's directory");
                return Err(StoreError::Archive { reason });
            }
            if files.insert(name.to_owned(), bytes).is_some() || files.len() > MEMBERS_MAX {
                return Err(bad(part));
            }
        }
        Ok(Self(files))
    }

    /// Whether every file of `other` is here with the same length.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(name, bytes)| self.0.get(name) == Some(bytes))
    }

    /// Whether nothing is lost when `other` goes and this stays. A primary copy must be matched file by file; a secondary one
    /// may hold what only sealing needed.
    pub(crate) fn makes_up_for(&self, other: &Self, other_is: CopyKind) -> bool {
        self.covers(other) || (other_is == CopyKind::Secondary && self.outlives(other))
    }

    /// Whether this is the directory of a proven sector of which `other` may hold more: both aux files are here, and
    /// whatever `other` has of what outlives sealing is here with the same length.
    pub(crate) fn outlives(&self, other: &Self) -> bool {
        let aux = |name: &str| matches!(name, "p_aux" | "t_aux");
        let lasting = |name: &str| aux(name) || name.starts_with("sc-02-data-tree-r-last");
        let kept =
            other.0.iter().filter(|(name, _)| lasting(name)).map(|(name, bytes)| (name.clone(), *bytes));
        let trees = self.0.keys().any(|name| lasting(name) && !aux(name));
        trees && self.0.contains_key("p_aux") && self.0.contains_key("t_aux") && self.covers(&kept.collect())
    }

    /// Refuses a set that no stage of sealing leaves behind: a gap in the layers or trees, trees without aux files,
    /// layers without tree-d, or nothing of substance at all. Used when the peer sent no manifest.
    pub(crate) fn check_stage(&self, size: SectorSize) -> Result<(), StoreError> {
        let has = |name: &String| self.0.contains_key(name);
        let layers = (1..=size.layers()).map(|layer| format!("sc-02-data-layer-{layer}.dat")).collect();
        let aux: Vec<String> = vec!["p_aux".into(), "t_aux".into()];
        let tree_d: Vec<String> = vec!["sc-02-data-tree-d.dat".into()];
        let whole = |names: &Vec<String>| match names.iter().find(|name| !has(name)) {
            Some(missing) if names.iter().any(has) => Err(incomplete(missing)),
            Some(_) => Ok(false),
            None => Ok(true),
        };
        let require = |names: &Vec<String>| {
            names.iter().find(|name| !has(name)).map_or(Ok(()), |name| Err(incomplete(name)))
        };
        let has_layers = whole(&layers)?;
        let has_trees = whole(&tree_names("tree-r-last", size))?;
        whole(&tree_names("tree-c", size))?;
        if has_trees {
            return require(&aux);
        }
        if has_layers {
            return require(&tree_d);
        }
        Err(incomplete("sc-02-data-layer-1.dat"))
    }
}

impl FromIterator<(String, u64)> for Manifest {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(files: I) -> Self {
        Self(files.into_iter().collect())
    }
}

fn tree_names(tree: &str, size: SectorSize) -> Vec<String> {
    match size.tree_count() {
        1 => vec![format!("sc-02-data-{tree}.dat")],
        count => (0..count).map(|number| format!("sc-02-data-{tree}-{number}.dat")).collect(),
    }
}

fn incomplete(missing: &str) -> StoreError {
    StoreError::Archive { reason: format!("the set of files is incomplete: {missing} is missing") }
}
