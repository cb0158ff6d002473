//! How large files are, and how old, for those who show them and cannot look themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use sealtasks::{FileMeasure, FileType, SectorId, StorageId};

use super::survey::{FINDINGS_MAX, newest};
use super::{Local, OPEN_DEADLINE};
use crate::disk;
use crate::layout;

impl Local {
    /// Looks at files of the open paths. What is not there, or does not answer, is told as nothing; so is what is named beyond
    /// the first ten thousand.
    pub async fn measure(&self, files: Vec<(StorageId, SectorId, FileType)>) -> Vec<FileMeasure> {
        let mut found = vec![FileMeasure::default(); files.len()];
        let mut by_path: BTreeMap<StorageId, Vec<(usize, PathBuf)>> = BTreeMap::new();
        for (at, (path, sector, kind)) in files.into_iter().enumerate().take(FINDINGS_MAX) {
            if let Ok(dir) = self.dir(&path) {
                let entry = layout::file(&dir, sector, kind);
                by_path.entry(path).or_default().push((at, entry));
            }
        }
        let looks = by_path.into_iter().map(|(path, entries)| async move {
            let Ok(path) = self.path(&path) else { return Vec::new() };
            let look =
                move || Ok(entries.into_iter().map(|(at, entry)| (at, measured(&entry))).collect::<Vec<_>>());
            // A path that hangs does not hide the others' figures.
            path.look(OPEN_DEADLINE, "measuring files", look).await.unwrap_or_default()
        });
        for (at, measure) in futures_util::future::join_all(looks).await.into_iter().flatten() {
            found[at] = measure;
        }
        found
    }
}

fn measured(entry: &std::path::Path) -> FileMeasure {
    let age = |at: SystemTime| at.elapsed().unwrap_or_default().as_secs();
    FileMeasure { bytes: disk::usage(entry).unwrap_or(0), age_s: newest(entry).map_or(0, age) }
}
