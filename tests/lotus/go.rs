//! JSON-RPC as Go's library speaks it over HTTP POST: its framing, its error codes, its statuses, its key order.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::http::{Answer, Payload, send};

/// An error object. Codes: 1 the handler's own, -32700 unreadable, -32601 no such method, -32602 wrong count.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub code: i64,
    pub message: String,
}

/// What a method gives.
pub type Reply = Result<Value, Fault>;

/// A handler's own error.
pub fn refuse(message: impl Into<String>) -> Fault {
    Fault { code: 1, message: message.into() }
}

/// A parameter that does not decode.
pub fn unreadable(message: impl Into<String>) -> Fault {
    Fault { code: -32700, message: message.into() }
}

/// Checks name and number of parameters as Go does before the handler sees them.
///
/// # Errors
/// -32601 and -32602.
pub fn admit(table: &[(&str, usize)], method: &str, params: &[Value]) -> Result<(), Fault> {
    let name = method.strip_prefix("Filecoin.").unwrap_or("");
    let Some((_, wanted)) = table.iter().find(|(known, _)| *known == name) else {
        return Err(Fault { code: -32601, message: format!("method '{method}' not found") });
    };
    if params.len() == *wanted {
        return Ok(());
    }
    let message = format!("wrong param count (method '{method}'): {} != {wanted}", params.len());
    Err(Fault { code: -32602, message })
}

/// Answers one POST. `handle` gets the method and its parameters.
pub fn serve(body: &[u8], handle: impl FnOnce(&str, &[Value]) -> Reply) -> Answer {
    let parse = |message: &str| reply(&Value::Null, Err(unreadable(message)));
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return parse("unmarshaling request") };
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    if !(id.is_null() || id.is_string() || id.is_number()) {
        return parse("invalid id");
    }
    let Some(method) = request.get("method").and_then(Value::as_str) else { return parse("no method") };
    let none = Vec::new();
    let params = match request.get("params") {
        None | Some(Value::Null) => &none,
        Some(Value::Array(params)) => params,
        Some(_) => return parse("unmarshaling param array"),
    };
    let outcome = handle(method, params);
    if id.is_null() {
        return Answer::status(200);
    }
    reply(&id, outcome)
}

/// Keys in Go's order, a newline behind, and 500 for what is no handler's error.
fn reply(id: &Value, outcome: Reply) -> Answer {
    let (status, text) = match outcome {
        Ok(result) => (200, format!("{{\"id\":{id},\"jsonrpc\":\"2.0\",\"result\":{result}}}\n")),
        Err(fault) => {
            let error = json!({ "code": fault.code, "message": fault.message });
            let status = if fault.code < -32000 || fault.code == 0 { 500 } else { 200 };
            (status, format!("{{\"error\":{error},\"id\":{id},\"jsonrpc\":\"2.0\"}}\n"))
        }
    };
    Answer::with(status, "application/json", text.into_bytes())
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// A status that Go's client takes for a failed request, the body unread.
    Status(u16),
    Fault(Fault),
    /// Nobody listens, or no JSON-RPC answer.
    Broken(String),
}

/// A client of one server.
pub struct Client {
    address: String,
    token: Option<String>,
    last_id: AtomicU64,
}

impl Client {
    /// `address` is host:port.
    pub fn new(address: &str, token: Option<&str>) -> Self {
        Self { address: address.to_owned(), token: token.map(str::to_owned), last_id: AtomicU64::new(0) }
    }

    /// Calls `Filecoin.<method>`; `params` is the array.
    ///
    /// # Errors
    /// What Go's client would call one, and an answer that it would not understand.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        self.call_named(&format!("Filecoin.{method}"), &params)
    }

    fn call_named(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        // A tracing context goes along with every call of Lotus's.
        let meta = json!({ "SpanContext": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" });
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params, "meta": meta });
        let mut headers = vec![("Content-Type", "application/json")];
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer));
        }
        let body = request.to_string().into_bytes();
        let answer = send(&self.address, "POST", "/rpc/v0", &headers, Payload::Bytes(&body))
            .map_err(|error| Failure::Broken(error.to_string()))?;
        if answer.status > 400 && answer.status != 500 {
            return Err(Failure::Status(answer.status));
        }
        understand(id, &answer)
    }
}

fn understand(id: u64, answer: &Answer) -> Result<Value, Failure> {
    let broken = |why: &str| Failure::Broken(format!("{why}: {} {}", answer.status, answer.text()));
    let response: Value = serde_json::from_slice(&answer.body).map_err(|_| broken("no JSON"))?;
    if response["jsonrpc"] != "2.0" {
        return Err(broken("no JSON-RPC 2.0"));
    }
    if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
        let known = error.as_object().is_some_and(|object| {
            object.keys().all(|key| ["code", "message", "data", "meta"].contains(&key.as_str()))
        });
        let (Some(code), Some(message), true) = (error["code"].as_i64(), error["message"].as_str(), known)
        else {
            return Err(broken("an unknown form of error"));
        };
        return Err(Failure::Fault(Fault { code, message: message.to_owned() }));
    }
    if response["id"] != id {
        return Err(broken("another id"));
    }
    response.get("result").cloned().ok_or_else(|| broken("no result"))
}

/// The n-th parameter as whatever type it must be.
///
/// # Errors
/// -32700, as Go's decoder would say.
pub fn uint(value: &Value, what: &str) -> Result<u64, Fault> {
    value.as_u64().ok_or_else(|| unreadable(format!("cannot unmarshal {value} into {what} of type uint64")))
}

/// A text.
///
/// # Errors
/// -32700.
pub fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str, Fault> {
    value.as_str().ok_or_else(|| unreadable(format!("cannot unmarshal {value} into {what} of type string")))
}

/// `{"Miner":…,"Number":…}`.
///
/// # Errors
/// -32700.
pub fn sector_id(value: &Value) -> Result<(u64, u64), Fault> {
    Ok((uint(&value["Miner"], "SectorID.Miner")?, uint(&value["Number"], "SectorID.Number")?))
}

/// `{"ID":SectorID,"ProofType":…}`; gives miner and number. 2 KiB sectors with the V1_1 proof only.
///
/// # Errors
/// -32700.
pub fn sector_ref(value: &Value) -> Result<(u64, u64), Fault> {
    if value["ProofType"] != 5 {
        return Err(unreadable(format!("SectorRef.ProofType is {}, not 5", value["ProofType"])));
    }
    sector_id(&value["ID"])
}

/// `{"/":"…"}`; gives the text.
///
/// # Errors
/// -32700.
pub fn cid(value: &Value) -> Result<&str, Fault> {
    let link = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("/"));
    link.and_then(Value::as_str).ok_or_else(|| unreadable(format!("{value} is no CID")))
}

/// A CID as Go writes it.
pub fn link(cid: &str) -> Value {
    json!({ "/": cid })
}

/// `[PieceInfo]`; gives padded sizes and CIDs.
///
/// # Errors
/// -32700.
pub fn pieces(value: &Value) -> Result<Vec<(u64, String)>, Fault> {
    let list = value.as_array().ok_or_else(|| unreadable(format!("{value} is no list of pieces")))?;
    list.iter()
        .map(|piece| Ok((uint(&piece["Size"], "Size")?, cid(&piece["PieceCID"])?.to_owned())))
        .collect()
}
