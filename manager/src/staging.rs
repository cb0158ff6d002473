//! Data that was given for sectors and waits to be written into them: files below the repo, whole and on stable storage
//! before anybody hears of them. Never: which sector they are for, or when they may go; the driver says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _};
use pieces::PieceData;
use rpc::reader::PieceStream;
use sealtasks::{PieceInfo, UnpaddedPieceSize, UnsealedCid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::repo::{RepoError, random_uuid};

/// Files that are not whole end so; what a crash leaves of them is removed at the next start.
const PART: &str = "part";

/// The directory, and what it holds.
pub(crate) struct Staging {
    dir: PathBuf,
    /// Bytes that it may hold.
    most: u64,
    /// Bytes that it holds, those on their way included.
    held: AtomicU64,
}

/// Data that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    /// Names the file.
    pub(crate) id: Uuid,
    /// Size and commitment.
    pub(crate) piece: PieceInfo,
    /// Raw bytes that were given.
    pub(crate) bytes: u64,
}

/// Why data is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    #[error("MGR130: no data came; expected at least one byte")]
    Empty,
    #[error("MGR131: the data has more than {most} bytes, which is what a whole sector holds")]
    TooLong { most: u64 },
    #[error(
        "MGR132: {most} bytes of data may wait to be written into sectors, and this would be more; let the sectors that wait \
         for data start, or raise [sealing] staging_max_gib"
    )]
    Full { most: u64 },
    #[error("MGR133: the data broke off")]
    Source(#[source] io::Error),
    #[error("MGR134: data cannot be kept in {}", .path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("MGR135: the commitment of the data could not be computed: {0}")]
    Commitment(String),
    #[error("MGR154: the data has CommP {found}, and piece {wanted} is wanted")]
    Other { found: UnsealedCid, wanted: UnsealedCid },
    #[error(transparent)]
    Name(#[from] RepoError),
}

impl Staging {
    /// Opens the directory, and makes it where it is missing. What is not in `known` was given to no sector, or is no
    /// longer needed: it goes.
    pub(crate) fn open(dir: PathBuf, most: u64, known: &BTreeSet<Uuid>) -> Result<Self, StagingError> {
        let disk = |source| StagingError::Disk { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(disk)?;
        // What is taken later is only as durable as the entry of the directory itself.
        let above = dir.parent().unwrap_or(&dir);
        File::open(above).and_then(|above| above.sync_all()).map_err(disk)?;
        let mut held = 0_u64;
        for entry in std::fs::read_dir(&dir).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().parse::<Uuid>().ok();
            let is_part = path.extension().is_some_and(|extension| extension == PART);
            match name {
                Some(id) if known.contains(&id) => {
                    held = held.saturating_add(entry.metadata().map_err(disk)?.len());
                }
                None if !is_part => {
                    tracing::warn!(file = %path.display(), "no staged data; it is left alone");
                }
                Some(_) | None => {
                    tracing::info!(file = %path.display(), "data that no sector waits for is removed");
                    std::fs::remove_file(&path).map_err(disk)?;
                }
            }
        }
        Ok(Self { dir, most, held: AtomicU64::new(held) })
    }

    /// Takes data of at most `whole` raw bytes; nothing is left of data that is refused.
    pub(crate) async fn take(
        &self,
        parts: impl Stream<Item = io::Result<Bytes>> + Send,
        whole: u64,
    ) -> Result<Staged, StagingError> {
        self.take_in(parts, whole, None).await
    }

    /// Takes exactly this piece, or what is left of it without the zeros at its end.
    pub(crate) async fn take_piece(
        &self,
        parts: impl Stream<Item = io::Result<Bytes>> + Send,
        wanted: PieceInfo,
    ) -> Result<Staged, StagingError> {
        self.take_in(parts, wanted.size.unpadded().get(), Some(wanted)).await
    }

    async fn take_in(
        &self,
        parts: impl Stream<Item = io::Result<Bytes>> + Send,
        whole: u64,
        wanted: Option<PieceInfo>,
    ) -> Result<Staged, StagingError> {
        let id = random_uuid()?;
        let mut fresh =
            Fresh { staging: self, path: self.path(id).with_extension(PART), bytes: 0, kept: false };
        self.write(&mut fresh, parts, whole).await?;
        let (bytes, size) = (fresh.bytes, piece_size(fresh.bytes));
        let size = wanted
            .map(|wanted| wanted.size.unpadded())
            .or(size)
            .ok_or(StagingError::TooLong { most: whole })?;
        let (from, to, dir) = (fresh.path.clone(), self.path(id), self.dir.clone());
        let piece = tokio::task::spawn_blocking(move || {
            let disk = |source| StagingError::Disk { path: dir.clone(), source };
            let file = File::open(&from).map_err(disk)?;
            let piece = pieces::data_cid(size, PieceData::File(&file));
            let piece = piece.map_err(|error| StagingError::Commitment(rpc::error::chain(&error)))?;
            if let Some(wanted) = wanted.map(|wanted| wanted.cid).filter(|wanted| *wanted != piece.cid) {
                return Err(StagingError::Other { found: piece.cid, wanted });
            }
            std::fs::rename(&from, &to).map_err(disk)?;
            File::open(&dir).and_then(|dir| dir.sync_all()).map_err(disk)?;
            Ok::<_, StagingError>(piece)
        });
        let piece =
            piece.await.map_err(|_| StagingError::Commitment("the manager is stopping".to_owned()))??;
        fresh.kept = true;
        Ok(Staged { id, piece, bytes })
    }

    /// Writes the data and brings it to stable storage.
    async fn write(
        &self,
        fresh: &mut Fresh<'_>,
        parts: impl Stream<Item = io::Result<Bytes>> + Send,
        whole: u64,
    ) -> Result<(), StagingError> {
        let path = fresh.path.clone();
        let disk = |source| StagingError::Disk { path: path.clone(), source };
        let mut file = tokio::fs::File::create_new(&path).await.map_err(disk)?;
        let mut parts = std::pin::pin!(parts);
        while let Some(part) = parts.next().await {
            let part = part.map_err(StagingError::Source)?;
            let length = part.len() as u64;
            if fresh.bytes.saturating_add(length) > whole {
                return Err(StagingError::TooLong { most: whole });
            }
            if self.held.fetch_add(length, Ordering::Relaxed).saturating_add(length) > self.most {
                self.held.fetch_sub(length, Ordering::Relaxed);
                return Err(StagingError::Full { most: self.most });
            }
            fresh.bytes += length;
            file.write_all(&part).await.map_err(disk)?;
        }
        if fresh.bytes == 0 {
            return Err(StagingError::Empty);
        }
        file.flush().await.map_err(disk)?;
        file.sync_all().await.map_err(disk)
    }

    /// The data as a piece's bytes: what was given, and zeros up to the piece's size.
    pub(crate) async fn read(&self, staged: Staged) -> io::Result<PieceStream> {
        let file = tokio::fs::File::open(self.path(staged.id)).await?;
        let length = file.metadata().await?.len();
        if length != staged.bytes {
            let text = format!("staged data {} has {length} bytes, not {}", staged.id, staged.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let zeros = staged.piece.size.unpadded().get().saturating_sub(length);
        Ok(Box::pin(file.chain(tokio::io::repeat(0).take(zeros))))
    }

    /// Forgets data; that it is gone already is no error.
    pub(crate) async fn remove(&self, id: Uuid) {
        let path = self.path(id);
        let length = tokio::fs::metadata(&path).await.map_or(0, |found| found.len());
        match tokio::fs::remove_file(&path).await {
            Ok(()) => {
                self.held.fetch_sub(length, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "staged data cannot be removed"),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.dir.join(id.to_string())
    }
}

/// A file on its way; unless it is kept, it goes when this is dropped, also when whoever sends the data hangs up.
struct Fresh<'a> {
    staging: &'a Staging,
    path: PathBuf,
    bytes: u64,
    kept: bool,
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.staging.held.fetch_sub(self.bytes, Ordering::Relaxed);
        discard(&self.path);
        discard(&self.path.with_extension(""));
    }
}

/// What cannot be removed now is found at the next start.
fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "data that was refused cannot be removed");
    }
}

/// The smallest piece that holds so many raw bytes.
fn piece_size(bytes: u64) -> Option<UnpaddedPieceSize> {
    let units = bytes.div_ceil(127).checked_next_power_of_two()?;
    units.checked_mul(127)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tempfile::TempDir;

    use super::*;

    fn parts(lengths: &[usize]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let parts: Vec<_> = lengths.iter().map(|length| Ok(Bytes::from(vec![7; *length]))).collect();
        stream::iter(parts)
    }

    fn names(dir: &TempDir) -> usize {
        std::fs::read_dir(dir.path()).expect("the directory").count()
    }

    #[tokio::test]
    async fn data_is_kept_with_its_commitment_and_read_with_zeros_behind() {
        let dir = TempDir::new().expect("a directory");
        let staging = Staging::open(dir.path().to_owned(), 5000, &BTreeSet::new()).expect("a staging");
        let staged = staging.take(parts(&[100, 50]), 2032).await.expect("taken");
        assert_eq!((staged.bytes, staged.piece.size.get()), (150, 256));
        let mut given = vec![7; 150];
        given.resize(254, 0);
        let mut hasher = pieces::commitment::PieceHasher::new();
        hasher.update(&given);
        let expected = hasher.finish(staged.piece.size.unpadded()).expect("a whole piece");
        assert_eq!(staged.piece, PieceInfo::new(staged.piece.size, expected));
        let mut read = Vec::new();
        staging.read(staged).await.expect("there").read_to_end(&mut read).await.expect("read");
        assert_eq!(read, given);
        staging.remove(staged.id).await;
        assert_eq!((names(&dir), staging.held.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_is_refused() {
        let dir = TempDir::new().expect("a directory");
        let staging = Staging::open(dir.path().to_owned(), 1000, &BTreeSet::new()).expect("a staging");
        let error = staging.take(parts(&[]), 2032).await.expect_err("no data");
        assert!(matches!(error, StagingError::Empty), "{error}");
        let error = staging.take(parts(&[600, 600]), 1016).await.expect_err("more than the sector");
        assert!(matches!(error, StagingError::TooLong { most: 1016 }), "{error}");
        let error = staging.take(parts(&[600, 600]), 2032).await.expect_err("more than may wait");
        assert!(error.to_string().contains("staging_max_gib"), "{error}");
        let broken = stream::iter([Ok(Bytes::from_static(b"some")), Err(io::Error::other("gone"))]);
        assert!(matches!(staging.take(broken, 2032).await, Err(StagingError::Source(_))));
        assert_eq!((names(&dir), staging.held.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_piece_that_is_wanted_is_taken_with_or_without_its_last_zeros_and_no_other() {
        let dir = TempDir::new().expect("a directory");
        let staging = Staging::open(dir.path().to_owned(), 5000, &BTreeSet::new()).expect("a staging");
        let wanted = staging.take(parts(&[254, 200]), 2032).await.expect("taken").piece;
        let mut whole = vec![7; 454];
        whole.resize(508, 0);
        for given in [whole, vec![7; 454]] {
            let given = stream::iter([Ok(Bytes::from(given))]);
            assert_eq!(staging.take_piece(given, wanted).await.expect("taken").piece, wanted);
        }
        let kept = names(&dir);
        let error = staging.take_piece(parts(&[453]), wanted).await.expect_err("another piece");
        assert!(error.to_string().contains(&wanted.cid.to_string()), "{error}");
        staging.take_piece(parts(&[509]), wanted).await.expect_err("too long");
        assert_eq!(names(&dir), kept, "nothing is left of what is refused");
    }

    #[tokio::test]
    async fn a_start_keeps_what_sectors_wait_for_and_removes_the_rest() {
        let dir = TempDir::new().expect("a directory");
        let staging = Staging::open(dir.path().to_owned(), 5000, &BTreeSet::new()).expect("a staging");
        let kept = staging.take(parts(&[10]), 2032).await.expect("taken");
        staging.take(parts(&[10]), 2032).await.expect("taken");
        std::fs::write(dir.path().join("half.part"), b"x").expect("a leftover");
        let again =
            Staging::open(dir.path().to_owned(), 5000, &BTreeSet::from([kept.id])).expect("a staging");
        assert_eq!((names(&dir), again.held.load(Ordering::Relaxed)), (1, 10));
        assert!(again.read(kept).await.is_ok());
    }
}
