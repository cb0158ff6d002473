//! The parameters that real proofs of 2 KiB sectors need: made once per machine, and their digests computed once, although
//! every test has a home of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{run_within, sealyard, text};

/// Parameters may have to be generated first; Commit2 takes a minute of two cores.
pub const PROVING_MAX: Duration = Duration::from_secs(50 * 60);

/// Makes them where this machine has none yet.
pub fn generate(home: &Path) {
    recall(home);
    let generated = run_within(sealyard(home).args(["params", "generate", "2KiB"]), PROVING_MAX);
    assert!(generated.status.success(), "{}", text(&generated.stderr));
    if let Some(known) = known().filter(|known| !known.exists()) {
        // It only saves time.
        let _ = fs::copy(digests(home), known);
    }
}

/// Tells a home which digests are known: each takes seconds of a CPU, and every worker that offers Commit2 wants to know.
pub fn recall(home: &Path) {
    let (Some(known), own) = (known(), digests(home)) else { return };
    if known.exists() && !own.exists() {
        let _ = own.parent().map(fs::create_dir_all);
        let _ = fs::copy(known, own);
    }
}

fn digests(home: &Path) -> PathBuf {
    home.join(".cache/sealyard/parameter-digests.json")
}

/// Where this machine's user has them.
fn known() -> Option<PathBuf> {
    std::env::home_dir().map(|home| digests(&home))
}
