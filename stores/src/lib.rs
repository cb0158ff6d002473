//! Where sector files lie and how they move.
//!
//! [`Index`] is what everyone asks for places, and [`MemIndex`] the manager's answer to it. [`Local`] is the set of
//! storage paths open in a process; [`Remote`] brings files here that lie elsewhere; [`fetch_router`] hands files to
//! peers under `/remote/...`. [`SectorLocks`] keeps two tasks off one file.
//!
//! Never schedules, never speaks RPC, never prints. Deletes the last copy of a file only by a [`DeletePermit`].
//! A crash loses reservations, locks and the in-memory index; files and `storage.json` are whole at every moment.

mod archive;
mod care;
mod config;
mod content;
mod copied;
mod crash;
mod direct;
mod disk;
mod error;
mod fetch;
mod identity;
mod index;
mod keep;
mod kept;
mod layout;
mod limits;
mod local;
mod locks;
mod mem_index;
mod members;
mod meta;
mod peer;
mod peer_tokens;
mod rehearsal;
mod remote;
mod remote_urls;
mod sent;
mod serve;
mod snapshot;
mod space;
mod traffic;
mod wire;

pub use care::{CLEAN_UP_MAX, new_path};
pub use config::{ConfiguredPath, StorageConfig};
pub use crash::{crash_point, crash_point_of};
pub use disk::make_dir;
pub use error::StoreError;
pub use fetch::TransferMeter;
pub use index::{CopyKind, Index, IndexError, Suits};
pub use keep::{KEEP_FILE, KeepFree};
pub use kept::KeptFile;
pub use layout::discard_unfinished;
pub use local::{
    Acquired, BegunFile, DeletePermit, FINDINGS_MAX, Local, LocalOptions, LocalPath, Making, OpenedPath,
    PathProblem, RedeclareDiff, Reservation, START_DEADLINE,
};
pub use locks::{
    HeldLock, Lease, LockError, LockGuard, LockOwner, LockWant, SectorLockView, SectorLocks, WAITERS_MAX,
    WaitingLock,
};
pub use mem_index::{
    Clock, HEARTBEAT_STALE_MS, HeldFiles, IndexChange, MemIndex, Observer, PathView, Place, PrimaryConflict,
    URL_DEAD_MS, UrlTrouble,
};
pub use meta::{META_FILE, StorageMeta, init_path};
pub use peer_tokens::{PeerTokens, TokenUse};
pub use rehearsal::{MARK_FILE as REHEARSAL_FILE, Rehearsal};
pub use remote::{CopyOutcome, FetchOptions, ProvenCopy, Remote, UnsealedPiece};
pub use sealtasks::{TransferLimits, TransferPhase, TransferView};
pub use serve::{Looking, PATH_HEADER, PERMIT_HEADER, Prover, TokenAccess, VerifyToken, fetch_router};
pub use snapshot::{SnapshotRead, read_snapshot, write_snapshot};
