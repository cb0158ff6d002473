//! The bugs that the fault schedules are tried on: whether each still has its place. `cargo run --release -p sched
//! --example planted` plants them and looks for them.

use std::fs;
use std::path::Path;

use crate::bugs::BUGS;

#[test]
fn every_planted_bug_has_its_place() {
    assert!(BUGS.len() >= 20, "{} bugs", BUGS.len());
    for (position, bug) in BUGS.iter().enumerate() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(bug.file);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(
            text.matches(bug.right).count(),
            1,
            "bug {} ({}) has to be planted anew in {}: {:?} must occur exactly once",
            position + 1,
            bug.what,
            bug.file,
            bug.right
        );
        assert!(bug.wrong.contains('@') && !bug.right.contains('@'), "{}", bug.what);
    }
}
