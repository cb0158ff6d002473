//! Peers that lie, break off, hang or name what is not theirs, and disks that fill up, over real sockets. Each gets a clear
//! error; nothing is lost, and no temporary file is left that the next scan would find.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealtasks::{
    AcquireMode, FileType, FileTypes, PathType, RegisteredSealProof, SectorRef, SectorSize, chain,
};
use stores::{CopyKind, Index, StoreError, TransferMeter};
use support::mount::Mount;
use support::{Node, World, both, cache_files, id, sector, storing, tree};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const FILE: &str = "application/octet-stream";
const TAR: &str = "application/x-tar";

async fn moved(node: &Node, kind: FileType) -> Result<(), StoreError> {
    let meter = TransferMeter::default();
    let types: FileTypes = kind.into();
    node.remote
        .acquire(sector(1), types, FileTypes::NONE, PathType::Sealing, AcquireMode::Move, &meter)
        .await
        .map(drop)
}

/// What the next scan of the node's only path finds besides sector files.
async fn left_over(node: &Node) -> Vec<PathBuf> {
    let scans = node.local.redeclare(None, false).await.expect("a scan");
    scans.into_iter().flat_map(|scan| [scan.partial, scan.foreign].concat()).collect()
}

fn head(kind: &str, length: Option<u64>) -> Vec<u8> {
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n").into_bytes()
}

/// One part of what a peer sends: bytes, or the news for the test, which says when to go on.
enum Part {
    Bytes(Vec<u8>),
    /// Bytes without end, until nobody takes them.
    Flood,
    Pause,
    /// Says nothing more, and keeps the connection.
    Hang,
}

/// A peer that sends these parts to whoever asks, and tells of each pause.
struct Scripted {
    paused: mpsc::Receiver<oneshot::Sender<()>>,
}

async fn scripted(world: &World, kind: FileType, parts: Vec<Part>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    world.index.attach(support::info("x", &base, both()), support::room(0)).await.expect("attached");
    world.index.declare(&id("x"), sector(1).id, kind.into(), CopyKind::Primary).await.expect("declared");
    let (tell, paused) = mpsc::channel(1);
    let parts = Arc::new(parts);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(send_all(socket, Arc::clone(&parts), tell.clone()));
        }
    });
    Scripted { paused }
}

async fn send_all(mut socket: TcpStream, parts: Arc<Vec<Part>>, tell: mpsc::Sender<oneshot::Sender<()>>) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    for part in parts.iter() {
        match part {
            Part::Bytes(bytes) => {
                if socket.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Part::Flood => while socket.write_all(&[7; 4096]).await.is_ok() {},
            Part::Pause => {
                let (go_on, wait) = oneshot::channel();
                if tell.send(go_on).await.is_err() || wait.await.is_err() {
                    return;
                }
            }
            Part::Hang => {
                let (never, wait) = oneshot::channel();
                if tell.send(never).await.is_ok() {
                    let _ = wait.await;
                }
                return;
            }
        }
    }
    let _ = socket.shutdown().await;
}

fn tar_of(members: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(*bytes);
        out.resize(out.len().div_ceil(512) * 512, 0);
    }
    out
}

/// A PAX record that gives the next member this name.
fn pax_named(name: &[u8]) -> Vec<u8> {
    let body = 6 + name.len() + 1; // " path=", the name, the line's end
    let digits = (1..6).find(|digits| (body + digits).to_string().len() == *digits).expect("a length");
    let mut record = format!("{} path=", body + digits).into_bytes();
    record.extend(name);
    record.push(b'\n');
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(record.len() as u64);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend(record);
    out.resize(out.len().div_ceil(512) * 512, 0);
    out.extend(tar_of(&[(b"p_aux", b"x")]));
    out
}

#[tokio::test]
async fn lies_about_lengths_and_floods_are_refused_and_leave_nothing() {
    let half = vec![1; 1000];
    let tar = tar_of(&[(b"p_aux", &[1; 64]), (b"t_aux", &[2; 300])]);
    let cases: Vec<(FileType, Vec<Part>, &str)> = vec![
        (
            FileType::Sealed,
            vec![Part::Bytes(head(FILE, Some(2048))), Part::Bytes(half.clone())],
            "transfer with http://",
        ),
        (FileType::Sealed, vec![Part::Bytes(head(FILE, Some(1000))), Part::Bytes(half)], "expected 2048"),
        (FileType::Sealed, vec![Part::Bytes(head(FILE, Some(1 << 40))), Part::Flood], "expected 2048"),
        (FileType::Sealed, vec![Part::Bytes(head(FILE, None)), Part::Flood], "at most 2048"),
        (FileType::Unsealed, vec![Part::Bytes(head(FILE, None)), Part::Flood], "at most"),
        (FileType::Cache, vec![Part::Bytes(head(TAR, None)), Part::Bytes(tar[..540].to_vec())], "it ends"),
        (
            FileType::Cache,
            vec![Part::Bytes(head(TAR, None)), Part::Bytes(tar[..1000].to_vec())],
            "incomplete",
        ),
        (FileType::Cache, vec![Part::Bytes(head(TAR, None)), Part::Flood], "checksum"),
        (
            FileType::Cache,
            vec![Part::Bytes(head(TAR, None)), Part::Bytes(tar), Part::Bytes(vec![0; 512]), Part::Flood],
            "bytes follow its end",
        ),
    ];
    for (kind, parts, expected) in cases {
        let world = World::new();
        let node = world.node().await;
        node.path("b", both()).await;
        let _peer = scripted(&world, kind, parts).await;
        let error = chain(&moved(&node, kind).await.expect_err(expected));
        assert!(error.contains(expected), "{kind}: {error}");
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new(), "{kind}: {expected}");
        assert_eq!(world.holders(sector(1), kind).await, ["x*"], "{expected}");
    }
}

/// A finalized cache is only the two aux files and eight trees: a stream that breaks off between two of them looks whole to
/// whoever does not know how many there must be.
#[tokio::test]
async fn a_finalized_cache_cut_between_two_members_is_refused() {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
    let large = SectorRef { proof, ..sector(1) };
    let trees = (0..8).map(|number| format!("sc-02-data-tree-r-last-{number}.dat"));
    let names: Vec<String> = ["p_aux".to_owned(), "t_aux".to_owned()].into_iter().chain(trees).collect();
    let bytes = [7; 64];
    for count in 1..=names.len() {
        let members: Vec<(&[u8], &[u8])> =
            names[..count].iter().map(|name| (name.as_bytes(), &bytes[..])).collect();
        let world = World::new();
        let node = world.node().await;
        let path = node.path("b", storing()).await;
        let parts = vec![Part::Bytes(head(TAR, None)), Part::Bytes(tar_of(&members))];
        let _peer = scripted(&world, FileType::Cache, parts).await;
        let whole = count == names.len();
        let mode = if whole { AcquireMode::Copy } else { AcquireMode::Move };
        let (types, none, meter) = (FileTypes::CACHE, FileTypes::NONE, TransferMeter::default());
        let came = node.remote.acquire(large, types, none, PathType::Storage, mode, &meter).await;
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
        assert_eq!(path.join("cache/s-t01000-1").exists(), whole, "{count} members");
        if whole {
            came.expect("nothing is missing, and like Lotus's it ends without a sign");
        } else {
            let error = chain(&came.expect_err("members are missing"));
            assert!(error.contains("incomplete"), "{count} members: {error}");
            assert_eq!(world.holders(sector(1), FileType::Cache).await, ["x*"], "{count} members");
        }
    }
}

#[tokio::test]
async fn names_that_lead_out_of_the_directory_are_refused_in_every_form() {
    let long = [b'a'; 4096];
    let names: [&[u8]; 6] =
        [b"../../escaped", b"/tmp/escaped", b"a\0b", &long, b"..%2f..%2fescaped", b"p_aux/../../escaped"];
    let mut streams: Vec<Vec<u8>> = names.iter().map(|name| pax_named(name)).collect();
    streams.extend(
        names
            .iter()
            .filter(|name| name.len() < 100)
            .filter(|name| !name.contains(&0))
            .map(|name| tar_of(&[(name, b"x")])),
    );
    for stream in streams {
        let world = World::new();
        let node = world.node().await;
        node.path("b", both()).await;
        let before = tree(node.dir.path());
        let _peer =
            scripted(&world, FileType::Cache, vec![Part::Bytes(head(TAR, None)), Part::Bytes(stream)]).await;
        let error = chain(&moved(&node, FileType::Cache).await.expect_err("a bad name"));
        assert!(error.contains("is no file of a sector's directory"), "{error}");
        assert!(error.len() < 2000, "the name is cut: {error}");
        assert_eq!(tree(node.dir.path()), before);
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
    }
    for entry in ["../escaped:1", "/tmp/escaped:1", "p_aux:65"] {
        let world = World::new();
        let node = world.node().await;
        node.path("b", both()).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {TAR}\r\nX-Sealyard-Manifest: {entry}\r\nConnection: close\r\n\r\n"
        );
        let _peer = scripted(&world, FileType::Cache, vec![Part::Bytes(head.into_bytes())]).await;
        let error = chain(&moved(&node, FileType::Cache).await.expect_err("a bad manifest"));
        assert!(error.contains("is no file of a sector's directory"), "{error}");
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
    }
}

/// A request as it stands, for clients clean up what they send.
async fn raw(base: &str, line: &str) -> u16 {
    let address = base.trim_start_matches("http://").trim_end_matches("/remote");
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin-token\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A server may hang up on nonsense; what it said before counts.
    let _ = socket.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn urls_that_lead_out_of_the_path_find_nothing_and_delete_nothing() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    std::fs::write(node.dir.path().join("secret"), "not for peers").expect("written");
    let before = tree(node.dir.path());
    let long = "a".repeat(4096);
    let names = [
        "..",
        "../../secret",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fsecret",
        "..%2F..%2Fsecret",
        "s-t01000-1/../../secret",
        "s-t01000-1%2f..%2f..%2fsecret",
        "%2Fetc%2Fpasswd",
        "//etc/passwd",
        "s-t01000-1%00",
        "s-t01000-1.tmp",
        "s-t01000-1%20",
        long.as_str(),
    ];
    for name in names {
        for method in ["GET", "HEAD", "DELETE"] {
            for kind in ["sealed", "stat", "..", "%2e%2e", "sealed%2f.."] {
                let status = raw(&node.base, &format!("{method} /remote/{kind}/{name}")).await;
                assert!((400..600).contains(&status), "{method} {kind}/{name}: {status}");
            }
            let line = format!("{method} /remote/unsealed/{name}/5/allocated/0/127");
            let status = raw(&node.base, &line).await;
            assert!((400..600).contains(&status), "{line}: {status}");
        }
        let line = format!("DELETE /remote/sealed/s-t01000-1?keep={name}");
        let status = raw(&node.base, &line).await;
        assert!((400..600).contains(&status), "{line}: {status}");
    }
    assert_eq!(tree(node.dir.path()), before);
}

#[tokio::test]
async fn a_sender_that_hangs_is_given_up_and_its_file_is_not_lost() {
    for (kind, media, some) in [
        (FileType::Sealed, FILE, vec![1; 1000]),
        (FileType::Cache, TAR, tar_of(&[(b"p_aux", &[1; 64])])),
        // Not even a head.
        (FileType::Sealed, "", Vec::new()),
    ] {
        let world = World::new();
        let node = world.node().await;
        node.path("b", both()).await;
        let length = (kind == FileType::Sealed).then_some(2048);
        let start = if media.is_empty() { Vec::new() } else { head(media, length) };
        let mut peer = scripted(&world, kind, vec![Part::Bytes(start), Part::Bytes(some), Part::Hang]).await;
        let impatience = async {
            let _held = peer.paused.recv().await.expect("it hangs");
            // All that is to come has been sent: time may pass quickly.
            tokio::time::pause();
            loop {
                tokio::time::advance(Duration::from_secs(5)).await;
            }
        };
        let result = tokio::select! {
            result = moved(&node, kind) => result,
            () = impatience => continue,
        };
        tokio::time::resume();
        let error = chain(&result.expect_err("silence"));
        assert!(error.contains("transfer with http://") && error.contains("elapsed"), "{error}");
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
        assert_eq!(world.holders(sector(1), kind).await, ["x*"]);
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_while_a_directory_arrives() {
    let world = World::new();
    let node = world.node().await;
    let Some(disk) = Mount::at(&node.dir.path().join("b"), "size=1m") else { return };
    node.path("b", both()).await;
    let all = cache_files();
    let members: Vec<(&[u8], &[u8])> =
        all.iter().map(|(name, bytes)| (name.as_bytes(), &bytes[..])).collect();
    let stream = tar_of(&members);
    let parts = vec![
        Part::Bytes(head(TAR, None)),
        Part::Bytes(stream[..1024].to_vec()),
        Part::Pause,
        Part::Bytes(stream[1024..].to_vec()),
    ];
    let mut peer = scripted(&world, FileType::Cache, parts).await;
    let ballast = disk.path().join("ballast");
    let fill = async {
        let go_on = peer.paused.recv().await.expect("half is sent");
        std::fs::write(&ballast, vec![1; 2 << 20]).expect_err("until nothing fits");
        go_on.send(()).expect("it waits");
    };
    let (result, ()) = tokio::join!(moved(&node, FileType::Cache), fill);
    let error = result.expect_err("full");
    assert!(chain(&error).contains("No space left"), "{}", chain(&error));
    assert_eq!(error.call_code().number(), 102, "room is missing: the scheduler looks elsewhere");
    std::fs::remove_file(&ballast).expect("room again");
    assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
    assert_eq!(world.holders(sector(1), FileType::Cache).await, ["x*"]);
}

#[tokio::test]
async fn a_path_that_has_become_read_only() {
    let world = World::new();
    let (a, node) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    let source = a.put("a", sector(1), FileType::Sealed).await;
    let Some(disk) = Mount::at(&node.dir.path().join("b"), "size=1m") else { return };
    node.path("b", both()).await;
    disk.remount("ro");
    let error = chain(&moved(&node, FileType::Sealed).await.expect_err("read-only"));
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(source.exists());
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
    disk.remount("rw");
    moved(&node, FileType::Sealed).await.expect("moved now");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["b*"]);
}

/// Hands bytes on in both directions and spoils this part of what comes back, so often.
async fn spoiling(to: String, spoilt: Vec<u8>, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(times));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (to, spoilt, left) = (to.clone(), spoilt.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let far = TcpStream::connect(to).await.expect("the true holder");
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let up = tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
                let mut buffer = vec![0; 1 << 16];
                while let Ok(got) = far_in.read(&mut buffer).await {
                    let chunk = &mut buffer[..got];
                    let found = chunk.windows(spoilt.len()).position(|part| part == spoilt);
                    let ordering = std::sync::atomic::Ordering::SeqCst;
                    if let Some(at) = found
                        && left.fetch_update(ordering, ordering, |left| left.checked_sub(1)).is_ok()
                    {
                        chunk[at] ^= 1;
                    }
                    if got == 0 || near_out.write_all(chunk).await.is_err() {
                        break;
                    }
                }
                up.abort();
            });
        }
    });
    base
}

#[tokio::test]
async fn a_block_damaged_on_its_way_is_fetched_again_and_never_kept() {
    for (times, comes) in [(1, true), (usize::MAX, false)] {
        let world = World::new();
        let (a, node) = (world.node().await, world.node().await);
        a.path("a", both()).await;
        node.path("b", both()).await;
        let source = a.put("a", sector(1), FileType::Sealed).await;
        let bytes = std::fs::read(&source).expect("there");
        let address = a.base.trim_start_matches("http://").trim_end_matches("/remote").to_owned();
        let base = spoiling(address, bytes[1000..1064].to_vec(), times).await;
        // The holder is reached through what spoils.
        world.index.detach(&id("a"), &a.base).await.expect("detached");
        world
            .index
            .attach(support::info("a", &base, both()), support::room(1 << 20))
            .await
            .expect("attached");
        let types = FileTypes::SEALED;
        world.index.declare(&id("a"), sector(1).id, types, CopyKind::Primary).await.expect("declared");
        let result = moved(&node, FileType::Sealed).await;
        let here = node.dir.path().join("b/sealed/s-t01000-1");
        if comes {
            result.expect("the second time it came whole");
            assert_eq!(std::fs::read(&here).expect("moved"), bytes);
        } else {
            let error = result.expect_err("damaged each time");
            let StoreError::FetchFailed { source: why, .. } = &error else { panic!("{}", chain(&error)) };
            assert_eq!(why.code(), "STO025", "{}", chain(&error));
            assert!(chain(&error).contains("arrived damaged"), "{}", chain(&error));
            assert!(!here.exists());
            assert_eq!(std::fs::read(&source).expect("kept"), bytes);
            assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
        }
        assert_eq!(left_over(&node).await, Vec::<PathBuf>::new());
    }
}
