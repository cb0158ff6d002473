//! Published parameters by HTTP from an IPFS gateway: resumable, several at once, digest checked before a file gets its
//! name.
//!
//! Bytes arrive in `<name>.part` beside the final file, under an exclusive lock, so two processes never write the same
//! file and a crash loses nothing that has arrived. Never touches a file that already has its final name.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs2::FileExt;
use futures_util::StreamExt;
use reqwest::{Client, Response, StatusCode, header};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::status::part_path;
use super::{ParamFile, digest_file};

/// Where the network publishes its parameters.
pub const GATEWAY_DEFAULT: &str = "https://proofs.filecoin.io/ipfs/";
/// The variable that names another gateway, as in Lotus: a base that a content id is appended to.
pub const GATEWAY_VARIABLE: &str = "IPFS_GATEWAY";
/// The longest file accepted from a gateway that does not give a length. The longest published one is about 101 GiB.
const FILE_BYTES_MAX: u64 = 128 << 30;
/// Space that stays free on the disk.
const SPACE_SLACK: u64 = 64 << 20;

/// How to fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The directory the files go to; made if it is absent.
    pub directory: PathBuf,
    /// The base URL that content ids are appended to.
    pub gateway: Url,
    /// Files in transfer at a time; at least 1.
    pub parallel: usize,
    /// Attempts in a row that may bring no new byte before a file is given up.
    pub attempts: u32,
    /// The pause after the first fruitless attempt; it doubles with each further one, up to a minute.
    pub pause: Duration,
    /// How long a connection may be silent.
    pub silence: Duration,
}

impl FetchOptions {
    /// The usual: two files at a time, eight attempts, a pause of two seconds at first, a minute of silence, and the
    /// gateway that `IPFS_GATEWAY` names.
    pub fn new(directory: PathBuf) -> Result<Self, FetchError> {
        let given = std::env::var(GATEWAY_VARIABLE).ok().filter(|value| !value.is_empty());
        let gateway = parse_gateway(given.as_deref().unwrap_or(GATEWAY_DEFAULT))?;
        let (pause, silence) = (Duration::from_secs(2), Duration::from_secs(60));
        Ok(Self { directory, gateway, parallel: 2, attempts: 8, pause, silence })
    }
}

/// A gateway's base URL; a slash is added where it lacks one at its end.
pub fn parse_gateway(text: &str) -> Result<Url, FetchError> {
    let bad = || FetchError::Gateway { text: text.to_owned() };
    let based = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
    let url = Url::parse(&based).map_err(|_| bad())?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(bad()) }
}

/// What happens to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// What happened.
    pub event: FetchEvent,
}

/// See [`FetchProgress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// Another process is fetching it; its result will be taken.
    Waiting,
    /// Bytes have arrived. Reported for every part of the stream.
    Bytes {
        /// Bytes there now.
        have: u64,
        /// Bytes in all, where the gateway says.
        total: Option<u64>,
    },
    /// The connection broke or the gateway is busy; another attempt follows.
    Retrying {
        /// What went wrong.
        reason: String,
    },
    /// All bytes are there; the digest is being computed.
    Checking,
    /// The file is in place.
    Done,
}

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The gateway is no URL.
    #[error("{text:?} is no gateway; expected a base URL such as {GATEWAY_DEFAULT}")]
    Gateway {
        /// The text as given.
        text: String,
    },
    /// The HTTP client cannot be set up.
    #[error("setting up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The gateway does not have it.
    #[error("{url} answers {status}; try another gateway ({GATEWAY_VARIABLE})")]
    Refused {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// It broke too often.
    #[error(
        "{url} failed {attempts} times without bringing a new byte, last: {reason}; what has arrived is kept, run the command again to go on"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Attempts in a row.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
    /// The gateway sent something else.
    #[error(
        "what {url} sent as {name} has digest {found}, not {expected}; it was removed, try another gateway ({GATEWAY_VARIABLE})"
    )]
    WrongDigest {
        /// What was asked for.
        url: String,
        /// The file.
        name: String,
        /// The digest of what came.
        found: String,
        /// The published digest.
        expected: String,
    },
    /// The gateway sent more than the file holds.
    #[error("{url} sends more than {limit} bytes; it was stopped, try another gateway ({GATEWAY_VARIABLE})")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The most it may be.
        limit: u64,
    },
    /// Something else has the file's name.
    #[error("{} exists with digest {found}, but the published one is {expected}; move it away and run the command again", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The published digest.
        expected: String,
    },
    /// Not enough disk space.
    #[error("{name} needs {} MiB more in {} and {} MiB are free for it", needed >> 20, directory.display(), free >> 20)]
    Space {
        /// The file.
        name: String,
        /// Where it goes.
        directory: PathBuf,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free, less what other transfers still need.
        free: u64,
    },
    /// The system refused something.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Fetches `files`, several at once. Those that are there already are only checked. When one fails the others go on,
/// and the first failure is returned at the end.
pub async fn fetch(
    files: &[ParamFile],
    options: &FetchOptions,
    progress: &(dyn Fn(FetchProgress<'_>) + Sync),
) -> Result<(), FetchError> {
    std::fs::create_dir_all(&options.directory).map_err(|source| FetchError::Io {
        doing: "creating",
        path: options.directory.clone(),
        source,
    })?;
    let client = Client::builder()
        .connect_timeout(options.silence)
        .read_timeout(options.silence)
        .build()
        .map_err(FetchError::Client)?;
    let outstanding = AtomicU64::new(0);
    // Collected first: a future that holds the lazy iterator is not `Send`, and workers fetch in the background.
    let transfers: Vec<_> = files
        .iter()
        .map(|file| {
            let path = options.directory.join(&file.name);
            let transfer =
                Transfer { file, path, options, progress, client: &client, outstanding: &outstanding };
            async move { transfer.run().await }
        })
        .collect();
    let outcomes: Vec<_> =
        futures_util::stream::iter(transfers).buffer_unordered(options.parallel.max(1)).collect().await;
    outcomes.into_iter().collect()
}

/// One file's way here.
struct Transfer<'a> {
    file: &'a ParamFile,
    /// Its final path.
    path: PathBuf,
    options: &'a FetchOptions,
    progress: &'a (dyn Fn(FetchProgress<'_>) + Sync),
    client: &'a Client,
    /// Bytes that all running transfers together still expect.
    outstanding: &'a AtomicU64,
}

/// How one attempt ended.
enum Attempt {
    /// The stream came to its end.
    Complete,
    /// It broke.
    Broken(String),
}

impl Transfer<'_> {
    async fn run(&self) -> Result<(), FetchError> {
        if self.already_there().await? {
            return Ok(());
        }
        let part = self.lock_part().await?;
        // The process that held the lock may have finished it.
        if self.already_there().await? {
            return Ok(());
        }
        let resumed = self.length(&part)? > 0;
        self.download(&part).await?;
        let mut found = self.digest(&part_path(&self.path)).await?;
        if found != self.file.digest && resumed {
            // The beginning may be from another source or a broken disk: once more from nothing.
            self.set_length(&part, 0)?;
            self.download(&part).await?;
            found = self.digest(&part_path(&self.path)).await?;
        }
        if found != self.file.digest {
            let part_path = part_path(&self.path);
            std::fs::remove_file(&part_path).map_err(self.error("removing"))?;
            return Err(FetchError::WrongDigest {
                url: self.shown_url(),
                name: self.file.name.clone(),
                found,
                expected: self.file.digest.clone(),
            });
        }
        self.put_in_place(&part)?;
        self.report(FetchEvent::Done);
        Ok(())
    }

    async fn already_there(&self) -> Result<bool, FetchError> {
        if !self.path.exists() {
            return Ok(false);
        }
        let found = self.digest(&self.path).await?;
        if found == self.file.digest {
            self.report(FetchEvent::Done);
            return Ok(true);
        }
        Err(FetchError::Occupied { path: self.path.clone(), found, expected: self.file.digest.clone() })
    }

    /// Opens and locks the part file; waits for another process that has it.
    async fn lock_part(&self) -> Result<File, FetchError> {
        let path = part_path(&self.path);
        loop {
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let part = open.map_err(self.error("opening"))?;
            let part = if part.try_lock_exclusive().is_ok() {
                part
            } else {
                self.report(FetchEvent::Waiting);
                self.blocking("locking", move || part.lock_exclusive().map(|()| part)).await?
            };
            // The holder may have renamed or removed the file meanwhile; then this lock is on nothing.
            let same =
                |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
            let mine = part.metadata().map_err(self.error("looking at"))?;
            if std::fs::metadata(&path).is_ok_and(|there| same(&mine, &there)) || self.path.exists() {
                return Ok(part);
            }
        }
    }

    /// Attempts until everything is there or too many in a row brought nothing.
    async fn download(&self, part: &File) -> Result<(), FetchError> {
        let mut fruitless = 0;
        loop {
            let before = self.length(part)?;
            let reason = match self.attempt(part, before).await? {
                Attempt::Complete => return Ok(()),
                Attempt::Broken(reason) => reason,
            };
            fruitless = if self.length(part)? > before { 0 } else { fruitless + 1 };
            if fruitless >= self.options.attempts.max(1) {
                return Err(FetchError::Unreachable { url: self.shown_url(), attempts: fruitless, reason });
            }
            self.report(FetchEvent::Retrying { reason });
            let doublings = fruitless.saturating_sub(1).min(5);
            tokio::time::sleep((self.options.pause * 2u32.pow(doublings)).min(Duration::from_secs(60))).await;
        }
    }

    async fn attempt(&self, part: &File, have: u64) -> Result<Attempt, FetchError> {
        let mut request = self.client.get(self.url()?);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Broken(crate::failure::chain(&error))),
        };
        match response.status() {
            StatusCode::OK => {
                self.set_length(part, 0)?; // it begins anew, whatever was asked
                self.receive(part, 0, response).await
            }
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => {
                self.receive(part, have, response).await
            }
            StatusCode::PARTIAL_CONTENT => {
                self.set_length(part, 0)?;
                Ok(Attempt::Broken("the gateway sent another range than it was asked for".to_owned()))
            }
            // Nothing lies beyond what is there; the digest tells whether that is the file.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => Ok(Attempt::Complete),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Ok(Attempt::Broken(format!("the gateway answers {status}")))
            }
            status => Err(FetchError::Refused { url: self.shown_url(), status }),
        }
    }

    async fn receive(&self, part: &File, start: u64, mut response: Response) -> Result<Attempt, FetchError> {
        let length = response.content_length();
        let total = length.and_then(|length| start.checked_add(length));
        let limit = self.file.bytes.unwrap_or(FILE_BYTES_MAX);
        if total.is_some_and(|total| total > limit) {
            return Err(FetchError::TooLong { url: self.shown_url(), limit });
        }
        let known = self.file.bytes.map(|bytes| bytes.saturating_sub(start));
        let mut expected = Expected::reserve(self, length.or(known).unwrap_or(0))?;
        let mut file = tokio::fs::File::from_std(part.try_clone().map_err(self.error("opening"))?);
        tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(start))
            .await
            .map_err(self.error("seeking in"))?;
        let mut have = start;
        let ended = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    have = have.saturating_add(bytes.len() as u64);
                    if have > limit {
                        return Err(FetchError::TooLong { url: self.shown_url(), limit });
                    }
                    file.write_all(&bytes).await.map_err(self.error("writing"))?;
                    expected.arrived(bytes.len() as u64);
                    self.report(FetchEvent::Bytes { have, total });
                }
                Ok(None) => break Attempt::Complete,
                Err(error) => break Attempt::Broken(crate::failure::chain(&error)),
            }
        };
        file.flush().await.map_err(self.error("writing"))?;
        Ok(ended)
    }

    async fn digest(&self, path: &Path) -> Result<String, FetchError> {
        self.report(FetchEvent::Checking);
        let path = path.to_owned();
        self.blocking("reading", move || digest_file(&path)).await
    }

    fn put_in_place(&self, part: &File) -> Result<(), FetchError> {
        part.sync_all().map_err(self.error("syncing"))?;
        std::fs::rename(part_path(&self.path), &self.path).map_err(self.error("renaming"))?;
        File::open(&self.options.directory).and_then(|dir| dir.sync_all()).map_err(self.error("syncing"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, FetchError> {
        let joined = tokio::task::spawn_blocking(work).await;
        joined.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(self.error(doing))
    }

    fn url(&self) -> Result<Url, FetchError> {
        let base = &self.options.gateway;
        base.join(&self.file.cid).map_err(|_| FetchError::Gateway { text: base.to_string() })
    }

    fn shown_url(&self) -> String {
        format!("{}{}", self.options.gateway, self.file.cid)
    }

    fn length(&self, part: &File) -> Result<u64, FetchError> {
        part.metadata().map(|metadata| metadata.len()).map_err(self.error("looking at"))
    }

    fn set_length(&self, part: &File, length: u64) -> Result<(), FetchError> {
        part.set_len(length).map_err(self.error("truncating"))
    }

    fn report(&self, event: FetchEvent) {
        (self.progress)(FetchProgress { file: &self.file.name, event });
    }

    fn error(&self, doing: &'static str) -> impl Fn(io::Error) -> FetchError {
        move |source| FetchError::Io { doing, path: self.path.clone(), source }
    }
}

/// Bytes one transfer still expects, taken off the common count as they arrive and in full when it ends.
struct Expected<'a> {
    outstanding: &'a AtomicU64,
    left: u64,
}

impl<'a> Expected<'a> {
    /// An error unless the disk has room for this and for everything that other transfers still expect.
    fn reserve(transfer: &Transfer<'a>, bytes: u64) -> Result<Self, FetchError> {
        let directory = &transfer.options.directory;
        let free = fs2::available_space(directory).map_err(transfer.error("asking for free space for"))?;
        let others = transfer.outstanding.fetch_add(bytes, Ordering::SeqCst);
        let expected = Self { outstanding: transfer.outstanding, left: bytes };
        let free = free.saturating_sub(others).saturating_sub(SPACE_SLACK);
        if bytes > free {
            let (name, directory) = (transfer.file.name.clone(), directory.clone());
            return Err(FetchError::Space { name, directory, needed: bytes, free });
        }
        Ok(expected)
    }

    fn arrived(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.outstanding.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.outstanding.fetch_sub(self.left, Ordering::SeqCst);
    }
}

/// Where a partial answer begins: the number in `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
