//! A scripted Lotus worker: joins a manager in Lotus's order, answers its callbacks with Go's shapes, asks it about every
//! token it is shown. What its tasks do is in `jobs`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::disk::{Purpose, StoragePath, roomy};
use super::go::{self, Client, Failure, Fault, Reply, refuse};
use super::http::{Answer, Request, Server};
use super::remote;
use super::trace::Trace;
use super::{fresh_uuid, type_name};

/// HeartbeatInterval: sessions asked and health reported this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The methods a Lotus worker serves, with their exact numbers of parameters.
const METHODS: [(&str, usize); 24] = [
    ("Version", 0),
    ("TaskTypes", 0),
    ("Paths", 0),
    ("Info", 0),
    ("Session", 0),
    ("ProcessSession", 0),
    ("Enabled", 0),
    ("SetEnabled", 1),
    ("WaitQuiet", 0),
    ("StorageLocal", 0),
    ("DataCid", 2),
    ("AddPiece", 4),
    ("SealPreCommit1", 3),
    ("SealPreCommit2", 2),
    ("SealCommit1", 5),
    ("SealCommit2", 2),
    ("FinalizeSector", 1),
    ("ReleaseUnsealed", 2),
    ("MoveStorage", 2),
    ("UnsealPiece", 5),
    ("Fetch", 4),
    ("TaskDisable", 1),
    ("TaskEnable", 1),
    ("Remove", 1),
];

/// Offered by every sealing worker of Lotus.
const ALWAYS: [&str; 6] = [
    "seal/v0/fetch",
    "seal/v0/commit/1",
    "seal/v0/provereplicaupdate/1",
    "seal/v0/finalize",
    "seal/v0/finalizeunsealed",
    "seal/v0/finalize/replicaupdate",
];

/// How it misbehaves, within what a Lotus worker may do.
#[derive(Clone, Copy, Default)]
pub struct Script {
    /// The first PreCommit1 is returned as lost in a restart.
    pub loses_first_precommit1: bool,
    /// This task's result is returned before its call is answered.
    pub returns_early: Option<&'static str>,
    /// This task's result is returned twice.
    pub returns_twice: Option<&'static str>,
    /// This task's result is held back until [`LotusWorker::let_go`].
    pub holds_back: Option<&'static str>,
}

/// What the manager did to the worker, and what became of its results.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A call of the manager's.
    Call { method: String, params: Vec<Value>, token: String },
    /// A request for a file, of a peer with permission admin.
    Remote { verb: String, target: String },
    /// A request of a push stream: whether its bytes are wanted, or the bytes.
    Push { verb: String, path: String, bytes: Vec<u8> },
    /// A result that is held back.
    HeldBack,
    /// The test lets it go.
    LetGo,
    /// A result, and how its taking was answered.
    Return { method: String, params: Value, answer: Result<Value, Failure> },
}

/// The worker.
pub struct LotusWorker {
    pub inner: Arc<Inner>,
    beat: Option<(Sender<()>, std::thread::JoinHandle<()>)>,
    _server: Server,
}

/// What its threads share.
pub struct Inner {
    pub name: String,
    pub session: String,
    pub tasks: Vec<&'static str>,
    pub script: Script,
    pub path: StoragePath,
    pub home: std::path::PathBuf,
    pub manager: Client,
    /// host:port of its own server.
    pub address: String,
    pub trace: Trace<Seen>,
    pub complaints: Mutex<Vec<String>>,
    pub lost_one: AtomicBool,
}

impl LotusWorker {
    /// Starts it and joins the manager that `api_info` (`TOKEN:/ip4/…`) names, step by step as Lotus does.
    pub fn join(home: &Path, api_info: &str, tasks: &[&'static str], script: Script) -> Self {
        let (token, address) = parse_api_info(api_info);
        let manager = Client::new(&address, Some(&token));
        let listener = Server::bind();
        let own = listener.local_addr().expect("it is bound").to_string();
        let inner = Arc::new(Inner {
            name: "lotus-stand-in".to_owned(),
            session: fresh_uuid(),
            tasks: tasks.iter().chain(&ALWAYS).copied().collect(),
            script,
            path: StoragePath::create(&home.join("lotusworker"), Purpose::Sealing),
            home: home.to_owned(),
            manager,
            address: own,
            trace: Trace::new(),
            complaints: Mutex::default(),
            lost_one: AtomicBool::new(false),
        });
        inner.introduce();
        inner.declare_paths();
        let handler = Arc::clone(&inner);
        let server = Server::serve(listener, move |request| handler.answer(&request));
        inner.connect();
        let beat = Some(beat(&inner));
        Self { inner, beat, _server: server }
    }

    /// What a Lotus worker does as soon as it finds a new session at its manager: declares everything again.
    pub fn declare_again(&self) {
        self.inner.declare_paths();
    }

    /// What it does then when it is quiet itself: registers, the same process as before.
    pub fn join_again(&self) {
        self.declare_again();
        self.inner.connect();
    }

    /// Lets a result go that is held back.
    pub fn let_go(&self) {
        self.inner.trace.push(Seen::LetGo);
    }

    pub fn trace(&self) -> &Trace<Seen> {
        &self.inner.trace
    }

    /// The calls by which the manager had sealing work done, in order.
    pub fn work(&self) -> Vec<(String, Vec<Value>)> {
        let calls = self.inner.trace.all().into_iter().filter_map(|seen| match seen {
            Seen::Call { method, params, .. } if !params.is_empty() => Some((method, params)),
            _ => None,
        });
        calls.collect()
    }

    /// Everything that a Lotus worker would have stumbled over.
    pub fn complaints(&self) -> Vec<String> {
        self.inner.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LotusWorker {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.beat.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Splits at the first colon; the multiaddr must be `/ip4/…/tcp/…/http`.
fn parse_api_info(text: &str) -> (String, String) {
    let (token, address) = text.trim().split_once(':').expect("TOKEN:ADDRESS");
    assert_eq!(token.split('.').count(), 3, "{token} is no JWT");
    let parts: Vec<&str> = address.split('/').collect();
    let ["", "ip4", host, "tcp", port, "http"] = parts[..] else {
        panic!("{address} is no multiaddr of Lotus's")
    };
    (token.to_owned(), format!("{host}:{port}"))
}

/// Session and health, every ten seconds until the sender is dropped.
fn beat(inner: &Arc<Inner>) -> (Sender<()>, std::thread::JoinHandle<()>) {
    let (stop, stopped) = channel::<()>();
    let inner = Arc::clone(inner);
    let thread = std::thread::spawn(move || {
        while stopped.recv_timeout(HEARTBEAT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            for (method, params) in [("Session", json!([])), ("StorageReportHealth", inner.health())] {
                // A manager that does not answer is asked again at the next beat.
                if let Err(failure @ (Failure::Fault(_) | Failure::Status(_))) =
                    inner.manager.call(method, params)
                {
                    inner.complain(format!("{method}: {failure:?}"));
                }
            }
        }
    });
    (stop, thread)
}

impl Inner {
    pub fn complain(&self, text: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    pub fn health(&self) -> Value {
        json!([self.path.id, { "Stat": roomy(), "Err": "" }])
    }

    /// Version, miner and sector size, in that order; a real worker exits on another version.
    fn introduce(&self) {
        let version = self.manager.call("Version", json!([])).expect("Version");
        assert_eq!(version["APIVersion"], 66816, "{version}");
        assert!(version["Version"].is_string() && version["BlockDelay"].is_u64(), "{version}");
        let actor = self.manager.call("ActorAddress", json!([])).expect("ActorAddress");
        assert!(actor == "f01000" || actor == "t01000", "{actor}");
        let size = self.manager.call("ActorSectorSize", json!([actor])).expect("ActorSectorSize");
        assert_eq!(size, 2048);
    }

    /// The path, then each file in it, one call each.
    fn declare_paths(&self) {
        let info = self.path.info(&[format!("http://{}/remote", self.address)]);
        let attached = self.manager.call("StorageAttach", json!([info, roomy()]));
        assert_eq!(attached, Ok(Value::Null), "StorageAttach");
        for (bit, (miner, number)) in self.path.entries() {
            let sector = json!({ "Miner": miner, "Number": number });
            let params = json!([self.path.id, sector, bit, self.path.can_store]);
            let declared = self.manager.call("StorageDeclareSector", params);
            assert_eq!(declared, Ok(Value::Null), "StorageDeclareSector of {} {number}", type_name(bit));
        }
    }

    /// The manager's session, then WorkerConnect, during which the manager calls back.
    fn connect(&self) {
        let session = self.manager.call("Session", json!([])).expect("Session");
        assert!(session.as_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()), "{session}");
        let connected =
            self.manager.call("WorkerConnect", json!([format!("http://{}/rpc/v0", self.address)]));
        assert_eq!(connected, Ok(Value::Null), "WorkerConnect");
    }

    fn answer(self: &Arc<Self>, request: &Request) -> Answer {
        if let Some(answer) = self.take_push(request) {
            return answer;
        }
        let (token, permissions) = match self.permissions(request) {
            Ok(known) => known,
            Err(status) => return Answer::status(status),
        };
        let admin = permissions.iter().any(|permission| permission == "admin");
        match request.path() {
            "/rpc/v0" if request.method == "POST" => {
                go::serve(&request.body, |method, params| self.call(method, params, &token, admin))
            }
            "/rpc/v0" => Answer::status(405),
            path if path.starts_with("/remote/") && !admin => {
                let text = b"{\"Error\":\"unauthorized: missing admin permission\"}\n".to_vec();
                Answer::with(401, "text/plain; charset=utf-8", text)
            }
            path if path.starts_with("/remote/") => {
                let answer = remote::serve(request, &self.path, |deletion| self.delete(deletion));
                let (verb, target) = (request.method.clone(), request.target.clone());
                self.trace.push(Seen::Remote { verb, target });
                answer
            }
            _ => Answer::status(404),
        }
    }

    /// The token and what the manager says that it allows; nothing without a token.
    fn permissions(&self, request: &Request) -> Result<(String, Vec<String>), u16> {
        let token = match request.header("authorization") {
            Some(header) => header.strip_prefix("Bearer ").ok_or(401_u16)?.to_owned(),
            None => match request.query("token") {
                Some(token) => token.to_owned(),
                None => return Ok((String::new(), Vec::new())),
            },
        };
        match self.manager.call("AuthVerify", json!([token])) {
            Ok(Value::Array(list)) => {
                Ok((token, list.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
            }
            // Whoever asked was killed meanwhile: nobody hears the answer.
            Err(Failure::Broken(_)) => Err(401),
            other => {
                self.complain(format!(
                    "AuthVerify of the token in {} {}: {other:?}",
                    request.method, request.target
                ));
                Err(401)
            }
        }
    }

    fn call(self: &Arc<Self>, method: &str, params: &[Value], token: &str, admin: bool) -> Reply {
        if let Err(fault) = go::admit(&METHODS, method, params) {
            if !method.starts_with("Sealyard.") {
                self.complain(format!("{method}: {}", fault.message));
            }
            return Err(fault);
        }
        let name = method.trim_start_matches("Filecoin.");
        if !admin {
            self.complain(format!("{method} came without permission admin"));
            return Err(refuse(format!("missing permission to invoke '{name}' (need 'admin')")));
        }
        let seen = Seen::Call { method: name.to_owned(), params: params.to_vec(), token: token.to_owned() };
        self.trace.push(seen);
        let reply = match name {
            "Version" => Ok(json!(67328)),
            "Session" | "ProcessSession" => Ok(json!(self.session)),
            "Info" => Ok(self.info()),
            "TaskTypes" => Ok(self
                .tasks
                .iter()
                .map(|task| ((*task).to_owned(), json!({})))
                .collect::<Map<_, _>>()
                .into()),
            "Paths" => Ok(json!([{
                "ID": self.path.id, "Weight": 10, "LocalPath": self.path.dir, "CanSeal": true, "CanStore": false,
            }])),
            "Enabled" => Ok(json!(true)),
            "WaitQuiet" => Ok(Value::Null),
            "StorageLocal" => Ok(json!({ (self.path.id.as_str()): self.path.dir })),
            _ => self.accept(name, params),
        };
        if let Err(Fault { message, .. }) = &reply {
            self.complain(format!("{method} {}: {message}", Value::from(params.to_vec())));
        }
        reply
    }

    /// WorkerInfo with the whole resource table, for proofs 0 to 14 as Lotus sends it, and no GPU: null.
    fn info(&self) -> Value {
        let row = json!({
            "MinMemory": 2048, "MaxMemory": 2048, "GPUUtilization": 0.0, "MaxParallelism": 1, "MaxParallelismGPU": 0,
            "BaseMinMemory": 2048, "MaxConcurrent": 0,
        });
        let rows: Map<String, Value> = (0..15).map(|proof| (proof.to_string(), row.clone())).collect();
        let table: Map<String, Value> =
            self.tasks.iter().map(|task| ((*task).to_owned(), Value::Object(rows.clone()))).collect();
        json!({
            "Hostname": self.name, "IgnoreResources": false,
            "Resources": {
                "MemPhysical": 16_u64 << 30, "MemUsed": 1_u64 << 30, "MemSwap": 0, "MemSwapUsed": 0, "CPUs": 4,
                "GPUs": null, "Resources": table,
            },
        })
    }

    /// First the index, then the disk, then the path's health, as Lotus does.
    fn delete(&self, deletion: &remote::Deletion) -> Result<(), String> {
        let (miner, number) = deletion.sector;
        let params = json!([self.path.id, { "Miner": miner, "Number": number }, deletion.bit]);
        let dropped = self.manager.call("StorageDropSector", params);
        if dropped != Ok(Value::Null) {
            self.complain(format!("StorageDropSector: {dropped:?}"));
        }
        let file = self.path.file(deletion.bit, deletion.sector);
        let removed =
            if file.is_dir() { std::fs::remove_dir_all(&file) } else { std::fs::remove_file(&file) };
        let _ = self.manager.call("StorageReportHealth", self.health());
        removed.map_err(|error| error.to_string())
    }

    /// Whether this is the PreCommit1 that the script loses.
    pub fn loses(&self, method: &str) -> bool {
        self.script.loses_first_precommit1
            && method == "SealPreCommit1"
            && !self.lost_one.swap(true, Ordering::Relaxed)
    }
}
