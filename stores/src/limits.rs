//! What people let this process's downloads use, in a file of its repo: what they have said holds for its next lives, and
//! what they have not said is as it is configured then.

use std::io;
use std::path::{Path, PathBuf};

use sealtasks::{TransferChange, TransferReport};

use crate::disk;
use crate::error::StoreError;
use crate::remote::Remote;

/// More than this is no such file (bytes).
const BYTES_MAX: u64 = 1 << 12;

/// What was said, and where it is kept.
#[derive(Default)]
pub(crate) struct KeptLimits {
    file: Option<PathBuf>,
    said: TransferChange,
}

impl KeptLimits {
    fn read(file: PathBuf) -> Result<Self, StoreError> {
        let said = match disk::read_bounded(&file, BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| StoreError::Json { path: file.clone(), source })?,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                TransferChange::default()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { file: Some(file), said })
    }
}

fn write(file: &Path, said: TransferChange) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(&said).expect("plain numbers always serialise");
    disk::replace(file, &bytes)
}

impl Remote {
    /// Keeps changes of what downloads may use in this file, and begins with those of an earlier life. Blocks.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is not the JSON that this writes.
    pub fn with_limits_kept_in(mut self, file: PathBuf) -> Result<Self, StoreError> {
        let kept = KeptLimits::read(file)?;
        self.set_limits(self.limits().changed(kept.said));
        *self.kept_limits.get_mut() = kept;
        Ok(self)
    }

    /// Changes what `change` names of the limits, durably where they are kept, and tells what holds and what runs.
    ///
    /// # Errors
    /// When they cannot be kept; they are then as before.
    pub async fn change_limits(&self, change: TransferChange) -> Result<TransferReport, StoreError> {
        if !change.is_empty() {
            // One change after the other: what holds is what is kept.
            let mut kept = self.kept_limits.lock().await;
            let said = kept.said.then(change);
            if let Some(file) = kept.file.clone() {
                let written = tokio::task::spawn_blocking(move || write(&file, said)).await;
                written.unwrap_or(Err(StoreError::Lost { what: "keeping the limits of downloads" }))?;
            }
            kept.said = said;
            self.set_limits(self.limits().changed(change));
        }
        Ok(TransferReport { limits: self.limits(), transfers: self.transfers() })
    }
}
