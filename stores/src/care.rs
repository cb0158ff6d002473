//! Carries out what an operator orders about this process's storage paths. The manager's process and a worker's do so
//! alike; which of them is asked is decided elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealtasks::{
    CleanedEntry, NewPath, PathDifference, PathFilters, PathOrder, PathReport, SectorDecl, StorageId,
    StorageStanza,
};

use crate::error::StoreError;
use crate::fetch::TransferMeter;
use crate::index::CopyKind;
use crate::keep::KeepFree;
use crate::layout;
use crate::local::{DeletePermit, Local, Vouched};
use crate::meta::{StorageMeta, init_path};
use crate::remote::Remote;

/// Most entries that one clean-up deletes.
pub const CLEAN_UP_MAX: usize = 10_000;

impl Remote {
    /// Does what `order` says.
    ///
    /// # Errors
    /// Whatever the path, the disk, the index or a peer refuses; nothing is half done then but what the parts say of
    /// themselves.
    pub async fn carry_out(&self, order: PathOrder) -> Result<PathReport, StoreError> {
        let local = self.local();
        Ok(match order {
            PathOrder::Attach { dir, new } => {
                if let Some(new) = new {
                    make_path(&dir, &new).await?;
                }
                let opened = local.attach_path(&dir).await?;
                PathReport::Attached { id: opened.id, foreign: opened.foreign }
            }
            PathOrder::Detach { dir } => {
                local.detach_path(&dir).await?;
                PathReport::Detached
            }
            PathOrder::Compare { id } => PathReport::Compared(compare(local, id.as_ref()).await?),
            PathOrder::Redeclare { id, drop_missing } => {
                let before = compare(local, id.as_ref()).await?;
                local.redeclare(id.as_ref(), drop_missing).await?;
                PathReport::Redeclared(before)
            }
            PathOrder::Survey => PathReport::Surveyed(local.survey().await),
            PathOrder::Measure { files } => PathReport::Measured(local.measure(files).await),
            PathOrder::DropMissing { files } => PathReport::Dropped(local.drop_gone(files).await?),
            PathOrder::CleanUp { entries, old } => {
                let (entries, mut cleaned) = self.vouch(entries, &old).await;
                cleaned.extend(local.clean_up_vouched(&entries).await);
                PathReport::CleanedUp(cleaned)
            }
            PathOrder::Discard { sector, file, path, reason } => {
                local.remove_permitted(sector, file, &path, &DeletePermit { reason }).await?;
                PathReport::Discarded
            }
            PathOrder::SetAside { sector, types, path } => {
                PathReport::SetAside(local.set_aside(sector, types, &path).await?)
            }
            PathOrder::Move { sector, types, to } => {
                for kind in types.iter() {
                    self.bring_into(sector, kind, &to, &TransferMeter::default()).await?;
                }
                PathReport::Moved
            }
        })
    }

    /// Parts what may be cleaned up from sector files, in their places or set aside for others, beside which no whole primary
    /// copy can be shown.
    async fn vouch(&self, entries: Vec<PathBuf>, old: &[PathBuf]) -> (Vec<Vouched>, Vec<CleanedEntry>) {
        let (mut vouched, mut kept) = (Vec::new(), Vec::new());
        let open = self.local().paths();
        for entry in entries.into_iter().take(CLEAN_UP_MAX) {
            let in_place = layout::sector_file(&entry);
            let file = in_place.or_else(|| layout::replaced_file(&entry));
            let at = open.iter().find(|path| match (in_place, file) {
                (Some((sector, kind)), _) => layout::file(&path.dir, sector, kind) == entry,
                (None, Some((_, kind))) => entry.starts_with(path.dir.join(kind.name())),
                (None, None) => false,
            });
            let copy = copy_of(&entry, old);
            let twin = match file.zip(at) {
                Some((file, path)) => self.check_entry(file, &path.id, entry.clone(), copy).await,
                None => Ok(None),
            };
            match twin {
                Ok(twin) => vouched.push(Vouched { entry, copy, twin }),
                Err(error) => {
                    kept.push(CleanedEntry { entry, bytes: 0, kept: Some(crate::local::chain(&error)) });
                }
            }
        }
        (vouched, kept)
    }
}

/// How closely a copy must be matched by another one before it goes: an older one as any that does not count.
pub(crate) fn copy_of(entry: &Path, old: &[PathBuf]) -> CopyKind {
    if old.iter().any(|one| one == entry) { CopyKind::Secondary } else { CopyKind::Primary }
}

async fn compare(local: &Local, id: Option<&StorageId>) -> Result<Vec<PathDifference>, StoreError> {
    let dirs: BTreeMap<_, _> = local.paths().into_iter().map(|path| (path.id, path.dir)).collect();
    let pairs = |decls: Vec<SectorDecl>| decls.into_iter().map(|decl| (decl.sector, decl.types)).collect();
    let differences = local.redeclare_diff(id).await?.into_iter().map(|(id, diff)| PathDifference {
        dir: dirs.get(&id).cloned().unwrap_or_default(),
        unchanged: diff.unchanged as u64,
        added: pairs(diff.declared),
        missing: pairs(diff.dropped),
        id,
    });
    Ok(differences.collect())
}

async fn make_path(dir: &Path, new: &NewPath) -> Result<(), StoreError> {
    let (dir, new) = (dir.to_owned(), new.clone());
    let made = move || {
        let dir = std::path::absolute(&dir).map_err(StoreError::io("resolve", &dir))?;
        new_path(&dir, &new)
    };
    tokio::task::spawn_blocking(made).await.unwrap_or(Err(StoreError::Lost { what: "making a storage path" }))
}

/// Makes `dir` a storage path with a fresh id: `sectorstore.json`, and `sealyard.json` where bytes are kept free.
///
/// # Errors
/// When it would be used for nothing, is one already, or the disk refuses.
pub fn new_path(dir: &Path, new: &NewPath) -> Result<(), StoreError> {
    if !(new.can_seal || new.can_store) {
        return Err(StoreError::MetaField {
            path: dir.join(crate::META_FILE),
            field: "CanSeal and CanStore",
            value: "false".to_owned(),
            expected: "at least one of them true: --seal, --store or both",
        });
    }
    let stanza = StorageStanza {
        weight: new.weight,
        max_storage: new.max_storage,
        can_seal: new.can_seal,
        can_store: new.can_store,
        groups: new.groups.iter().cloned().collect(),
        allow_to: new.allow_to.iter().cloned().collect(),
        filters: PathFilters::default(),
    };
    init_path(dir, &StorageMeta::new(&StorageId::from(uuid::Uuid::new_v4()), &stanza))?;
    KeepFree { bytes: new.keep_free }.write(dir)
}
