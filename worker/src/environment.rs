//! Which variables an executor sees: those of the proofs libraries and the few that any program needs. Everything else
//! of the worker's environment, tokens above all, stays with the worker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Prefixes of the variables that the proofs libraries and the GPU runtimes read.
const PREFIXES: [&str; 7] =
    ["FIL_PROOFS_", "BELLMAN_", "BELLPERSON_", "EC_GPU_", "NEPTUNE_", "RUST_GPU_TOOLS_", "CUDA_"];

/// Variables passed on by their whole name.
const NAMES: [&str; 8] =
    ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "RUST_LOG", "RUST_BACKTRACE", "RAYON_NUM_THREADS"];

/// Variables of an executor.
pub type Environment = BTreeMap<OsString, OsString>;

/// The part of `variables` (for example of [`std::env::vars_os`]) that executors get.
pub fn filtered(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    variables.into_iter().filter(|(name, _)| reaches_executors(name)).collect()
}

/// Whether a variable of this name is passed on.
pub fn reaches_executors(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_variables_pass() {
        let given = [
            "PATH",
            "HOME",
            "FIL_PROOFS_PARAMETER_CACHE",
            "BELLMAN_NO_GPU",
            "BELLPERSON_GPUS_PER_LOCK",
            "CUDA_VISIBLE_DEVICES",
            "EC_GPU_NUM_THREADS",
            "NEPTUNE_GPU_FRAMEWORK",
        ];
        let kept = ["MINER_API_INFO", "FULLNODE_API_INFO", "AWS_SECRET", "CUDAX", "path", "LD_PRELOAD"];
        let all = given.iter().chain(&kept).map(|name| (OsString::from(name), OsString::from("x")));
        let names: Vec<OsString> = filtered(all).into_keys().collect();
        let mut expected: Vec<OsString> = given.iter().map(OsString::from).collect();
        expected.sort();
        assert_eq!(names, expected);
    }
}
