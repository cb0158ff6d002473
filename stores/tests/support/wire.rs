//! Two nodes with a wire between them that damages, cuts and loses what passes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtasks::{AcquireMode, FileTypes, PathType};
use stores::{Index, StoreError, TransferMeter};

use super::{Node, World, both, id, sector};

pub const MIB: usize = 1 << 20;
/// What is verified and sent again at once.
pub const BLOCK: u64 = 16 << 20;
const C: FileTypes = FileTypes::CACHE;

/// What the wire does to what the source sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// The byte at this distance from the beginning of all is wrong, once.
    FlipOnce(u64),
    /// Every so many bytes of a connection one is wrong.
    FlipEvery(u64),
    /// The connection breaks here, once.
    CutOnce(u64),
    /// Nothing comes through after so many bytes.
    Dead(u64),
    /// The same, and the connections stay until the weather changes.
    Still(u64),
    /// Requests to delete never arrive.
    NoDeletion,
}

/// A wire between two nodes.
#[derive(Clone)]
pub struct Front {
    pub address: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    passed: Arc<AtomicU64>,
}

impl Front {
    pub fn before(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let front = Self {
            address: listener.local_addr().expect("an address"),
            weather: Arc::new(Mutex::new(Weather::Fair)),
            passed: Arc::default(),
        };
        let own = front.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.carry(client, backend));
            }
        });
        front
    }

    pub fn is(&self, weather: Weather) {
        self.passed.store(0, Ordering::SeqCst);
        *self.weather.lock().expect("the weather") = weather;
    }

    fn carry(&self, client: TcpStream, backend: SocketAddr) {
        let Ok(server) = TcpStream::connect(backend) else { return };
        let (mut asks, mut to_server) =
            (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let own = self.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(got @ 1..) = asks.read(&mut bytes) {
                let deletes = bytes.starts_with(b"DELETE");
                if deletes && *own.weather.lock().expect("the weather") == Weather::NoDeletion {
                    break;
                }
                if to_server.write_all(&bytes[..got]).is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let _ = self.bring_back(server, &client);
        let _ = client.shutdown(Shutdown::Both);
    }

    fn bring_back(&self, mut server: TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        let mut here = 0;
        loop {
            let got = server.read(&mut bytes)?;
            if got == 0 {
                return Ok(());
            }
            let before = self.passed.fetch_add(got as u64, Ordering::SeqCst);
            let within =
                |at: u64, from: u64| (from..from + got as u64).contains(&at).then(|| (at - from) as usize);
            let weather = *self.weather.lock().expect("the weather");
            match weather {
                Weather::FlipOnce(at) => {
                    if let Some(place) = within(at, before) {
                        bytes[place] ^= 1;
                    }
                }
                Weather::FlipEvery(step) => {
                    if let Some(place) = within((here / step + 1) * step, here) {
                        bytes[place] ^= 1;
                    }
                }
                Weather::CutOnce(at) if within(at, before).is_some() => return Ok(()),
                Weather::Dead(at) if before >= at => return Ok(()),
                Weather::Still(at) if before >= at => {
                    while *self.weather.lock().expect("the weather") == weather {
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                    return Ok(());
                }
                Weather::Fair
                | Weather::CutOnce(_)
                | Weather::Dead(_)
                | Weather::Still(_)
                | Weather::NoDeletion => {}
            }
            here += got as u64;
            client.write_all(&bytes[..got])?;
        }
    }
}

/// Two nodes with a wire between them; the first holds sector 1's cache directory of about 70 MiB.
pub struct Scene {
    pub world: World,
    pub source: Node,
    pub target: Node,
    pub front: Front,
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

pub fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let pattern: Vec<u8> = (0..13 * 241).map(|at| (at / 13) as u8 ^ seed).collect();
    let mut bytes = pattern.repeat(length / pattern.len() + 1);
    bytes.truncate(length);
    bytes
}

impl Scene {
    pub async fn new() -> Self {
        let world = World::new();
        let mut front = None;
        let behind = |own| front.insert(Front::before(own)).address;
        let (source, target) = (world.node_behind(behind).await, world.node().await);
        let source_dir = source.path("a", both()).await;
        target.path("b", both()).await;
        let mut layer = bytes(40 * MIB + 4097, 2);
        // Zeros are written nowhere, and must still be zeros.
        layer[3 * MIB..9 * MIB].fill(0);
        let files = BTreeMap::from([
            ("p_aux", bytes(64, 1)),
            ("sc-02-data-layer-1.dat", layer),
            ("sc-02-data-layer-2.dat", bytes(2 * BLOCK as usize, 3)),
            ("sc-02-data-tree-d.dat", Vec::new()),
            ("t_aux", bytes(300, 4)),
        ]);
        let dir = source_dir.join("cache/s-t01000-1");
        fs::create_dir_all(&dir).expect("made");
        for (name, bytes) in &files {
            fs::write(dir.join(name), bytes).expect("written");
        }
        source.local.redeclare(Some(&id("a")), false).await.expect("declared");
        Self { world, source, target, front: front.expect("the node was made"), files }
    }

    pub fn total(&self) -> u64 {
        self.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    pub async fn fetch(&self, mode: AcquireMode) -> Result<u64, StoreError> {
        let meter = TransferMeter::default();
        let none = FileTypes::NONE;
        self.target.remote.acquire(sector(1), C, none, PathType::Sealing, mode, &meter).await?;
        Ok(meter.bytes())
    }

    pub fn source_dir(&self) -> PathBuf {
        self.source.dir.path().join("a/cache/s-t01000-1")
    }

    /// Where the target notes what arrives.
    pub fn notes(&self) -> PathBuf {
        self.target.dir.path().join("b/cache/fetching/s-t01000-1.part")
    }

    /// The target's copy.
    pub fn copy(&self) -> PathBuf {
        self.target.dir.path().join("b/cache/s-t01000-1")
    }

    /// As a process leaves it that is killed between the rename to the place and the declaration.
    pub async fn untold() -> Self {
        let scene = Self::new().await;
        scene.front.is(Weather::Dead(64 * MIB as u64));
        scene.fetch(AcquireMode::Move).await.expect_err("cut off");
        let kept: Vec<_> = ["plan.json", "journal"]
            .map(|name| (name, fs::read(scene.notes().join(name)).expect("noted")))
            .into();
        scene.front.is(Weather::NoDeletion);
        scene.fetch(AcquireMode::Move).await.expect("moved");
        scene.front.is(Weather::Fair);
        kept.iter().for_each(|(name, bytes)| fs::write(scene.notes().join(name), bytes).expect("put back"));
        let note = scene.notes().join("arrived.json");
        let text = fs::read_to_string(&note).expect("a note");
        assert!(text.contains("\"declared\":true"), "{text}");
        fs::write(&note, text.replace("\"declared\":true", "\"declared\":false")).expect("rewritten");
        scene.world.index.drop_files(&id("b"), sector(1).id, C).await.expect("dropped");
        scene
    }

    pub fn expect_whole(&self) {
        let dir = self.copy();
        for (name, bytes) in &self.files {
            assert!(fs::read(dir.join(name)).expect("there") == *bytes, "{name} differs");
        }
        assert_eq!(self.left_behind(), Vec::<String>::new());
    }

    /// What lies where files arrive.
    pub fn left_behind(&self) -> Vec<String> {
        let dir = self.target.dir.path().join("b/cache/fetching");
        let names =
            |dir: &Path| fs::read_dir(dir).map(|all| all.flatten().map(|one| one.file_name()).collect());
        let found: Vec<_> = names(&dir).unwrap_or_default();
        found.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }
}
