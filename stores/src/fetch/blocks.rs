//! Fetching from a Sealyard: several blocks at once, each verified, written past the page cache and noted in the journal.
//!
//! Each connection has a thread: while one waits for the network, another hashes or writes. A block that arrives damaged is
//! asked for again, a few times; a source that changed ends the fetch with [`StoreError::Changed`].

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;

use super::arriving::{Arriving, Plan};
use super::journal::Journal;
use super::wire::{Cancel, Wire};
use super::{Target, TransferMeter};
use crate::content::{BLOCK, Block, CONTENT_TYPE_BLOCK, Content, HASH, SPANS_HEADER, UNVERIFIED_HEADER};
use crate::crash::crash_point;
use crate::direct::{BUFFER, Lent, Sink, Source, is_zero};
use crate::disk;
use crate::error::StoreError;
use crate::peer::SLOWEST_BYTES;
use crate::traffic::{Progress, Traffic};

/// Failures in a row, without a block between them, that end a fetch.
const FAILURES_MAX: usize = 4;
/// Read from the socket and hashed at once, so that it is still in the processor's cache (bytes).
const PIECE: usize = SLOWEST_BYTES;
/// An error's text is read up to this many bytes.
const TEXT_MAX: usize = 300;

/// Where a fetch comes from, and what it reports to.
#[derive(Clone)]
pub(super) struct Feed {
    pub(super) holder: String,
    pub(super) url: String,
    pub(super) token: String,
    pub(super) traffic: Traffic,
    pub(super) progress: Progress,
    pub(super) meter: TransferMeter,
    pub(super) cancel: Cancel,
    /// Which certificates are believed.
    pub(super) tls: Arc<ClientConfig>,
}

/// Brings everything of `content` into `place`; whole and durable on return. What an earlier fetch of the same content left
/// there is kept.
pub(super) fn receive(
    feed: &Feed,
    content: &Content,
    place: &Arriving,
    target: &Target,
) -> Result<(), StoreError> {
    let plan = Plan { content: content.clone(), block: BLOCK, holder: feed.holder.clone() };
    let resumed = place.plan().is_some_and(|left| left == plan) && is_laid_out(&place.data(), content);
    let blocks = content.blocks();
    if !resumed {
        place.clear()?;
        // One block is sooner sent again than noted.
        if blocks.len() > 1 {
            place.set_plan(&plan)?;
        }
    }
    let sinks = open(content, place, target)?;
    let (mut journal, known) = Journal::open(&place.journal(), blocks.len())?;
    if !resumed && blocks.len() > 1 {
        // The journal vouches for blocks after a power cut: the files must be found then, too.
        disk::sync_parent(&place.data())?;
        if target.kind.is_directory() {
            disk::sync_dir(&place.data())?;
        }
    }
    let mut here: BTreeSet<usize> = known.here.into_iter().collect();
    if target.rehearses {
        here.extend((0..blocks.len()).filter(|index| content.is_empty(&blocks[*index])));
    }
    for (index, hash) in known.doubtful {
        if feed.cancel.is_called() {
            return Err(StoreError::Lost { what: "a fetch that nobody waits for" });
        }
        if hash_here(&place.data(), content, &blocks[index])? == hash {
            here.insert(index);
        } else {
            journal.lost(index)?;
        }
    }
    let done: u64 = here.iter().map(|index| blocks[*index].bytes()).sum();
    if resumed {
        tracing::info!(sector = %target.sector.id, kind = %target.kind, bytes = done, "going on with an earlier fetch");
    }
    feed.progress.receives((&feed.holder, &feed.url), content.bytes(), done);
    // Where nothing was written yet, what is not written reads as zeros.
    let missing =
        (0..blocks.len()).filter(|index| !here.contains(index)).map(|index| (index, !resumed)).collect();
    let verify = feed.traffic.limits().verify;
    let queue = Queue { missing, failures: 0, failed: None };
    let fetch = Fetch {
        feed,
        content,
        blocks,
        sinks,
        verify,
        journal: Mutex::new(journal),
        queue: Mutex::new(queue),
    };
    fetch.run()?;
    feed.progress.syncs();
    for (sink, (name, _)) in fetch.sinks.iter().zip(&content.files) {
        sink.finish().map_err(StoreError::io("sync", &member(&place.data(), name)))?;
    }
    if target.kind.is_directory() { disk::sync_dir(&place.data()) } else { Ok(()) }
}

fn member(data: &Path, name: &str) -> std::path::PathBuf {
    if name.is_empty() { data.to_owned() } else { data.join(name) }
}

/// Whether every file that an earlier fetch made is there in its full length. Where one is not, its journal lies.
fn is_laid_out(data: &Path, content: &Content) -> bool {
    content.files.iter().all(|(name, bytes)| {
        std::fs::metadata(member(data, name)).is_ok_and(|found| found.is_file() && found.len() >= *bytes)
    })
}

fn open(content: &Content, place: &Arriving, target: &Target) -> Result<Vec<Sink>, StoreError> {
    let data = place.data();
    if target.kind.is_directory() {
        disk::create_dir(&data)?;
    }
    let opened = content.files.iter().map(|(name, bytes)| {
        let path = member(&data, name);
        // An unsealed file is largely holes, which take no room, and a rehearsal's files are nothing else.
        let whole = target.kind != sealtasks::FileType::Unsealed && !target.rehearses;
        Sink::open(&path, *bytes, whole).map_err(StoreError::io("write", &path))
    });
    opened.collect()
}

/// The hash of a block as it lies here.
fn hash_here(data: &Path, content: &Content, block: &Block) -> Result<[u8; HASH], StoreError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Lent::take();
    for span in &block.spans {
        let (name, length) = &content.files[span.file];
        let path = member(data, name);
        let source = Source::open(&path, *length).map_err(StoreError::io("open", &path))?;
        let mut done = 0;
        while done < span.bytes {
            let wanted = usize::try_from(span.bytes - done).unwrap_or(BUFFER).min(BUFFER);
            let got = source
                .read(&mut buffer, span.offset + done, wanted)
                .map_err(StoreError::io("read", &path))?;
            if got == 0 {
                break;
            }
            hasher.update(buffer.as_ref());
            done += got as u64;
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

struct Fetch<'a> {
    feed: &'a Feed,
    content: &'a Content,
    blocks: Vec<Block>,
    sinks: Vec<Sink>,
    verify: bool,
    journal: Mutex<Journal>,
    queue: Mutex<Queue>,
}

struct Queue {
    /// Blocks to be fetched, and whether nothing was written in their place yet.
    missing: VecDeque<(usize, bool)>,
    /// In a row.
    failures: usize,
    /// Ends all threads.
    failed: Option<StoreError>,
}

impl Fetch<'_> {
    fn run(&self) -> Result<(), StoreError> {
        let streams = self.feed.traffic.limits().streams.min(self.queue().missing.len());
        std::thread::scope(|scope| {
            // This thread is one of them.
            for _ in 1..streams {
                let thread = std::thread::Builder::new().name("fetch".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, || self.stream()) {
                    tracing::warn!(%error, "a fetch goes on with fewer connections");
                }
            }
            if streams > 0 {
                self.stream();
            }
        });
        let failed = self.queue().failed.take();
        failed.map_or(Ok(()), Err)
    }

    /// Fetches blocks until none is missing or something is wrong that another try would not mend.
    fn stream(&self) {
        let mut wire = match Wire::new(self.feed) {
            Ok(wire) => wire,
            Err(error) => return self.fail(error),
        };
        while let Some((index, clean)) = self.next() {
            match self.bring(&mut wire, index, clean) {
                Ok(()) => self.queue().failures = 0,
                Err(error) => self.failed(index, error),
            }
        }
    }

    fn next(&self) -> Option<(usize, bool)> {
        let mut queue = self.queue();
        if self.feed.cancel.is_called() && queue.failed.is_none() {
            queue.failed = Some(StoreError::Lost { what: "a fetch that nobody waits for" });
        }
        if queue.failed.is_some() { None } else { queue.missing.pop_front() }
    }

    fn failed(&self, index: usize, error: StoreError) {
        let passing = match &error {
            StoreError::Transport { .. } | StoreError::Corrupt { .. } => true,
            StoreError::PeerAnswer { status, .. } => *status >= 500,
            _ => false,
        };
        tracing::warn!(
            url = self.feed.url,
            block = index,
            error = crate::local::chain(&error),
            "a block failed"
        );
        let mut queue = self.queue();
        queue.failures += 1;
        queue.missing.push_front((index, false));
        if !passing || queue.failures >= FAILURES_MAX || self.feed.cancel.is_called() {
            queue.failed.get_or_insert(error);
            drop(queue);
            // The other connections need not finish what nobody will use.
            self.feed.cancel.call();
        }
    }

    fn fail(&self, error: StoreError) {
        self.queue().failed.get_or_insert(error);
    }

    /// Fetches, verifies, writes and notes one block.
    fn bring(&self, wire: &mut Wire, index: usize, clean: bool) -> Result<(), StoreError> {
        let block = &self.blocks[index];
        let spans = self.content.ask_for(block);
        let mut headers = vec![(SPANS_HEADER, &*spans)];
        if !self.verify {
            headers.push((UNVERIFIED_HEADER, "1"));
        }
        let head = wire.ask(&headers)?;
        let url = || self.feed.url.clone();
        match head.status {
            200 if head.media == CONTENT_TYPE_BLOCK && head.length == block.bytes() + HASH as u64 => {}
            200 => {
                let text = format!(
                    "{} bytes of {:?} in place of a block of {}",
                    head.length,
                    head.media,
                    block.bytes()
                );
                return Err(StoreError::PeerAnswer { url: url(), status: 200, text });
            }
            412 => return Err(StoreError::Changed { url: url() }),
            status => {
                return Err(StoreError::PeerAnswer { url: url(), status, text: wire.rest(TEXT_MAX) });
            }
        }
        let mut came = 0;
        let brought = self.take_body(wire, block, clean, &mut came);
        if brought.is_err() {
            self.feed.progress.take_back(came);
        }
        let hash = brought?;
        let due = self.journal().add(index, &hash, block.bytes())?;
        if due {
            self.sync()?;
            crash_point("worker.fetch.synced");
        }
        crash_point("worker.fetch.noted");
        Ok(())
    }

    fn take_body(
        &self,
        wire: &mut Wire,
        block: &Block,
        clean: bool,
        came: &mut u64,
    ) -> Result<[u8; HASH], StoreError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Lent::take();
        for span in &block.spans {
            let mut done = 0;
            while done < span.bytes {
                let count = usize::try_from(span.bytes - done).unwrap_or(BUFFER).min(BUFFER);
                for piece in buffer.whole()[..count].chunks_mut(PIECE) {
                    self.feed.traffic.pace(piece.len(), || self.feed.cancel.is_called());
                    wire.read(piece)?;
                    if self.verify {
                        hasher.update(piece);
                    }
                    self.feed.meter.add(piece.len());
                    self.feed.progress.add(piece.len() as u64);
                    *came += piece.len() as u64;
                }
                buffer.cut(count);
                if !(clean && is_zero(buffer.as_ref())) {
                    let path = Path::new(&self.content.files[span.file].0);
                    self.sinks[span.file]
                        .write(&mut buffer, span.offset + done, count)
                        .map_err(StoreError::io("write", path))?;
                }
                done += count as u64;
            }
        }
        let mut announced = [0; HASH];
        wire.read(&mut announced)?;
        let hash = *hasher.finalize().as_bytes();
        if self.verify && hash != announced {
            return Err(StoreError::Corrupt { url: self.feed.url.clone() });
        }
        Ok(hash)
    }

    /// Makes what has come so far survive a power cut.
    fn sync(&self) -> Result<(), StoreError> {
        let position = self.journal().position()?;
        for (sink, (name, _)) in self.sinks.iter().zip(&self.content.files) {
            sink.sync_data().map_err(StoreError::io("sync", Path::new(name)))?;
        }
        self.journal().synced(position)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
