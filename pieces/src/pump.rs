//! Moves a piece's raw bytes from where they come from to where they go, padded, computing the commitment's tree on the
//! way. Three things happen at once: the next batch is read, this one is padded and hashed, the one before is written.
//!
//! Holds two raw and four padded buffers of at most 4 MiB each. Never knows what is at either end.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sealtasks::UnpaddedPieceSize;

use crate::batch::pad_and_hash;
use crate::fr32::{PADDED_CHUNK, RAW_CHUNK};
use crate::node::{Frontier, LEAF, zero_node};
use crate::source::{Filled, Source};

/// Padded bytes that go through at once: enough blocks for many threads, and writes that a disk likes.
const BATCH_MAX: u64 = 4 << 20;
/// Smaller pieces go through in smaller batches, so that reading, hashing and writing overlap, but none below this.
const BATCH_MIN: u64 = 1 << 20;
/// Into how many batches a piece is cut before they grow.
const BATCHES: u64 = 8;
/// Padded buffers: one being hashed, the others written or waiting for it.
const BUFFERS: usize = 4;
/// What buffers are aligned to, for writing around the page cache (bytes).
pub(crate) const ALIGNMENT: usize = 4096;

/// Where padded bytes go.
pub(crate) trait Sink: Send {
    /// Why they could not.
    type Error: Send;

    /// Takes the next padded bytes. The buffer begins at a multiple of [`ALIGNMENT`].
    fn data(&mut self, padded: &[u8]) -> Result<(), Self::Error>;

    /// Takes the next padded bytes, all of which are zero.
    fn zeros(&mut self, len: u64) -> Result<(), Self::Error>;
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
    sink: Option<&mut S>,
) -> Result<Pumped, PumpError<S::Error>> {
    let batch = batch(size);
    match sink {
        Some(sink) if size.padded().get() > batch as u64 => thread::scope(|scope| {
            let (to_writer, arriving) = sync_channel(BUFFERS);
            let (to_us, free) = sync_channel(BUFFERS);
            let writer = scope.spawn(move || write(&arriving, &to_us, sink));
            let mut outlet = Threaded { to_writer, free, made: 0, batch };
            let ran = run(source, size, &mut outlet);
            drop(outlet);
            let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
            written.map_err(PumpError::Sink)?;
            ran.map_err(|stop| stop.into_error(|()| unreachable!("only a writer that failed stops taking")))
        }),
        sink => run(source, size, &mut Inline { sink, buffer: None, batch })
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
    let (mut these, mut next) = (vec![0; raw], vec![0; raw]);
    let mut pumped = Pumped { held: 0, tree: Frontier::default() };
    let mut filled = source.fill(&mut these).map_err(Stop::Source)?;
    while filled.held > 0 {
        pumped.held += filled.held as u64;
        let more = filled.held == raw && pumped.held < size.get();
        let mut padded = outlet.buffer().map_err(Stop::Outlet)?;
        if !filled.hole {
            these[filled.held..].fill(0);
        }
        let mut root = None;
        let read = rayon::in_place_scope(|scope| {
            if !filled.hole {
                scope.spawn(|_| root = pad_and_hash(&these, padded.bytes_mut()));
            }
            if more { source.fill(&mut next) } else { Ok(Filled::default()) }
        });
        pumped.tree.push(batch_level, root.unwrap_or_else(|| zero_node(batch_level)));
        outlet.put(padded, root.is_none()).map_err(Stop::Outlet)?;
        filled = read.map_err(Stop::Source)?;
        std::mem::swap(&mut these, &mut next);
    }
    if pumped.held == size.get() {
        pumped.held += source.fill(&mut [0]).map_err(Stop::Source)?.held as u64;
    }
    Ok(pumped)
}

/// The way of padded buffers to a sink and back.
trait Outlet {
    type Error;

    /// A buffer that nobody uses, of the size of a batch; its content is anything.
    fn buffer(&mut self) -> Result<Aligned, Self::Error>;

    /// Hands a buffer on, of which only the length counts if it is `zeros`.
    fn put(&mut self, padded: Aligned, zeros: bool) -> Result<(), Self::Error>;
}

/// The sink works in the same thread.
struct Inline<'a, S> {
    sink: Option<&'a mut S>,
    buffer: Option<Aligned>,
    batch: usize,
}

impl<S: Sink> Outlet for Inline<'_, S> {
    type Error = S::Error;

    fn buffer(&mut self) -> Result<Aligned, S::Error> {
        Ok(self.buffer.take().unwrap_or_else(|| Aligned::new(self.batch)))
    }

    fn put(&mut self, padded: Aligned, zeros: bool) -> Result<(), S::Error> {
        match &mut self.sink {
            Some(sink) if zeros => sink.zeros(padded.bytes().len() as u64)?,
            Some(sink) => sink.data(padded.bytes())?,
            None => {}
        }
        self.buffer = Some(padded);
        Ok(())
    }
}

/// The sink works in a thread of its own; its error is that thread's result.
struct Threaded {
    to_writer: SyncSender<(Aligned, bool)>,
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

    fn put(&mut self, padded: Aligned, zeros: bool) -> Result<(), ()> {
        self.to_writer.send((padded, zeros)).map_err(drop)
    }
}

fn write<S: Sink>(
    arriving: &Receiver<(Aligned, bool)>,
    free: &SyncSender<Aligned>,
    sink: &mut S,
) -> Result<(), S::Error> {
    for (padded, zeros) in arriving {
        if zeros {
            sink.zeros(padded.bytes().len() as u64)?;
        } else {
            sink.data(padded.bytes())?;
        }
        // Nobody takes the last ones back.
        let _ = free.send(padded);
    }
    Ok(())
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
