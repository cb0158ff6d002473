//! A disk that loses what was not synced: a library under the processes keeps what they sync, and a power cut puts their
//! directory back to that. The processes are the real ones; nothing in them knows of it.
//!
//! POSIX promises no more than this, and file systems keep more: the bytes of a file are safe after its fsync, its name after
//! that of the directory, and a rename between directories only when both are synced.
#![allow(dead_code, reason = "the library needs its part of the shared file, the test another")]

pub mod record;
pub mod yard;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use record::{KEPT, ROOT, bytes_of, identity, keep, names_of};

/// What a power cut leaves of that which was not synced. A disk may write it in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Nothing,
    /// Deletions, but nothing new.
    Deletions,
    /// Every change of names, but no bytes: new files are empty.
    Names,
}

pub const CUTS: [Cut; 3] = [Cut::Nothing, Cut::Deletions, Cut::Names];

/// The disk under a directory.
pub struct Platter {
    root: PathBuf,
    kept: PathBuf,
    library: PathBuf,
}

/// Something in the directory as the cut leaves it.
enum Node {
    /// A directory's names.
    Dir(BTreeMap<OsString, Node>),
    /// A file or a link, by identity.
    File(String),
}

impl Platter {
    /// Puts one under `root`; what lies there already is safe. `aside` is elsewhere on the same file system.
    pub fn new(root: &Path, aside: &Path) -> Self {
        let kept = aside.join("kept");
        fs::create_dir_all(&kept).expect("a directory");
        let library = aside.join("libplatter.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/platter/shim.rs");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "opt-level=2", "-o"]);
        let built = rustc.arg(&library).arg(source).output().expect("rustc, which has built this test");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let platter = Self { root: root.to_owned(), kept, library };
        platter.keep_all(root);
        platter
    }

    /// The variables that put it under a process.
    pub fn variables(&self) -> [(&'static str, &OsStr); 3] {
        [
            ("LD_PRELOAD", self.library.as_os_str()),
            (ROOT, self.root.as_os_str()),
            (KEPT, self.kept.as_os_str()),
        ]
    }

    /// A file or directory is safe as it is now.
    pub fn keep(&self, path: &Path) {
        keep(path, &self.kept).expect("it is there");
    }

    /// Everything is safe as it is now.
    pub fn settle(&self) {
        self.keep_all(&self.root);
    }

    /// How many files and directories are kept: none, and nothing was looked at.
    pub fn count(&self) -> usize {
        fs::read_dir(&self.kept).expect("what is kept").count()
    }

    /// Whatever lies below is safe from now on.
    fn keep_all(&self, below: &Path) {
        keep(below, &self.kept).expect("it is there");
        for entry in fs::read_dir(below).expect("a directory").flatten() {
            let found = entry.metadata().expect("it is there");
            if found.is_dir() {
                self.keep_all(&entry.path());
            } else if found.is_file() {
                keep(&entry.path(), &self.kept).expect("it is there");
            }
        }
    }

    /// The power is cut: all processes have ended. What is left is safe again.
    pub fn cut(&self, cut: Cut) {
        let mut living = BTreeMap::new();
        walk(&self.root, &mut living);
        let found = fs::metadata(&self.root).expect("the root");
        let left = Left { kept: &self.kept, living: &living, cut };
        let tree = left.dir(&identity(&found), Some(&self.root));
        let (after, before) = (self.root.with_extension("after"), self.root.with_extension("before"));
        self.put(&tree, &living, &after);
        // Whatever stays the same file keeps its inode, as on a disk.
        fs::rename(&self.root, &before).expect("the old one aside");
        fs::rename(&after, &self.root).expect("the new one in its place");
        fs::remove_dir_all(&before).expect("the old one away");
        fs::remove_dir_all(&self.kept).expect("what was kept");
        fs::create_dir(&self.kept).expect("a directory");
        self.keep_all(&self.root);
    }

    fn put(&self, node: &Node, living: &BTreeMap<String, PathBuf>, at: &Path) {
        match node {
            Node::Dir(entries) => {
                fs::create_dir(at).expect("a directory");
                entries.iter().for_each(|(name, node)| self.put(node, living, &at.join(name)));
            }
            Node::File(identity) => self.put_file(identity, living.get(identity), at),
        }
    }

    fn put_file(&self, identity: &str, living: Option<&PathBuf>, at: &Path) {
        if let Some(link) = living.and_then(|path| fs::read_link(path).ok()) {
            return symlink(link, at).expect("a link");
        }
        let kept = bytes_of(&self.kept, identity);
        let bytes = fs::read(&kept).unwrap_or_default();
        match living {
            Some(path) => {
                if fs::read(path).is_ok_and(|now| now != bytes) {
                    fs::write(path, &bytes).expect("written over");
                    let at = fs::metadata(&kept).and_then(|found| found.modified());
                    let file = File::options().write(true).open(path).expect("it is there");
                    at.and_then(|at| file.set_modified(at)).unwrap_or_default();
                }
                fs::hard_link(path, at).expect("the same file");
            }
            None => fs::write(at, bytes).expect("written"),
        }
    }
}

/// What a cut leaves.
struct Left<'a> {
    kept: &'a Path,
    living: &'a BTreeMap<String, PathBuf>,
    cut: Cut,
}

impl Left<'_> {
    /// A directory by its identity and, where it still is, by its path.
    fn dir(&self, identity: &str, path: Option<&Path>) -> Node {
        let listing = fs::read(names_of(self.kept, identity)).unwrap_or_default();
        let synced = listing.split(|byte| *byte == 0).filter_map(entry);
        let now: Vec<_> = path.map(present).unwrap_or_default();
        let there: BTreeSet<_> = now.iter().map(|(_, _, name)| name.clone()).collect();
        let entries: Vec<_> = match self.cut {
            Cut::Nothing => synced.collect(),
            // What was only moved is not deleted.
            Cut::Deletions => synced
                .filter(|(_, identity, name)| there.contains(name) || self.living.contains_key(identity))
                .collect(),
            Cut::Names => now,
        };
        let node = |(is_dir, identity, name): (bool, String, OsString)| {
            let path = self.living.get(&identity).map(PathBuf::as_path);
            let node = if is_dir { self.dir(&identity, path) } else { Node::File(identity) };
            (name, node)
        };
        Node::Dir(entries.into_iter().map(node).collect())
    }
}

type Entry = (bool, String, OsString);

fn entry(text: &[u8]) -> Option<Entry> {
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let is_dir = parts.next()? == b"d";
    let identity = String::from_utf8(parts.next()?.to_vec()).ok()?;
    Some((is_dir, identity, OsStr::from_bytes(parts.next()?).to_owned()))
}

fn present(dir: &Path) -> Vec<Entry> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let entry = |entry: fs::DirEntry| {
        let found = entry.metadata().ok()?;
        Some((found.is_dir(), identity(&found), entry.file_name()))
    };
    entries.filter_map(entry).collect()
}

fn walk(dir: &Path, into: &mut BTreeMap<String, PathBuf>) {
    for (is_dir, identity, name) in present(dir) {
        let path = dir.join(name);
        if is_dir {
            walk(&path, into);
        }
        into.insert(identity, path);
    }
}
