//! What the scripted worker's tasks do: ask the index as Lotus's worker asks, run `sealyard exec`, declare, return.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::fresh_uuid;
use super::go::{self, Reply, unreadable};
use super::http::{Answer, Request};
use super::worker::{Inner, Seen};
use crate::system::{COMMAND_MAX, SEALYARD, quiet, run_within, sealyard, text};

const UNSEALED: u64 = 1;
const SEALED: u64 = 2;
const CACHE: u64 = 4;
/// A result that is held back longer is lost with its thread.
const HELD_MAX: Duration = Duration::from_secs(120);
/// Bytes of a sector.
const SECTOR_SIZE: u64 = 2048;

/// Bytes that do not come within this time are given up, as by Lotus's worker.
const PUSHED_MAX: Duration = Duration::from_secs(30);

/// One accepted call, decoded.
struct Job {
    method: String,
    sector: (u64, u64),
    existing: Vec<u64>,
    allocate: Vec<u64>,
    /// The executor's `work`; none for Fetch.
    work: Option<Value>,
    /// The push stream that the piece's bytes come by.
    stream: Option<String>,
}

impl Inner {
    /// Decodes a task's parameters, answers with a fresh CallID, and does the task in a thread of its own.
    pub fn accept(self: &Arc<Self>, method: &str, params: &[Value]) -> Reply {
        let job = decode(method, params)?;
        let call = json!({
            "Sector": { "Miner": job.sector.0, "Number": job.sector.1 }, "ID": fresh_uuid(),
        });
        let (own, id) = (Arc::clone(self), call.clone());
        let early = self.script.returns_early == Some(method);
        let running = std::thread::spawn(move || own.perform(&job, &id));
        if early && running.join().is_err() {
            self.complain(format!("{method} broke"));
        }
        Ok(call)
    }

    fn perform(&self, job: &Job, call: &Value) {
        let method = format!("Return{}", job.method);
        let mut params = vec![call.clone()];
        let outcome = if self.loses(&job.method) {
            Err((101, format!("worker [name: {}] restarted", self.name)))
        } else {
            self.seal(job).map_err(|error| (0, format!("{error} [name: {}]", self.name)))
        };
        let (value, error) = match outcome {
            Ok(value) => (value, Value::Null),
            Err((code, message)) => (zero(&job.method), json!({ "Code": code, "Message": message })),
        };
        params.extend(value);
        params.push(error);
        let params = Value::Array(params);
        if self.script.holds_back == Some(job.method.as_str()) {
            self.trace.push(Seen::HeldBack);
            self.trace.first("leave to return", HELD_MAX, |seen| matches!(seen, Seen::LetGo));
        }
        let times = if self.script.returns_twice == Some(job.method.as_str()) { 2 } else { 1 };
        for _ in 0..times {
            let answer = self.manager.call(&method, params.clone());
            let (method, params) = (method.clone(), params.clone());
            self.trace.push(Seen::Return { method, params, answer });
        }
    }

    /// Acquires, runs, declares; gives the value that is returned, if the method has one.
    fn seal(&self, job: &Job) -> Result<Option<Value>, String> {
        if job.method == "SealPreCommit1" {
            for bit in [SEALED, CACHE] {
                if self.is_here(job, bit)? {
                    return Err("the replica of an earlier try is still here".to_owned());
                }
            }
        }
        for bit in &job.existing {
            if !self.is_here(job, *bit)? {
                return Err(format!("{} is not here", super::type_name(*bit)));
            }
        }
        for bit in &job.allocate {
            self.find(job, *bit)?;
            self.best_alloc(job, *bit)?;
        }
        let Some(work) = &job.work else { return Ok(None) };
        let output = self.execute(job, work)?;
        for bit in &job.allocate {
            // Not as primary: only a move makes a Lotus worker's copy one.
            self.ask("StorageDeclareSector", json!([self.path.id, self.sector(job), bit, false]))?;
        }
        Ok(Some(value_of(&job.method, &output)?))
    }

    fn sector(&self, job: &Job) -> Value {
        json!({ "Miner": job.sector.0, "Number": job.sector.1 })
    }

    fn ask(&self, method: &str, params: Value) -> Result<Value, String> {
        self.manager.call(method, params).map_err(|failure| {
            self.complain(format!("{method}: {failure:?}"));
            format!("{method}: {failure:?}")
        })
    }

    /// Where the index knows the file: ids, checked for the whole shape of SectorStorageInfo.
    fn find(&self, job: &Job, bit: u64) -> Result<Vec<String>, String> {
        // The size is zero where nothing may be fetched, as Lotus sends it.
        let found = self.ask("StorageFindSector", json!([self.sector(job), bit, 0, false]))?;
        let list = found.as_array().ok_or_else(|| format!("StorageFindSector gave {found}"))?;
        for holder in list {
            let whole =
                holder["URLs"].is_array() && holder["BaseURLs"].is_array() && holder["Primary"].is_boolean();
            let whole = whole && ["Weight"].iter().all(|key| holder[key].is_u64());
            if !(whole && holder["CanSeal"].is_boolean() && holder["CanStore"].is_boolean()) {
                self.complain(format!("StorageFindSector gave {holder}"));
            }
        }
        Ok(list.iter().filter_map(|holder| holder["ID"].as_str()).map(str::to_owned).collect())
    }

    fn is_here(&self, job: &Job, bit: u64) -> Result<bool, String> {
        Ok(self.find(job, bit)?.contains(&self.path.id))
    }

    fn best_alloc(&self, job: &Job, bit: u64) -> Result<(), String> {
        let best = self.ask("StorageBestAlloc", json!([bit, SECTOR_SIZE, "sealing", job.sector.0]))?;
        let list = best.as_array().ok_or_else(|| format!("StorageBestAlloc gave {best}"))?;
        if list.iter().any(|info| info["ID"] == self.path.id.as_str()) {
            return Ok(());
        }
        self.complain(format!("StorageBestAlloc does not name this worker's path: {best}"));
        Err("no path of this worker".to_owned())
    }

    /// Runs the executor and gives its output.
    fn execute(&self, job: &Job, work: &Value) -> Result<Value, String> {
        let at = |bit| self.path.file(bit, job.sector);
        let request = json!({
            "version": 1,
            "sector": { "id": { "miner": job.sector.0, "number": job.sector.1 }, "proof": 5 },
            "work": work,
            "files": { "unsealed": at(UNSEALED), "sealed": at(SEALED), "cache": at(CACHE) },
        });
        let dir = tempfile::tempdir_in(&self.home).map_err(|error| error.to_string())?;
        let (input, output) = (dir.path().join("request.json"), dir.path().join("report.json"));
        std::fs::write(&input, request.to_string()).map_err(|error| error.to_string())?;
        let task = work["task"].as_str().unwrap_or_default().to_lowercase();
        let mut command = match &job.stream {
            None => sealyard(&self.home),
            Some(stream) => {
                let bytes = dir.path().join("bytes");
                std::fs::write(&bytes, self.pushed(stream)).map_err(|error| error.to_string())?;
                let mut shell = Command::new("sh");
                quiet(&mut shell, &self.home);
                // An executor reads them from descriptor 3.
                shell.args(["-c", "exec \"$0\" \"$@\" 3<\"$BYTES\"", SEALYARD]).env("BYTES", bytes);
                shell
            }
        };
        command.args(["exec", &task, "--input"]).arg(&input).arg("--output").arg(&output);
        let ended = run_within(&mut command, COMMAND_MAX);
        let report = std::fs::read(&output).map_err(|error| format!("{error}: {}", text(&ended.stderr)))?;
        let report: Value = serde_json::from_slice(&report).map_err(|error| error.to_string())?;
        match report.get("done") {
            Some(done) => Ok(done["output"].clone()),
            None => Err(report.to_string()),
        }
    }
}

/// Where a caller is sent on that asks whether its bytes are wanted: as a miner's endpoint sends one to the worker that reads them.
pub const ELSEWHERE: &str = "/elsewhere/push/";

/// The push streams' endpoint, which asks for no token: the id is the secret.
impl Inner {
    /// `None`: it is no push stream's.
    pub fn take_push(&self, request: &Request) -> Option<Answer> {
        let (verb, path) = (request.method.as_str(), request.path());
        let first = path.strip_prefix("/rpc/streams/v0/push/");
        let id = first.or_else(|| path.strip_prefix(ELSEWHERE))?.to_owned();
        self.trace.push(Seen::Push {
            verb: verb.to_owned(),
            path: path.to_owned(),
            bytes: request.body.clone(),
        });
        Some(match (verb, first.is_some()) {
            // Held until the call is there that names it.
            ("HEAD", true) => {
                let names = |seen: &Seen| matches!(seen, Seen::Call { params, .. } if params.iter().any(|param| param["Info"] == id.as_str()));
                self.trace.first("the call that names a push stream", PUSHED_MAX, names);
                let mut answer = Answer::status(302);
                answer
                    .headers
                    .push(("Location".to_owned(), format!("http://{}{ELSEWHERE}{id}", self.address)));
                answer
            }
            ("HEAD", false) | ("POST", false) => Answer::status(200),
            _ => {
                self.complain(format!("{verb} {path}: it was sent elsewhere"));
                Answer::status(405)
            }
        })
    }

    fn pushed(&self, id: &str) -> Vec<u8> {
        let place = format!("{ELSEWHERE}{id}");
        let is =
            |seen: &Seen| matches!(seen, Seen::Push { verb, path, .. } if verb == "POST" && *path == place);
        match self.trace.first("the piece's bytes", PUSHED_MAX, is) {
            Seen::Push { bytes, .. } => bytes,
            _ => Vec::new(),
        }
    }
}

/// The value that stands in a failed return: Go's zero; none for methods without one.
fn zero(method: &str) -> Option<Value> {
    match method {
        "AddPiece" => Some(json!({ "Size": 0, "PieceCID": null })),
        "SealPreCommit2" => Some(json!({ "Unsealed": null, "Sealed": null })),
        "SealPreCommit1" | "SealCommit1" => Some(Value::Null),
        _ => None,
    }
}

/// The executor's output in Go's form.
fn value_of(method: &str, output: &Value) -> Result<Value, String> {
    let linked =
        |key: &str| output[key].as_str().map(go::link).ok_or_else(|| format!("no {key} in {output}"));
    match method {
        "AddPiece" => Ok(json!({ "Size": output["size"], "PieceCID": linked("cid")? })),
        "SealPreCommit2" => Ok(json!({ "Unsealed": linked("unsealed")?, "Sealed": linked("sealed")? })),
        _ => Ok(output.clone()),
    }
}

fn decode(method: &str, params: &[Value]) -> Result<Job, go::Fault> {
    let sector = go::sector_ref(&params[0])?;
    let replica = vec![SEALED, CACHE];
    let mut stream = None;
    let (existing, allocate, work) = match method {
        "AddPiece" => {
            let existing = sizes(&params[1])?;
            let size = go::uint(&params[2], "newPieceSize")?;
            let source = if params[3]["Type"] == "push" {
                stream = Some(go::text(&params[3]["Info"], "Info")?.to_owned());
                "stream"
            } else {
                // Zeros of a pledge: a null reader with as many bytes as the piece has.
                if params[3] != json!({ "Type": "null", "Info": size.to_string() }) {
                    return Err(unreadable(format!("a reader parameter like {}", params[3])));
                }
                "zeros"
            };
            let work =
                json!({ "task": "AP", "input": { "existing": existing, "size": size, "source": source } });
            let first = existing.is_empty();
            let none = Vec::new;
            (
                if first { none() } else { vec![UNSEALED] },
                if first { vec![UNSEALED] } else { none() },
                Some(work),
            )
        }
        "SealPreCommit1" => {
            let input = json!({ "ticket": hex32(&params[1])?, "pieces": pieces(&params[2])? });
            (vec![UNSEALED], replica, Some(json!({ "task": "PC1", "input": input })))
        }
        "SealPreCommit2" => {
            let input = json!({ "pc1": go::text(&params[1], "pc1o")? });
            (replica, Vec::new(), Some(json!({ "task": "PC2", "input": input })))
        }
        "SealCommit1" => {
            let cids = &params[4];
            let input = json!({
                "ticket": hex32(&params[1])?, "seed": hex32(&params[2])?, "pieces": pieces(&params[3])?,
                "sealed": go::cid(&cids["Sealed"])?, "unsealed": go::cid(&cids["Unsealed"])?,
            });
            (replica, Vec::new(), Some(json!({ "task": "C1", "input": input })))
        }
        "Fetch" => {
            let types = go::uint(&params[1], "SectorFileType")?;
            let known = [("sealing", "move"), ("storage", "move"), ("sealing", "copy")];
            let asked = (go::text(&params[2], "PathType")?, go::text(&params[3], "AcquireMode")?);
            if !known.contains(&asked) {
                return Err(unreadable(format!("a fetch to {asked:?}")));
            }
            ([UNSEALED, SEALED, CACHE].into_iter().filter(|bit| types & bit != 0).collect(), Vec::new(), None)
        }
        other => return Err(go::refuse(format!("{other} is not in this script"))),
    };
    Ok(Job { method: method.to_owned(), sector, existing, allocate, work, stream })
}

/// The existing pieces' unpadded sizes; null is none.
fn sizes(value: &Value) -> Result<Vec<u64>, go::Fault> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(|size| go::uint(size, "existing")).collect(),
        other => Err(unreadable(format!("{other} is no list of sizes"))),
    }
}

/// 32 bytes in base64, as 64 hexadecimal digits.
fn hex32(value: &Value) -> Result<String, go::Fault> {
    let bytes =
        STANDARD.decode(go::text(value, "randomness")?).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() == 32 {
        Ok(hex::encode(bytes))
    } else {
        Err(unreadable(format!("{} bytes of randomness", bytes.len())))
    }
}

fn pieces(value: &Value) -> Result<Vec<Value>, go::Fault> {
    Ok(go::pieces(value)?.into_iter().map(|(size, cid)| json!({ "size": size, "cid": cid })).collect())
}
