//! A small file system of its own for tests with full and read-only disks.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where this is set nothing may be left out: whoever sets it has seen that mounting is permitted.
const DEMANDED: &str = "SEALYARD_TESTS_MOUNT";

/// A tmpfs, unmounted at the end.
pub struct Mount {
    dir: PathBuf,
    /// Removed after it was unmounted.
    own: Option<tempfile::TempDir>,
}

impl Mount {
    /// In a directory of its own. `None` where this user may not mount, which is said.
    pub fn tmpfs(options: &str) -> Option<Self> {
        let own = tempfile::tempdir().expect("a directory");
        let mut mount = Self::at(own.path(), options)?;
        mount.own = Some(own);
        Some(mount)
    }

    /// The same at this directory, which is made.
    pub fn at(dir: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a directory");
        let mounted = mount(&["-t", "tmpfs", "-o", options, "tmpfs"], dir);
        if !mounted {
            assert!(std::env::var_os(DEMANDED).is_none(), "{DEMANDED} is set, and a tmpfs cannot be mounted");
            #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
            {
                eprintln!("LEFT OUT: this user may not mount a tmpfs");
            }
        }
        mounted.then(|| Self { dir: dir.to_owned(), own: None })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.dir), "remounted with {options}");
    }
}

fn mount(args: &[&str], at: &Path) -> bool {
    Command::new("mount").args(args).arg(at).output().is_ok_and(|output| output.status.success())
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
    }
}
