//! A scripted Lotus miner: takes a worker as Lotus does, demands Go's shapes of everything it sends, and drives it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::disk::{Purpose, StoragePath, roomy};
use super::go::{self, Client, Failure, Reply, refuse};
use super::http::{Answer, Request, Server};
use super::index::{Index, exact_keys};
use super::trace::Trace;
use super::{fresh_uuid, remote};

/// A task of a 2 KiB sector takes a second; a loaded machine gets more.
const RETURN_MAX: Duration = Duration::from_secs(90);

/// The methods a worker may call, with their exact numbers of parameters.
const METHODS: [(&str, usize); 33] = [
    ("Version", 0),
    ("AuthVerify", 1),
    ("Session", 0),
    ("ActorAddress", 0),
    ("ActorSectorSize", 1),
    ("WorkerConnect", 1),
    ("StorageAttach", 2),
    ("StorageDetach", 2),
    ("StorageInfo", 1),
    ("StorageReportHealth", 2),
    ("StorageDeclareSector", 4),
    ("StorageDropSector", 3),
    ("StorageFindSector", 4),
    ("StorageBestAlloc", 4),
    ("StorageList", 0),
    ("ReturnDataCid", 3),
    ("ReturnAddPiece", 3),
    ("ReturnSealPreCommit1", 3),
    ("ReturnSealPreCommit2", 3),
    ("ReturnSealCommit1", 3),
    ("ReturnSealCommit2", 3),
    ("ReturnFinalizeSector", 2),
    ("ReturnReplicaUpdate", 3),
    ("ReturnProveReplicaUpdate1", 3),
    ("ReturnProveReplicaUpdate2", 3),
    ("ReturnGenerateSectorKeyFromData", 2),
    ("ReturnFinalizeReplicaUpdate", 2),
    ("ReturnReleaseUnsealed", 2),
    ("ReturnMoveStorage", 2),
    ("ReturnUnsealPiece", 2),
    ("ReturnReadPiece", 3),
    ("ReturnDownloadSector", 2),
    ("ReturnFetch", 2),
];
/// Open to a token with `read`, and without any.
const READ: [&str; 5] = ["Version", "AuthVerify", "Session", "ActorAddress", "ActorSectorSize"];

/// One call of the worker's.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub params: Vec<Value>,
}

/// A worker that was taken, with its answers to the miner's questions.
#[derive(Clone, Debug)]
pub struct Taken {
    /// host:port.
    pub address: String,
    pub token: String,
    pub session: String,
    pub info: Value,
    pub tasks: Value,
}

/// The miner.
pub struct LotusMiner {
    pub inner: Arc<Inner>,
    _server: Server,
}

/// What its threads share.
pub struct Inner {
    /// host:port of its own server.
    pub address: String,
    /// What the operator puts into MINER_API_INFO.
    pub token: String,
    session: String,
    tokens: Mutex<Vec<String>>,
    /// Its own storage, and what it holds there for workers to fetch.
    pub path: StoragePath,
    pub index: Index,
    /// The worker's calls.
    pub trace: Trace<Call>,
    /// Requests to its own storage: verb and target.
    pub served: Trace<(String, String)>,
    pub taken: Trace<Taken>,
    complaints: Mutex<Vec<String>>,
    /// The next call of this method is answered with an error.
    refuses: Mutex<Option<&'static str>>,
}

impl LotusMiner {
    pub fn start(home: &Path) -> Self {
        let listener = Server::bind();
        let address = listener.local_addr().expect("it is bound").to_string();
        let token = jwt(&["read", "write", "sign", "admin"]);
        let inner = Arc::new(Inner {
            tokens: Mutex::new(vec![token.clone()]),
            token,
            session: fresh_uuid(),
            path: StoragePath::create(&home.join("lotusminer"), Purpose::Storing),
            index: Index::default(),
            trace: Trace::new(),
            served: Trace::new(),
            taken: Trace::new(),
            complaints: Mutex::default(),
            refuses: Mutex::default(),
            address,
        });
        let info = inner.path.info(&[format!("http://{}/remote", inner.address)]);
        inner.index.attach(&info, &roomy()).expect("its own path");
        let handler = Arc::clone(&inner);
        let server = Server::serve(listener, move |request| handler.answer(&request));
        Self { inner, _server: server }
    }

    /// What `MINER_API_INFO` says.
    pub fn api_info(&self) -> String {
        let (host, port) = self.inner.address.split_once(':').expect("host:port");
        format!("{}:/ip4/{host}/tcp/{port}/http", self.inner.token)
    }

    /// The n-th worker that joined, waited for.
    pub fn taken(&self, number: usize) -> Taken {
        self.inner.taken.wait("a worker", RETURN_MAX, |taken| taken.get(number).cloned())
    }

    /// Answers the next call of this method with an error.
    pub fn refuse_next(&self, method: &'static str) {
        *self.inner.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Some(method);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.inner.complaints().clone()
    }

    /// Has a task done and gives its CallID.
    #[track_caller]
    pub fn order(&self, worker: &Client, method: &str, params: Value) -> Value {
        let sector =
            if method == "DataCid" { json!({ "Miner": 0, "Number": 0 }) } else { params[0]["ID"].clone() };
        let call = worker.call(method, params).unwrap_or_else(|failure| panic!("{method}: {failure:?}"));
        exact_keys(&call, &["Sector", "ID"], "CallID").expect("a CallID");
        assert_eq!(call["Sector"], sector, "{method}");
        assert!(call["ID"].as_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()), "{call}");
        call
    }

    /// What the return of this call carries behind the CallID: value, if the method has one, and error.
    #[track_caller]
    pub fn returned(&self, method: &str, call: &Value) -> Vec<Value> {
        let is = |seen: &Call| seen.method == method && seen.params[0] == *call;
        self.inner.trace.first(&format!("{method} of {call}"), RETURN_MAX, is).params[1..].to_vec()
    }

    /// Orders, waits, and demands success; gives the value, null for methods without one.
    #[track_caller]
    pub fn done(&self, worker: &Client, method: &str, params: Value) -> Value {
        let call = self.order(worker, method, params);
        let mut rest = self.returned(&format!("Return{method}"), &call);
        assert_eq!(rest.pop(), Some(Value::Null), "{method} must succeed");
        rest.pop().unwrap_or_default()
    }

    /// Orders, waits, and demands failure; gives the value beside the error, and the error's code and message.
    #[track_caller]
    pub fn failed(&self, worker: &Client, method: &str, params: Value) -> (Value, i64, String) {
        let call = self.order(worker, method, params);
        let mut rest = self.returned(&format!("Return{method}"), &call);
        let error = rest.pop().expect("an error");
        exact_keys(&error, &["Code", "Message"], "CallError").expect("a CallError");
        let message = error["Message"].as_str().expect("words").to_owned();
        (rest.pop().unwrap_or_default(), error["Code"].as_i64().expect("a code"), message)
    }

    /// The methods that were called, in order.
    pub fn methods(&self) -> Vec<String> {
        self.inner.trace.all().into_iter().map(|call| call.method).collect()
    }
}

/// A token in Lotus's form. Workers cannot check it, so its signature is any text.
fn jwt(permissions: &[&str]) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = part("{\"alg\":\"HS256\",\"typ\":\"JWT\"}".to_owned());
    format!("{header}.{}.{}", part(json!({ "Allow": permissions }).to_string()), part(fresh_uuid()))
}

/// What a token of ours allows.
fn allowed(token: &str) -> Value {
    let payload =
        token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("a token of ours");
    serde_json::from_slice::<Value>(&payload).expect("a token of ours")["Allow"].clone()
}

impl Inner {
    fn complaints(&self) -> MutexGuard<'_, Vec<String>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, text: String) {
        self.complaints().push(text);
    }

    /// A new token with these permissions.
    pub fn mint(&self, permissions: &[&str]) -> String {
        let token = jwt(permissions);
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token.clone());
        token
    }

    fn knows(&self, token: &str) -> bool {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == token)
    }

    fn answer(&self, request: &Request) -> Answer {
        let token = match request.header("authorization").map(|header| header.strip_prefix("Bearer ")) {
            Some(Some(token)) if self.knows(token) => Some(token),
            Some(_) => {
                self.complain(format!("{} {} with a bad token", request.method, request.target));
                return Answer::status(401);
            }
            None => None,
        };
        let admin = token.is_some_and(|token| {
            allowed(token).as_array().is_some_and(|list| list.contains(&json!("admin")))
        });
        match request.path() {
            "/rpc/v0" if request.method == "POST" => {
                if request.header("content-type") != Some("application/json") {
                    self.complain(format!("Content-Type {:?}", request.header("content-type")));
                }
                go::serve(&request.body, |method, params| self.call(method, params, admin))
            }
            path if path.starts_with("/remote/") && admin => {
                self.served.push((request.method.clone(), request.target.clone()));
                remote::serve(request, &self.path, |deletion| self.delete(deletion))
            }
            path if path.starts_with("/remote/") => {
                self.complain(format!("{} {path} without permission", request.method));
                Answer::status(401)
            }
            _ => Answer::status(404),
        }
    }

    fn delete(&self, deletion: &remote::Deletion) -> Result<(), String> {
        let (miner, number) = deletion.sector;
        let params = [json!(self.path.id), json!({ "Miner": miner, "Number": number }), json!(deletion.bit)];
        self.index.drop_file(&params).map_err(|fault| fault.message)?;
        let file = self.path.file(deletion.bit, deletion.sector);
        let removed =
            if file.is_dir() { std::fs::remove_dir_all(&file) } else { std::fs::remove_file(&file) };
        removed.map_err(|error| error.to_string())
    }

    fn call(&self, method: &str, params: &[Value], admin: bool) -> Reply {
        if let Err(fault) = go::admit(&METHODS, method, params) {
            if !method.starts_with("Sealyard.") {
                self.complain(format!("{method}: {}", fault.message));
            }
            return Err(fault);
        }
        let name = method.trim_start_matches("Filecoin.");
        if !admin && !READ.contains(&name) {
            self.complain(format!("{method} came without permission admin"));
            return Err(refuse(format!("missing permission to invoke '{name}' (need 'admin')")));
        }
        let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        if refuses.take_if(|refused| *refused == name).is_some() {
            return Err(refuse("the datastore is busy"));
        }
        drop(refuses);
        let reply = self.reply(name, params);
        if let Err(fault) = &reply
            && fault.code != 1
        {
            self.complain(format!("{method} {}: {}", Value::from(params.to_vec()), fault.message));
        }
        // Seen once it is answered: whoever waits for a declaration then finds it in the index.
        self.trace.push(Call { method: name.to_owned(), params: params.to_vec() });
        reply
    }

    fn reply(&self, name: &str, params: &[Value]) -> Reply {
        match name {
            "Version" => Ok(json!({
                "Version": "1.36.2+mainnet", "APIVersion": 66816, "BlockDelay": 30, "Agent": "lotus-miner",
            })),
            "AuthVerify" => match go::text(&params[0], "token")? {
                token if self.knows(token) => Ok(allowed(token)),
                _ => Err(refuse("JWT Verification failed: jwt: HMAC verification failed")),
            },
            "Session" => Ok(json!(self.session)),
            "ActorAddress" => Ok(json!("f01000")),
            "ActorSectorSize" if params[0] == "f01000" || params[0] == "t01000" => Ok(json!(2048)),
            "ActorSectorSize" => Err(go::unreadable(format!("no miner {}", params[0]))),
            "WorkerConnect" => self.take(go::text(&params[0], "url")?),
            "StorageAttach" => self.index.attach(&params[0], &params[1]),
            "StorageReportHealth" => self.index.health(&params[0], &params[1]),
            "StorageDeclareSector" => self.index.declare(params),
            "StorageDropSector" => self.index.drop_file(params),
            "StorageFindSector" => self.index.find(params),
            "StorageBestAlloc" => self.index.best_alloc(params),
            "StorageInfo" => self.index.info(&params[0]),
            "StorageList" => Ok(self.index.list()),
            "StorageDetach" => Ok(Value::Null),
            _ => {
                exact_keys(&params[0], &["Sector", "ID"], "CallID")?;
                go::sector_id(&params[0]["Sector"])?;
                Ok(Value::Null)
            }
        }
    }

    /// Lotus's side of WorkerConnect, in its order; the worker waits for it.
    fn take(&self, url: &str) -> Reply {
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/rpc/v0"));
        let Some(address) = address else { return Err(refuse(format!("creating jsonrpc client: {url}"))) };
        let token = self.mint(&["admin"]);
        let worker = Client::new(address, Some(&token));
        let ask = |method: &str| {
            worker
                .call(method, json!([]))
                .map_err(|failure: Failure| refuse(format!("{method}: {failure:?}")))
        };
        let version = ask("Version")?;
        if version.as_u64().map(|version| version >> 8) != Some(0x0107) {
            return Err(refuse(format!("unexpected worker version {version}")));
        }
        let session = ask("Session")?.as_str().unwrap_or_default().to_owned();
        let (info, tasks) = (ask("Info")?, ask("TaskTypes")?);
        if ask("Session")? != session.as_str() || uuid::Uuid::try_parse(&session).is_err() {
            return Err(refuse(format!("session {session:?}")));
        }
        self.taken.push(Taken { address: address.to_owned(), token, session, info, tasks });
        Ok(Value::Null)
    }
}
