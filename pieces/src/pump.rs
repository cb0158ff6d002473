//! Moves a piece's raw bytes from where they come from to where they go, padded, computing the commitment's tree on the
//! way. Three things happen at once: the next batches are read, those before them are padded and hashed, and what is done is
//! written.
//!
//! Holds at most [`AHEAD`] raw and [`BUFFERS`] padded buffers of 2 MiB each. Never knows what is at either end.

use std::collections::VecDeque;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rayon::{ScopeFifo, Yield};
use sealtasks::UnpaddedPieceSize;

use crate::batch::pad_and_hash;
use crate::fr32::{PADDED_CHUNK, RAW_CHUNK};
use crate::node::{Frontier, LEAF, Node, zero_node};
use crate::source::{Filled, Source};

/// Padded bytes that go through at once: enough blocks for many threads, and writes that a disk likes.
const BATCH_MAX: u64 = 2 << 20;
/// Smaller pieces go through in smaller batches, so that reading, hashing and writing overlap, but none below this.
const BATCH_MIN: u64 = 1 << 20;
/// Into how many batches a piece is cut before they grow.
const BATCHES: u64 = 8;
/// Batches read and not hashed yet: when the threads are through with one, the next is there, so none of them waits for the
/// last block of another, nor for the source.
const AHEAD: usize = 3;
/// Padded buffers: those being hashed, and three times as many that are written or wait for it, for a disk that stops for
/// some milliseconds now and then.
const BUFFERS: usize = 4 * AHEAD;
/// What buffers are aligned to, for writing around the page cache (bytes).
pub(crate) const ALIGNMENT: usize = 4096;

/// Where padded bytes go.
pub(crate) trait Sink: Sync {
    /// Why they could not.
    type Error: Send;

    /// How many may hand bytes over at the same time, and then in any order; with one, everything comes in order.
    const WRITERS: usize;

    /// Takes padded bytes, the first of which is byte `at` of the piece. The buffer begins at a multiple of [`ALIGNMENT`].
    fn data(&self, at: u64, padded: &[u8]) -> Result<(), Self::Error>;

    /// Takes `len` padded bytes, all of which are zero.
    fn zeros(&self, at: u64, len: u64) -> Result<(), Self::Error>;
}

/// What came through.
pub(crate) struct Pumped {
    /// Raw bytes that the source held; one more than the piece if it held more, and then it is left unread.
    pub held: u64,
    /// The tree over them, zeros filled in behind them.
    pub tree: Frontier,
}

/// Which end failed.
#[derive(Debug)]
pub(crate) enum PumpError<E> {
    /// The bytes could not be read.
    Source(io::Error),
    /// The bytes could not be used.
    Sink(E),
}

/// Reads `source` up to `size` raw bytes and hands them on padded, batch by batch. If the source ends inside a batch, that
/// batch is filled up with zeros. Without a `sink` only the tree is computed.
pub(crate) fn pump<S: Sink>(
    source: Source<'_>,
    size: UnpaddedPieceSize,
    sink: Option<&S>,
) -> Result<Pumped, PumpError<S::Error>> {
    let batch = batch(size);
    match sink {
        Some(sink) if size.padded().get() > batch as u64 => {
            let (to_writers, arriving) = sync_channel(BUFFERS);
            let (to_us, free) = sync_channel(BUFFERS);
            let arriving = Mutex::new(Some(arriving));
            thread::scope(|scope| {
                let writers: Vec<_> = (0..S::WRITERS)
                    .map(|_| {
                        let (arriving, to_us) = (&arriving, to_us.clone());
                        scope.spawn(move || write(arriving, &to_us, sink))
                    })
                    .collect();
                drop(to_us);
                let mut outlet = Threaded { to_writers, free, made: 0, batch };
                let ran = run(source, size, &mut outlet);
                drop(outlet);
                for writer in writers {
                    let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
                    written.map_err(PumpError::Sink)?;
                }
                ran.map_err(|stop| stop.into_error(|()| unreachable!("only writers that failed stop taking")))
            })
        }
        sink => run(source, size, &mut Inline { sink, free: Vec::new(), batch })
            .map_err(|stop| stop.into_error(|error| error)),
    }
}

/// Padded bytes in a batch of a piece.
fn batch(size: UnpaddedPieceSize) -> usize {
    let padded = size.padded().get();
    (padded / BATCHES).clamp(BATCH_MIN, BATCH_MAX).min(padded) as usize
}

/// Why [`run`] ended early.
enum Stop<E> {
    Source(io::Error),
    Outlet(E),
}

impl<E> Stop<E> {
    fn into_error<F>(self, outlet: impl FnOnce(E) -> F) -> PumpError<F> {
        match self {
            Self::Source(error) => PumpError::Source(error),
            Self::Outlet(error) => PumpError::Sink(outlet(error)),
        }
    }
}

fn run<O: Outlet>(
    mut source: Source<'_>,
    size: UnpaddedPieceSize,
    outlet: &mut O,
) -> Result<Pumped, Stop<O::Error>> {
    let batch = batch(size);
    let raw = batch / PADDED_CHUNK * RAW_CHUNK;
    let batch_level = (batch as u64 / LEAF).trailing_zeros();
    let mut pumped = Pumped { held: 0, tree: Frontier::default() };
    rayon::in_place_scope_fifo(|scope| {
        let (mut line, mut free) = (VecDeque::with_capacity(AHEAD), Vec::new());
        let (mut more, mut at) = (true, 0);
        while more || !line.is_empty() {
            if more && line.len() < AHEAD {
                let mut bytes = free.pop().unwrap_or_else(|| vec![0; raw]);
                let filled = source.fill(&mut bytes).map_err(Stop::Source)?;
                pumped.held += filled.held as u64;
                more = filled.held == raw && pumped.held < size.get();
                if filled.held > 0 {
                    let padded = outlet.buffer().map_err(Stop::Outlet)?;
                    line.push_back(begin(scope, bytes, &filled, padded));
                }
            } else if let Some(Hashed { bytes, padded, root }) =
                line.pop_front().and_then(|oldest| end(&oldest))
            {
                pumped.tree.push(batch_level, root.unwrap_or_else(|| zero_node(batch_level)));
                outlet.put(at, padded, root.is_none()).map_err(Stop::Outlet)?;
                at += batch as u64;
                free.push(bytes);
            }
        }
        Ok(())
    })?;
    if pumped.held == size.get() {
        pumped.held += source.fill(&mut [0]).map_err(Stop::Source)?.held as u64;
    }
    Ok(pumped)
}

/// A batch with its buffers; without a root all of it is zeros.
struct Hashed {
    bytes: Vec<u8>,
    padded: Aligned,
    root: Option<Node>,
}

/// Has a batch padded and hashed by the threads of the pool, behind those before it.
fn begin(
    scope: &ScopeFifo<'_>,
    mut bytes: Vec<u8>,
    filled: &Filled,
    mut padded: Aligned,
) -> Receiver<Hashed> {
    let (send, receive) = sync_channel(1);
    if filled.hole {
        let _ = send.send(Hashed { bytes, padded, root: None });
        return receive;
    }
    bytes[filled.held..].fill(0);
    scope.spawn_fifo(move |_| {
        let root = pad_and_hash(&bytes, padded.bytes_mut());
        // Nobody waits for it when an earlier one failed.
        let _ = send.send(Hashed { bytes, padded, root });
    });
    receive
}

/// Waits for a batch; a thread of the pool helps meanwhile. `None`: hashing panicked, which the scope's end tells.
fn end(batch: &Receiver<Hashed>) -> Option<Hashed> {
    loop {
        match batch.try_recv() {
            Ok(hashed) => return Some(hashed),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if rayon::yield_now() == Some(Yield::Executed) => {}
            // Others have all of it in hand.
            Err(TryRecvError::Empty) => return batch.recv().ok(),
        }
    }
}

/// The way of padded buffers to a sink and back.
trait Outlet {
    type Error;

    /// A buffer that nobody uses, of the size of a batch; its content is anything.
    fn buffer(&mut self) -> Result<Aligned, Self::Error>;

    /// Hands a buffer on that goes to byte `at` of the piece; only its length counts if it is `zeros`.
    fn put(&mut self, at: u64, padded: Aligned, zeros: bool) -> Result<(), Self::Error>;
}

/// The sink works in the same thread.
struct Inline<'a, S> {
    sink: Option<&'a S>,
    free: Vec<Aligned>,
    batch: usize,
}

impl<S: Sink> Outlet for Inline<'_, S> {
    type Error = S::Error;

    fn buffer(&mut self) -> Result<Aligned, S::Error> {
        Ok(self.free.pop().unwrap_or_else(|| Aligned::new(self.batch)))
    }

    fn put(&mut self, at: u64, padded: Aligned, zeros: bool) -> Result<(), S::Error> {
        if let Some(sink) = self.sink {
            hand_over(sink, at, &padded, zeros)?;
        }
        self.free.push(padded);
        Ok(())
    }
}

/// A batch on its way to the sink: its place, and whether all of it is zeros.
struct Batch {
    at: u64,
    padded: Aligned,
    zeros: bool,
}

/// The sink works in threads of its own; its errors are their results.
struct Threaded {
    to_writers: SyncSender<Batch>,
    free: Receiver<Aligned>,
    made: usize,
    batch: usize,
}

impl Outlet for Threaded {
    type Error = ();

    fn buffer(&mut self) -> Result<Aligned, ()> {
        if let Ok(buffer) = self.free.try_recv() {
            return Ok(buffer);
        }
        if self.made < BUFFERS {
            self.made += 1;
            return Ok(Aligned::new(self.batch));
        }
        self.free.recv().map_err(drop)
    }

    fn put(&mut self, at: u64, padded: Aligned, zeros: bool) -> Result<(), ()> {
        self.to_writers.send(Batch { at, padded, zeros }).map_err(drop)
    }
}

/// Writes what arrives until nothing more does. Who fails closes the way, so that the others stop too.
fn write<S: Sink>(
    arriving: &Mutex<Option<Receiver<Batch>>>,
    free: &SyncSender<Aligned>,
    sink: &S,
) -> Result<(), S::Error> {
    let open = || arriving.lock().unwrap_or_else(PoisonError::into_inner);
    // Not in the loop's head: there the lock would be held while the batch is written.
    let next = || open().as_ref().and_then(|way| way.recv().ok());
    while let Some(Batch { at, padded, zeros }) = next() {
        hand_over(sink, at, &padded, zeros).inspect_err(|_| drop(open().take()))?;
        // Nobody takes the last ones back.
        let _ = free.send(padded);
    }
    Ok(())
}

fn hand_over<S: Sink>(sink: &S, at: u64, padded: &Aligned, zeros: bool) -> Result<(), S::Error> {
    if zeros { sink.zeros(at, padded.bytes().len() as u64) } else { sink.data(at, padded.bytes()) }
}

/// A buffer that begins at a multiple of [`ALIGNMENT`].
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
