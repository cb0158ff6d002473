//! What our transfers are measured against: the fastest local copy, Lotus's way over a socket, and making files here.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use memmap2::{Advice, MmapMut};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use super::ours::{FILES, SMALL};
use super::{Cost, cost_of};

/// Bytes per read and write of the local copy: a large page, as in our transfers.
const CHUNK: usize = 2 << 20;
/// Buffers of one reader and its writer.
const BUFFERS: usize = 3;
/// Directories that are made or fetched at once.
pub const AT_ONCE: usize = 8;

/// Takes a file out of the page cache.
pub fn forget(path: &Path) {
    let file = File::open(path).expect("opened");
    file.sync_all().expect("synced");
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advised");
}

fn open_direct(options: &mut OpenOptions, path: &Path) -> File {
    let direct = options.clone().custom_flags(OFlag::O_DIRECT.bits()).open(path);
    direct.or_else(|_| options.open(path)).expect("opened")
}

/// A buffer as our transfers have them: one large page, where the kernel gives it.
struct Page {
    bytes: MmapMut,
    start: usize,
}

impl Page {
    fn new() -> Self {
        let bytes = MmapMut::map_anon(2 * CHUNK).expect("memory");
        // Refused by kernels without large pages.
        let _ = bytes.advise(Advice::HugePage);
        let start = bytes.as_ptr().align_offset(CHUNK).min(CHUNK);
        Self { bytes, start }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + CHUNK]
    }
}

/// Reads and writes past the page cache at the same time, with buffers that are used again: so many reads and as many writes
/// in flight as a transfer over so many connections has.
pub fn copy_direct(from: &Path, to: &Path, streams: usize) {
    let length = fs::metadata(from).expect("there").len();
    let source = open_direct(OpenOptions::new().read(true), from);
    let target = open_direct(OpenOptions::new().write(true).create_new(true), to);
    nix::fcntl::fallocate(&target, nix::fcntl::FallocateFlags::empty(), 0, length as i64).expect("room");
    let next = AtomicU64::new(0);
    let (source, target, next) = (&source, &target, &next);
    std::thread::scope(|scope| {
        for _ in 0..streams {
            let (send, receive) = sync_channel::<(Page, u64, usize)>(BUFFERS);
            let (give_back, free) = sync_channel(BUFFERS);
            for _ in 0..BUFFERS {
                give_back.send(Page::new()).expect("a free place");
            }
            scope.spawn(move || {
                loop {
                    let offset = next.fetch_add(CHUNK as u64, Ordering::Relaxed);
                    if offset >= length {
                        break;
                    }
                    let mut page: Page = free.recv().expect("a buffer");
                    let got = source.read_at(page.get(), offset).expect("read");
                    let whole = CHUNK.min(usize::try_from(length - offset).unwrap_or(CHUNK));
                    assert_eq!(got, whole, "a read that ends early");
                    send.send((page, offset, got)).expect("the writer listens");
                }
            });
            scope.spawn(move || {
                for (mut page, offset, got) in receive {
                    target.write_all_at(&page.get()[..got], offset).expect("written");
                    // The reader may be done.
                    let _ = give_back.send(page);
                }
            });
        }
    });
    target.sync_all().expect("synced");
}

/// The system calls of Lotus's server and client: sendfile, then 1 MiB reads into a buffered file.
pub fn lotus_shape(from: &Path, to: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            // The standard library's copy of a file to a socket is sendfile.
            std::io::copy(&mut File::open(from).expect("opened"), &mut socket).expect("sent");
        });
        let mut socket = TcpStream::connect(address).expect("connected");
        let mut target = OpenOptions::new().write(true).create_new(true).open(to).expect("created");
        let mut buffer = vec![1; 1 << 20];
        loop {
            match socket.read(&mut buffer).expect("read") {
                0 => break,
                got => target.write_all(&buffer[..got]).expect("written"),
            }
        }
        target.sync_all().expect("synced");
    });
}

/// Makes directories of 24 files as durably as a fetch does, as many at once.
pub fn create_small(scratch: &Path, dirs: u64) -> Cost {
    let base = scratch.join("small");
    fs::create_dir_all(base.join("arriving")).expect("made");
    let content = [7; SMALL];
    let make = |number: u64| {
        let dir = base.join("arriving").join(number.to_string());
        fs::create_dir(&dir).expect("made");
        for file in 0..FILES {
            let mut file = File::create_new(dir.join(file.to_string())).expect("created");
            file.write_all(&content).expect("written");
            file.sync_all().expect("synced");
        }
        let sync = |dir: &Path| File::open(dir).expect("opened").sync_all().expect("synced");
        sync(&dir);
        fs::rename(&dir, base.join(number.to_string())).expect("renamed");
        sync(&base);
    };
    let (_, cost) = cost_of(|| {
        std::thread::scope(|scope| {
            for thread in 0..AT_ONCE as u64 {
                scope.spawn(move || (thread..dirs).step_by(AT_ONCE).for_each(make));
            }
        });
    });
    fs::remove_dir_all(&base).expect("removed");
    cost
}
