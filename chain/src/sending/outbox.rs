//! What was meant to be sent, on disk before it is sent: one file per message, written whole and synced before anything
//! else happens. Never forgets by itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealtasks::{ActorId, ChainEpoch, SectorId, SectorNumber};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ExitCode;
use crate::TokenAmount;
use crate::lotus::wire::Bytes;
use crate::params::Method;

/// A record's file is at most so long, in bytes: parameters of 64 KiB in base64, and the rest.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// A message that is to be on chain once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Its name here; the node is told it, too.
    pub id: Uuid,
    /// The miner whose actor is called.
    pub miner: ActorId,
    /// What is called.
    pub method: Method,
    /// Which sectors it is about, in the order of the parameters.
    pub sectors: Vec<SectorNumber>,
    /// Who signs and pays: the address of a key.
    pub from: String,
    /// What is sent along: deposits or pledges.
    pub value: TokenAmount,
    /// The most that its gas may cost.
    pub max_fee: TokenAmount,
    /// The parameters, in base64.
    pub(crate) params: Bytes,
    /// The head when it was intended; it cannot have landed before.
    pub since: ChainEpoch,
}

impl Intent {
    /// Whether its parameters say this: a CommR, or a proof, byte for byte.
    pub fn says(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && self.params.0.windows(bytes.len()).any(|part| part == bytes)
    }
}

/// A message and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The message.
    pub intent: Intent,
    /// What has become of it.
    pub stage: Stage,
}

impl Record {
    /// Since when the node may have it, or is known to: one that was sent again has as much time as any other.
    pub fn since(&self) -> ChainEpoch {
        let later = match self.stage {
            Stage::Intended { again } => again,
            Stage::Pushed { seen, .. } => seen,
            Stage::Landed { .. } => None,
        };
        self.intent.since.max(later.unwrap_or_default())
    }
}

/// What has become of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// It may have been sent, or not.
    Intended {
        /// The head when it was last sent again, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<ChainEpoch>,
    },
    /// A node has it.
    Pushed {
        /// Its CID.
        cid: String,
        /// Its sender's sequence number.
        nonce: u64,
        /// The head when the node was seen to have it and it was not on chain, if that was later than when it was intended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<ChainEpoch>,
    },
    /// It is on chain, deep enough.
    Landed {
        /// The CID on chain; another one if it was replaced by one with a higher fee. Empty: not known, its sectors alone show that it
        /// has landed.
        cid: String,
        /// At this height.
        height: ChainEpoch,
        /// How it ended.
        exit_code: ExitCode,
        /// Of a message that succeeded, the sectors that were not activated, and why.
        failed: Vec<(SectorNumber, ExitCode)>,
    },
}

/// Where intents are kept.
pub trait Outbox: Send + Sync {
    /// Keeps the record, in place of an earlier one of the same id; when this returns, it outlives a power cut.
    ///
    /// # Errors
    /// It is not kept; the earlier one is.
    fn put(&self, record: &Record) -> Result<(), OutboxError>;

    /// Forgets a message that is known not to be sent, and will not be, or that is lost; when this returns, that outlives a power cut.
    ///
    /// # Errors
    /// It may be kept.
    fn forget(&self, id: Uuid) -> Result<(), OutboxError>;

    /// All records.
    ///
    /// # Errors
    /// One of them cannot be read: nothing must be sent until it can.
    fn all(&self) -> Result<Vec<Record>, OutboxError>;
}

/// An outbox in a directory of its own.
pub struct FileOutbox {
    directory: PathBuf,
    /// What all records are about, once they have been read.
    entries: Mutex<Option<Entries>>,
}

/// Oldest first, as [`Outbox::all`] gives the records.
type Entries = BTreeMap<(ChainEpoch, Uuid), Entry>;

/// What a record is about, without its parameters.
struct Entry {
    miner: ActorId,
    method: Method,
    sectors: Vec<SectorNumber>,
    /// `None`: it may not have been sent.
    cid: Option<String>,
    has_landed: bool,
}

impl Entry {
    fn of(Record { intent, stage }: &Record) -> Self {
        let (cid, has_landed) = match stage {
            Stage::Intended { .. } => (None, false),
            Stage::Pushed { cid, .. } => (Some(cid.clone()), false),
            Stage::Landed { cid, .. } => (Some(cid.clone()), true),
        };
        Self { miner: intent.miner, method: intent.method, sectors: intent.sectors.clone(), cid, has_landed }
    }
}

impl Entry {
    fn is_about(&self, method: Method, sector: SectorId) -> bool {
        self.method == method && self.miner == sector.miner && self.sectors.contains(&sector.number)
    }
}

impl FileOutbox {
    /// Opens the directory, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> Result<Self, OutboxError> {
        // What is kept later is only as durable as the entry of the directory itself.
        let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
        fs::create_dir_all(directory)
            .and_then(|()| File::open(directory)?.sync_all())
            .and_then(|()| File::open(above.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|source| OutboxError::Io { path: directory.to_owned(), source })?;
        Ok(Self { directory: directory.to_owned(), entries: Mutex::default() })
    }

    /// The record of the message that was sent for this sector under this CID. One that was replaced by another with a
    /// higher fee landed under that one's CID: then it is the sector's last that landed. All records are read the first
    /// time only.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn about(
        &self,
        method: Method,
        sector: SectorId,
        message: &str,
    ) -> Result<Option<Record>, OutboxError> {
        let entries = self.read_entries()?;
        let known = entries.iter().flatten();
        let landed = |entry: &Entry| entry.is_about(method, sector) && entry.has_landed;
        let sent = known.clone().find(|(_, entry)| entry.cid.as_deref() == Some(message));
        let found = sent.or_else(|| known.rev().find(|(_, entry)| landed(entry)));
        found.map(|((_, id), _)| read(&self.path(*id))).transpose()
    }

    /// Whether a message of this kind was ever meant to be sent for this sector. All records are read the first time only.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn knows(&self, method: Method, sector: SectorId) -> Result<bool, OutboxError> {
        Ok(self.read_entries()?.iter().flatten().any(|(_, entry)| entry.is_about(method, sector)))
    }

    /// The messages of this kind that have landed for this sector, oldest first. All records are read the first time only.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn landed(&self, method: Method, sector: SectorId) -> Result<Vec<Record>, OutboxError> {
        let entries = self.read_entries()?;
        let landed =
            entries.iter().flatten().filter(|(_, entry)| entry.is_about(method, sector) && entry.has_landed);
        landed.map(|((_, id), _)| read(&self.path(*id))).collect()
    }

    fn read_entries(&self) -> Result<MutexGuard<'_, Option<Entries>>, OutboxError> {
        let mut entries = self.entries();
        if entries.is_none() {
            let all = self.all()?;
            *entries = Some(all.iter().map(|record| (place(&record.intent), Entry::of(record))).collect());
        }
        Ok(entries)
    }

    fn entries(&self) -> MutexGuard<'_, Option<Entries>> {
        // Each change is one insertion or removal, so what a panic leaves is whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.directory)?.sync_all()
    }
}

impl Outbox for FileOutbox {
    fn put(&self, record: &Record) -> Result<(), OutboxError> {
        let path = self.path(record.intent.id);
        let text = serde_json::to_vec_pretty(record);
        let text =
            text.map_err(|error| OutboxError::Unreadable { path: path.clone(), detail: error.to_string() })?;
        let mut entries = self.entries();
        self.write(&path, &text).map_err(|source| OutboxError::Io { path, source })?;
        if let Some(entries) = entries.as_mut() {
            entries.insert(place(&record.intent), Entry::of(record));
        }
        Ok(())
    }

    fn forget(&self, id: Uuid) -> Result<(), OutboxError> {
        let path = self.path(id);
        let mut entries = self.entries();
        let gone = fs::remove_file(&path).and_then(|()| File::open(&self.directory)?.sync_all());
        if let Some(entries) = entries.as_mut() {
            entries.retain(|(_, known), _| *known != id);
        }
        gone.map_err(|source| OutboxError::Io { path, source })
    }

    fn all(&self) -> Result<Vec<Record>, OutboxError> {
        let io = |source| OutboxError::Io { path: self.directory.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            // What is still called .tmp was not finished, so nothing was done about it either.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            records.push(read(&path)?);
        }
        records.sort_by_key(|record: &Record| place(&record.intent));
        Ok(records)
    }
}

const fn place(intent: &Intent) -> (ChainEpoch, Uuid) {
    (intent.since, intent.id)
}

fn read(path: &Path) -> Result<Record, OutboxError> {
    let mut text = Vec::new();
    let file = File::open(path).and_then(|file| file.take(FILE_SIZE_MAX).read_to_end(&mut text));
    file.map_err(|source| OutboxError::Io { path: path.to_owned(), source })?;
    let unreadable = |error: serde_json::Error| OutboxError::Unreadable {
        path: path.to_owned(),
        detail: error.to_string(),
    };
    serde_json::from_slice(&text).map_err(unreadable)
}

/// The outbox cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record that is none.
    #[error("{} is no record of a message: {detail}; nothing is sent until it is mended or taken away", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u128, stage: Stage) -> Record {
        let intent = Intent {
            id: Uuid::from_u128(id),
            miner: ActorId::new(1000),
            method: Method::PreCommitSectorBatch2,
            sectors: vec![SectorNumber::new(1)],
            from: "f3abc".to_owned(),
            value: TokenAmount::from_atto(7),
            max_fee: TokenAmount::from_atto(9),
            params: Bytes(vec![1, 2, 3]),
            since: ChainEpoch::new(100),
        };
        Record { intent, stage }
    }

    fn pushed(cid: &str, nonce: u64) -> Stage {
        Stage::Pushed { cid: cid.to_owned(), nonce, seen: None }
    }

    #[test]
    fn records_outlive_their_outbox_and_damaged_ones_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || FileOutbox::open(&directory.path().join("messages")).expect("an outbox");
        open().put(&record(1, Stage::Intended { again: None })).expect("kept");
        let pushed = record(1, pushed("bafy", 4));
        open().put(&pushed).expect("kept");
        let failed = vec![(SectorNumber::new(1), ExitCode(16))];
        let landed = Stage::Landed {
            cid: "b".to_owned(),
            height: ChainEpoch::new(9),
            exit_code: ExitCode::OK,
            failed,
        };
        open().put(&record(2, landed.clone())).expect("kept");
        assert_eq!(open().all().expect("records"), [pushed, record(2, landed)]);
        let file = directory.path().join("messages").join(format!("{}.json", Uuid::from_u128(2)));
        let text = fs::read(&file).expect("a file");
        fs::write(&file, &text[..text.len() - 9]).expect("damage");
        open().forget(Uuid::from_u128(1)).expect("forgotten");
        assert!(!file.with_file_name(format!("{}.json", Uuid::from_u128(1))).exists());
        let error = open().all().expect_err("damaged").to_string();
        assert!(error.contains("is no record of a message"), "{error}");
    }

    #[test]
    fn a_message_is_found_by_its_cid_or_as_the_last_that_landed_and_read_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let outbox = FileOutbox::open(&directory.path().join("messages")).expect("an outbox");
        let sector = SectorId::new(1000, 1);
        let about = |cid: &str| outbox.about(Method::PreCommitSectorBatch2, sector, cid);
        let id = |cid: &str| about(cid).expect("readable").map(|record| record.intent.id.as_u128());
        outbox.put(&record(1, pushed("one", 4))).expect("kept");
        outbox.put(&record(2, Stage::Intended { again: None })).expect("kept");
        assert_eq!((id("one"), id("two")), (Some(1), None));
        outbox.put(&record(2, pushed("two", 5))).expect("kept");
        outbox.put(&record(3, pushed("three", 6))).expect("kept");
        assert_eq!((id("two"), id("three"), id("another")), (Some(2), Some(3), None));
        let (cid, height) = ("dearer".to_owned(), ChainEpoch::new(9));
        let landed = Stage::Landed { cid, height, exit_code: ExitCode::OK, failed: Vec::new() };
        outbox.put(&record(3, landed)).expect("kept");
        assert_eq!((id("three"), id("dearer")), (Some(3), Some(3)), "replaced by one with a higher fee");
        let other = SectorId::new(1000, 2);
        assert_eq!(outbox.about(Method::PreCommitSectorBatch2, other, "three").expect("readable"), None);
        assert_eq!(outbox.about(Method::ProveCommitSectors3, sector, "three").expect("readable"), None);

        // The others' files are not looked at again.
        fs::write(directory.path().join("messages").join(format!("{}.json", Uuid::from_u128(1))), "{")
            .expect("damage");
        assert_eq!(id("two"), Some(2));
        about("one").expect_err("damaged");
        outbox.forget(Uuid::from_u128(2)).expect("forgotten");
        assert_eq!(id("two"), Some(3), "the last that landed");
    }
}
