//! `p_aux`, which PreCommit2 leaves in the cache: CommC and the root of tree-r-last, and what they make together.

use std::path::Path;

use blstrs::Scalar;
use filecoin_hashers::{Domain, HashFunction, Hasher};
use filecoin_proofs::constants::DefaultTreeHasher;

use crate::TaskError;

type Node = <DefaultTreeHasher as Hasher>::Domain;

/// What the file holds, each a root of 32 bytes.
pub(crate) struct PAux {
    pub(crate) comm_c: [u8; 32],
    pub(crate) comm_r_last: [u8; 32],
}

impl PAux {
    /// Reads it from a sector's cache.
    pub(crate) fn read(cache: &Path) -> Result<Self, TaskError> {
        let path = cache.join("p_aux");
        let bytes = std::fs::read(&path).map_err(|source| TaskError::Io {
            doing: "reading",
            path: path.clone(),
            source,
        })?;
        let halves =
            bytes.split_first_chunk().and_then(|(one, rest)| Some((*one, <[u8; 32]>::try_from(rest).ok()?)));
        let (comm_c, comm_r_last) = halves.ok_or_else(|| TaskError::Input {
            field: "files.cache",
            problem: format!("{} has {} bytes instead of 64", path.display(), bytes.len()),
        })?;
        Ok(Self { comm_c, comm_r_last })
    }

    /// CommR: the hash of both.
    pub(crate) fn comm_r(&self) -> Result<[u8; 32], TaskError> {
        // The library panics over these.
        let is_element = |root: &[u8; 32]| bool::from(Scalar::from_bytes_le(root).is_some());
        if !is_element(&self.comm_c) || !is_element(&self.comm_r_last) {
            let problem = "has a p_aux with bytes that are no commitment".to_owned();
            return Err(TaskError::Input { field: "files.cache", problem });
        }
        let hash = || -> anyhow::Result<[u8; 32]> {
            let one = Node::try_from_bytes(&self.comm_c)?;
            let other = Node::try_from_bytes(&self.comm_r_last)?;
            let mut found = [0; 32];
            <DefaultTreeHasher as Hasher>::Function::hash2(&one, &other).write_bytes(&mut found)?;
            Ok(found)
        };
        hash().map_err(|error| TaskError::library("reading p_aux", &error))
    }
}
