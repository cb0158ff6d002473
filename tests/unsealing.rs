//! Real piece data through a live system with real processes and real proofs: sealed, read while it is unsealed, released,
//! unsealed again from the replica, read again.
//!
//! Lotus's piece_provider_test, and what stands for it here; all pass:
//!
//! | Lotus | here |
//! |---|---|
//! | TestPieceProviderSimpleNoRemoteWorker: read after AddPiece | `pieces.rs::three_files_are_sealed_and_read_back` |
//! | read after PreCommit1, after PreCommit2, without unsealing | `an_8mib_sector_on_two_workers`: while they run, too |
//! | finalized and released, IsUnsealed is false and a read unseals; then no more unsealing | unsealed from a finalized sector: `pieces.rs`, as above; the rest on one that is not: `a_2kib_sector_on_one_worker` |
//! | TestReadPieceRemoteWorkers: two pieces; one worker seals, another only unseals; the one is read and unseals, read again and does not; released, the same; then the other is read without unsealing; released, it unseals | `an_8mib_sector_on_two_workers` |

mod system;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use system::{
    COMMAND_MAX, Daemon, SEALYARD, ask_until, ok, quiet, refused, run_within, sealyard, snapshot, text,
};

/// A sector of these sizes is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);
/// So often two readers are started until they meet.
const TRIES: usize = 10;

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n[sealing]\nstop_at = \"c1\"\n";

/// The files with a sector's pieces.
const PIECES: [&str; 2] = ["piece", "second"];

/// The exit codes for what is not unsealed or not to be released, and for no such sector.
const NOT_UNSEALED: i32 = 13;
const UNKNOWN: i32 = 14;

/// A manager without storage, worker `seal` with real data for AddPiece, and perhaps another that only unseals.
struct Yard {
    home: tempfile::TempDir,
    /// The sector's raw bytes: one piece, or with another worker two of the same length.
    data: Vec<u8>,
    _workers: Vec<Daemon>,
    _manager: Daemon,
}

impl Yard {
    fn new(size: &str, padded: usize, unsealer: bool) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path();
        let data = noise(padded / 128 * 127);
        for (number, piece) in data.chunks(data.len() / (1 + usize::from(unsealer))).enumerate() {
            fs::write(at.join(PIECES[number]), piece).expect("a piece");
        }
        ok(sealyard(at).args(["init", "--actor", "t01000", "--sector-size", size, "--no-local-storage"]));
        fs::write(at.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(at).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let program = Path::new(SEALYARD);
        let unseal = if unsealer { "--unseal=false" } else { "--unseal=true" };
        let tasks = ["--addpiece=true", "--precommit1=true", "--precommit2=true", "--commit=false", unseal];
        let mut workers = vec![worker(program, at, "seal", &tasks)];
        if unsealer {
            let off = ["--addpiece=false", "--precommit1=false", "--precommit2=false", "--commit=false"];
            workers.push(worker(program, at, "store", &[&off[..], &["--unseal=true"]].concat()));
        }
        let yard = Self { home, data, _workers: workers, _manager: manager };
        for (worker, name) in
            [("seal", "nvme"), ("store", "disks")].into_iter().take(1 + usize::from(unsealer))
        {
            let dir = yard.home().join(name);
            let uses = ["--seal", "--store"];
            ok(sealyard(yard.home())
                .args(["storage", "attach", "--init", "--worker", worker])
                .args(uses)
                .arg(dir));
        }
        yard
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn say(&self, args: &[&str]) -> String {
        ok(sealyard(self.home()).args(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        let said = ok(sealyard(self.home()).args(args).arg("--json"));
        serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {said}"))
    }

    fn refused(&self, args: &[&str], code: i32) -> String {
        refused(sealyard(self.home()).args(args), code)
    }

    /// Bytes that must be there without unsealing.
    fn read(&self, start: usize, end: usize) -> Vec<u8> {
        let (offset, size) = (start.to_string(), (end - start).to_string());
        let args = [
            "sectors",
            "read-piece",
            "1",
            "--no-unseal",
            "--offset",
            &offset,
            "--size",
            &size,
            "--output",
            "-",
        ];
        let output = run_within(sealyard(self.home()).args(args), COMMAND_MAX);
        assert!(output.status.success(), "{start}..{end}: {}", text(&output.stderr));
        output.stdout
    }

    /// What is there reads as it was put in, from any offset, to any other.
    fn reads_back(&self) {
        let whole = self.data.len();
        let spans = [
            (0, whole),
            (0, 1),
            (126, 128),
            (127, 127),
            (127, 254),
            (253, 600),
            (1000, whole),
            (whole - 1, whole),
        ];
        for (start, end) in spans {
            assert!(self.read(start, end) == self.data[start..end], "{start}..{end} of {whole}");
        }
    }

    /// How many tasks to unseal there have been.
    fn unsealings(&self) -> usize {
        let jobs = self.json(&["sealing", "jobs", "--all"]);
        jobs.as_array().expect("jobs").iter().filter(|job| job["task"] == "seal/v0/unseal").count()
    }

    /// A call as a Lotus client makes it.
    fn call(&self, method: &str, params: Value) -> Value {
        let file = |name: &str| fs::read_to_string(self.home().join(".sealyard").join(name)).expect("a file");
        let (address, token) = (file("api"), file("token"));
        let port = address.split('/').nth(4).expect("/ip4/…/tcp/<port>/http");
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the manager");
        socket.set_read_timeout(Some(COMMAND_MAX)).expect("a limit");
        let head = format!(
            "POST /rpc/v0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n",
            token.trim()
        );
        write!(socket, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{method}: {error}: {answer}"))
    }
}

fn worker(program: &Path, home: &Path, name: &str, tasks: &[&str]) -> Daemon {
    let mut command = Command::new(program);
    quiet(&mut command, home);
    command.args(["worker", "run", "--name", name, "--address", "127.0.0.1:0", "--worker-repo", name]);
    command.args(["--no-local-storage"]).args(tasks).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
    let mut worker = Daemon::start(name, &mut command);
    worker.expect("registered");
    worker
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x5ea1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn sealed(size: &str, padded: usize, unsealer: bool) -> Yard {
    let yard = Yard::new(size, padded, unsealer);
    let count = 1 + usize::from(unsealer);
    for name in &PIECES[..count] {
        let piece = yard.home().join(name);
        let given = yard.json(&["sectors", "add-piece", piece.to_str().expect("UTF-8")]);
        assert_eq!((&given["sector"], &given["padded_size"]), (&json!(1), &json!(padded / count)));
    }
    let kept = yard.refused(&["sectors", "release-unsealed", "1", "--all"], NOT_UNSEALED);
    assert!(kept.contains("MGR110") && kept.contains("still being sealed"), "{kept}");
    let at_rest = |status: &Value| status["stopped"] == true && status["c1_sha256"].is_string();
    let mut readable = BTreeSet::new();
    let look = || {
        let status = yard.json(&["sectors", "status", "1"]);
        let state = status["state"].as_str().unwrap_or_default().to_owned();
        if ["PreCommit1", "PreCommit2", "Committing"].contains(&&*state) {
            assert!(yard.read(1, yard.data.len()) == yard.data[1..], "in {state}");
            readable.insert(state);
        }
        status
    };
    let status = ask_until("Commit1", SEALING_MAX, look, at_rest);
    if unsealer {
        // A smaller sector is past a state before it is asked for.
        assert!(["PreCommit1", "PreCommit2"].iter().all(|state| readable.contains(*state)), "{readable:?}");
    } else {
        commitments_are_the_proofs_library_s(&yard, status["comm_d"].as_str().expect("CommD"));
    }
    yard
}

/// One piece fills the sector, so its CommP is the CommD that PreCommit2 found.
fn commitments_are_the_proofs_library_s(yard: &Yard, comm_d: &str) {
    let piece = yard.home().join("piece");
    let piece = piece.to_str().expect("UTF-8");
    let padded = yard.data.len() / 127 * 128;
    assert_eq!(yard.say(&["sealing", "data-cid", piece]), format!("{comm_d}   {padded}\n"));
    let told = yard.json(&["sealing", "data-cid", piece, &padded.to_string()]);
    assert_eq!(told, json!({ "cid": comm_d, "padded_size": padded, "unpadded_size": yard.data.len() }));
    let served = serve(&yard.data, yard.data.len());
    assert_eq!(yard.json(&["sealing", "data-cid", &served])["cid"], comm_d);
    // The same of the manager, as a Lotus client asks it; one of its workers computes it.
    let computed = |stated: usize, url: String| {
        yard.call("Filecoin.ComputeDataCid", json!([stated, { "Type": "http", "Info": url }]))
    };
    let told = computed(yard.data.len(), serve(&yard.data, yard.data.len()));
    assert_eq!(told["result"], json!({ "Size": padded, "PieceCID": { "/": comm_d } }), "{told:#}");
    let zeros = yard.call("Filecoin.ComputeDataCid", json!([127, { "Type": "null", "Info": "127" }]));
    assert_eq!(zeros["result"]["Size"], 128, "{zeros:#}");
    let broken = computed(yard.data.len(), serve(&yard.data[1..], yard.data.len()));
    assert!(broken["error"]["message"].to_string().contains("MGR126"), "{broken:#}");
    let cut = yard.refused(&["sealing", "data-cid", &serve(&yard.data[1..], yard.data.len())], 1);
    assert!(cut.contains("cannot read the piece's data"), "{cut}");
    let long = yard.refused(&["sealing", "data-cid", &serve(&yard.data, yard.data.len()), "128"], 2);
    assert!(long.contains("do not fit a piece of 128 padded bytes"), "{long}");
}

/// A server that gives these bytes once, and says how long they are; its URL.
fn serve(bytes: &[u8], stated: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/deal.car", listener.local_addr().expect("an address"));
    let bytes = bytes.to_vec();
    thread::spawn(move || {
        let Ok((mut socket, _)) = listener.accept() else { return };
        let mut asked = [0; 4096];
        let _ = socket.read(&mut asked);
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {stated}\r\nConnection: close\r\n\r\n");
        // A reader that has seen enough closes.
        let _ = socket.write_all(&bytes);
    });
    url
}

/// All who read at once share one task, and get the data back as it was.
fn two_readers_share_one_unsealing(yard: &Yard) {
    // Whoever comes when it is done need not wait, and has shown nothing.
    let shared = (0..TRIES).any(|at| {
        if at > 0 {
            all_is_released(yard);
        }
        let before = yard.unsealings();
        let waited = two_read(yard);
        assert_eq!(yard.unsealings(), before + 1, "one task for both");
        waited == [true, true]
    });
    assert!(shared, "never was the second there before the first had its data");
    yard.reads_back();
}

/// Two read the piece at once. Whether each waited for an unsealing.
fn two_read(yard: &Yard) -> [bool; 2] {
    let readers = ["one", "two"].map(|name| {
        let (home, output) = (yard.home().to_owned(), yard.home().join(name));
        thread::spawn(move || {
            let mut command = sealyard(&home);
            command.args(["sectors", "read-piece", "1", "--json", "--output"]).arg(&output);
            (run_within(&mut command, SEALING_MAX), output)
        })
    });
    readers.map(|reader| {
        let (said, output) = reader.join().expect("the thread");
        assert!(said.status.success(), "{}", text(&said.stderr));
        let told: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!(told["size"], json!(yard.data.len()));
        assert!(fs::read(&output).expect("the output") == yard.data, "not what was put in");
        fs::remove_file(output).expect("removed");
        told["unsealed_first"] == true
    })
}

/// A reader that names a pipe gets the bytes there, and the pipe stays one.
fn a_pipe_is_written_to_and_not_replaced(yard: &Yard) {
    let pipe = yard.home().join("pipe");
    ok(Command::new("mkfifo").arg(&pipe));
    let reading = {
        let pipe = pipe.clone();
        thread::spawn(move || fs::read(pipe))
    };
    let said =
        yard.say(&["sectors", "read-piece", "1", "--size", "300", "--output", pipe.to_str().expect("UTF-8")]);
    assert!(said.contains("300 B of sector 1 in "), "{said}");
    assert!(fs::symlink_metadata(&pipe).expect("still there").file_type().is_fifo());
    assert!(reading.join().expect("the thread").expect("read") == yard.data[..300]);
}

fn what_cannot_be_is_said(yard: &Yard) {
    let unknown = yard.refused(&["sectors", "read-piece", "9", "--output", "-"], UNKNOWN);
    assert!(unknown.contains("no sector 9"), "{unknown}");
    yard.refused(&["sectors", "unseal", "9"], UNKNOWN);
    let beyond = yard.data.len().to_string();
    let outside =
        yard.refused(&["sectors", "read-piece", "1", "--offset", &beyond, "--size", "1", "--output", "-"], 1);
    assert!(outside.contains(&beyond), "{outside}");
    let odd = yard.refused(&["sectors", "release-unsealed", "1", "--keep", "0:128"], NOT_UNSEALED);
    assert!(odd.contains("multiple of 127"), "{odd}");
    yard.refused(&["sectors", "read-piece", "1", "--json", "--output", "-"], 2);
}

/// What is not to be kept goes and can be read no more; what is kept stays.
fn part_is_released(yard: &Yard, file: &Path) {
    let whole = yard.data.len();
    let kept = whole / 4 / 127 * 127;
    let blocks = || fs::metadata(file).expect("the unsealed file").blocks() * 512;
    let before = blocks();
    let keep = format!("0:{kept}");
    let said = yard.say(&["sectors", "release-unsealed", "1", "--keep", &keep]);
    assert_eq!(said, "unsealed data of sector 1 is released\n");
    // Smaller sectors have no whole block to give back.
    if whole > 1 << 20 {
        let most = (kept / 127 * 128 + (64 << 10)) as u64;
        assert!(before > whole as u64 && blocks() <= most, "{before} bytes on disk, then {}", blocks());
    }
    for (start, end) in [(0, kept), (kept - 1, kept), (1, 200)] {
        assert!(yard.read(start, end) == yard.data[start..end]);
    }
    let offset = kept.to_string();
    let gone =
        ["sectors", "read-piece", "1", "--no-unseal", "--offset", &offset, "--size", "1", "--output", "-"];
    let gone = yard.refused(&gone, NOT_UNSEALED);
    assert!(gone.contains("are not unsealed") && gone.contains("--unseal"), "{gone}");
}

fn all_is_released(yard: &Yard) {
    let told = yard.json(&["sectors", "release-unsealed", "1", "--all"]);
    assert_eq!((&told["state"], &told["error"]), (&json!("not_unsealed"), &Value::Null), "{told:#}");
    for path in ["nvme", "disks"] {
        assert!(!yard.home().join(path).join("unsealed/s-t01000-1").exists(), "{path}");
    }
}

/// Lotus's two calls: the first answers at once, the second when it is done.
fn as_lotus_asks(yard: &Yard, proof: u8) {
    let sector = json!({ "ID": { "Miner": 1000, "Number": 1 }, "ProofType": proof });
    let comm_d = json!({ "/": yard.json(&["sectors", "status", "1"])["comm_d"] });
    let piece = |sector: &Value, comm_d: &Value| {
        yard.call("Filecoin.SectorsUnsealPiece", json!([sector, 127, 254, null, comm_d]))
    };
    let before = yard.unsealings();
    assert_eq!(yard.call("Filecoin.SectorUnseal", json!([1]))["result"], Value::Null);
    assert_eq!(piece(&sector, &comm_d)["result"], Value::Null);
    assert_eq!(yard.unsealings(), before + 1, "the second joins the first");
    yard.reads_back();
    let unknown = yard.call("Filecoin.SectorUnseal", json!([9]));
    assert!(unknown["error"]["message"].to_string().contains("MGR053"), "{unknown:#}");
    let mut other = sector.clone();
    other["ProofType"] = json!(proof + 1);
    let wrong = piece(&other, &Value::Null);
    assert!(wrong["error"]["message"].to_string().contains("MGR112"), "{wrong:#}");
}

fn unsealed_file(yard: &Yard, path: &str) -> PathBuf {
    yard.home().join(path).join("unsealed/s-t01000-1")
}

#[test]
fn a_2kib_sector_on_one_worker() {
    let yard = sealed("2KiB", 2 << 10, false);
    yard.reads_back();
    what_cannot_be_is_said(&yard);
    a_pipe_is_written_to_and_not_replaced(&yard);
    part_is_released(&yard, &unsealed_file(&yard, "nvme"));
    all_is_released(&yard);

    // The replica that the sector will be proven from stays as it is, tree-d with it.
    let cache = snapshot(&yard.home().join("nvme/cache"));
    assert!(cache.iter().any(|(path, _)| path.ends_with("sc-02-data-tree-d.dat")), "it is not finalized");
    two_readers_share_one_unsealing(&yard);
    assert!(snapshot(&yard.home().join("nvme/cache")) == cache, "unsealing changed the cache");

    assert_eq!(yard.say(&["sectors", "unseal", "1"]), "sector 1 is unsealed\n");
    all_is_released(&yard);
    let begun = yard.json(&["sectors", "unseal", "1", "--no-wait"]);
    assert_eq!(begun["state"], "under_way", "{begun:#}");
    assert_eq!(yard.say(&["sectors", "unseal", "1"]), "sector 1 is unsealed\n");
    yard.reads_back();
    all_is_released(&yard);
    as_lotus_asks(&yard, 5);
}

#[test]
fn an_8mib_sector_on_two_workers() {
    let yard = sealed("8MiB", 8 << 20, true);
    yard.reads_back();
    part_is_released(&yard, &unsealed_file(&yard, "nvme"));
    all_is_released(&yard);
    two_readers_share_one_unsealing(&yard);
    assert!(unsealed_file(&yard, "disks").exists(), "by the worker that unseals");
    for kind in ["sealed", "cache"] {
        assert!(
            !yard.home().join("disks").join(kind).join("s-t01000-1").exists(),
            "its copy of {kind} stays"
        );
    }
    part_is_released(&yard, &unsealed_file(&yard, "disks"));
    all_is_released(&yard);
    one_piece_unseals_the_other(&yard);
}

/// Who reads the second piece waits for it once, and finds the first one there then.
fn one_piece_unseals_the_other(yard: &Yard) {
    let (half, before) = (yard.data.len() / 2, yard.unsealings());
    let output = yard.home().join("half");
    let (offset, to) = (half.to_string(), output.to_str().expect("UTF-8"));
    let reading = ["sectors", "read-piece", "1", "--offset", &offset, "--size", &offset, "--output", to];
    for unseals in [true, false] {
        let told = yard.json(&reading);
        assert_eq!((&told["size"], &told["unsealed_first"]), (&json!(half), &json!(unseals)), "{told:#}");
        assert!(fs::read(&output).expect("the output") == yard.data[half..], "not what was put in");
        fs::remove_file(&output).expect("removed");
    }
    assert!(yard.read(0, half) == yard.data[..half], "the other piece");
    assert_eq!(yard.unsealings(), before + 1);
}
