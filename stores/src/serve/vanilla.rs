//! `POST /remote/vanilla/single` and `/remote/vanilla/porep`: proofs of the replicas that lie here, for a miner that proves
//! its sectors from afar. Requests, statuses and bodies are Lotus's; the work is done by a [`Prover`]. Never: holds a lock,
//! or writes a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sealtasks::{
    Commit1Input, ExecutorFailure, ExecutorRequest, FailureClass, FetchVerb, FileType, PieceInfo,
    RegisteredSealProof, SectorFiles, SectorId, SectorRef, Seed, TaskInput, TaskOutput, Ticket,
    UnpaddedPieceSize, VanillaInput, post_proof_size,
};

use super::access::{Access, Deed};
use super::{Failure, Server};
use crate::error::StoreError;
use crate::meta::META_FILE;
use crate::wire::{PoRepJson, SingleJson};

/// The largest request (bytes): [`sealtasks::CHALLENGES_MAX`] numbers fit many times.
const REQUEST_MAX: usize = 1 << 20;

/// Says which [`FailureClass`] stands behind a status 500, by its name in JSON: what is said of bad files, and what of this
/// host, reads the same otherwise. A Lotus peer does not look at it.
pub(crate) const FAILURE_HEADER: HeaderName = HeaderName::from_static("x-sealyard-failure");

/// Stands there instead of a class: the storage path is not open here, not mounted, or hangs.
pub(crate) const PATH_AWAY: &[u8] = b"path_away";

/// What a Sealyard says that makes no proofs; earlier ones said it without a class.
pub(crate) const NO_PROVER: &str = "vanilla proofs are not made by this worker";

/// Makes proofs of replicas that lie here: [`TaskInput::Vanilla`] and [`TaskInput::Commit1`], of files that nobody may be
/// writing meanwhile. Bounds how many are made at once.
#[async_trait]
pub trait Prover: Send + Sync + 'static {
    /// Does it. Ends when the future is dropped.
    ///
    /// # Errors
    /// Class `BadData`: the files are at fault. Any other class: it could not be told.
    async fn prove(&self, request: ExecutorRequest) -> Result<TaskOutput, ExecutorFailure>;
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    PoRep,
}

/// What is to be proven, of which files.
struct Asked {
    sector: SectorRef,
    replica: FileType,
    cache: FileType,
    work: TaskInput,
}

/// Answers a request whose token was looked at, and may still not reach as far as this.
pub(super) async fn answer(server: &Server, access: &Access, kind: Kind, body: Body) -> Response {
    let asked = match to_bytes(body, REQUEST_MAX).await {
        Ok(body) => read(kind, &body),
        Err(error) => Err(error.into()),
    };
    let asked = match asked {
        Ok(asked) => asked,
        // Lotus does not look at what it cannot read.
        Err(error) if access.is_admin() => return text(&crate::local::chain(&*error)),
        Err(_) => return super::access::refused("a fetch token opens files only, and this names none"),
    };
    // Who may take the cache may have it proven.
    let name = asked.sector.id.to_string();
    let deed = Deed::File { verb: FetchVerb::Get, kind: asked.cache.name(), sector: &name };
    if let Some(refusal) = access.refusal(&deed, &server.local) {
        return refusal;
    }
    let (sector, seconds) = (asked.sector.id, std::time::Instant::now());
    match prove(server, asked).await {
        Ok(bytes) => {
            tracing::debug!(%sector, ?kind, ms = seconds.elapsed().as_millis(), "proven");
            ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        Err(unproven) => {
            tracing::warn!(%sector, ?kind, ?unproven, "not proven");
            unproven.response()
        }
    }
}

/// Why there is no proof.
#[derive(Debug)]
enum Unproven {
    /// The storage path of a file is not there now, which says nothing of the file.
    PathAway(String),
    Failed(ExecutorFailure),
}

impl Unproven {
    fn response(&self) -> Response {
        let (message, class) = match self {
            Self::PathAway(message) => (message, HeaderValue::from_bytes(PATH_AWAY).ok()),
            Self::Failed(failure) => (&failure.message, name_of(failure.class)),
        };
        let mut response = text(message);
        if let Some(class) = class {
            response.headers_mut().insert(FAILURE_HEADER, class);
        }
        response
    }
}

fn name_of(class: FailureClass) -> Option<HeaderValue> {
    serde_json::to_value(class).ok()?.as_str()?.parse().ok()
}

async fn prove(server: &Server, asked: Asked) -> Result<Vec<u8>, Unproven> {
    let broken =
        |message: String| Unproven::Failed(ExecutorFailure { class: FailureClass::Environment, message });
    let Some(prover) = &server.prover else {
        return Err(broken(NO_PROVER.to_owned()));
    };
    let mut files = std::collections::BTreeMap::new();
    for (kind, role) in [(asked.replica, FileType::Sealed), (asked.cache, FileType::Cache)] {
        let found = server.local.file_path(asked.sector.id, kind).await;
        let found = found.map_err(|error| broken(crate::local::chain(&error)))?;
        // Whoever asks was told that it lies here, in a path that is not open then.
        let missing =
            || Unproven::PathAway(StoreError::NotFound { sector: asked.sector.id, kind }.to_string());
        files.insert(role, found.ok_or_else(missing)?.1);
    }
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector: asked.sector,
        work: asked.work,
        files: SectorFiles(files),
    };
    let paths: Vec<PathBuf> = request.files.0.values().filter_map(|file| path_of(file)).collect();
    let made = match Arc::clone(prover).prove(request).await {
        Ok(made) => made,
        Err(failure) => return Err(whose_fault(server, &paths, failure).await),
    };
    match made {
        TaskOutput::Vanilla(proof) => Ok(proof.0),
        TaskOutput::Commit1(output) => Ok(output.0),
        _ => Err(broken("the executor did another task".to_owned())),
    }
}

/// A disk that is not there has no bad files.
async fn whose_fault(server: &Server, paths: &[PathBuf], failure: ExecutorFailure) -> Unproven {
    for path in paths {
        let why = match server.local.exists(&path.join(META_FILE)).await {
            Ok(true) => continue,
            Ok(false) => format!("storage path {} is not mounted", path.display()),
            Err(error) => crate::local::chain(&error),
        };
        return Unproven::PathAway(format!("{why}: {}", failure.message));
    }
    Unproven::Failed(failure)
}

/// The storage path that a sector's file lies in.
fn path_of(file: &Path) -> Option<PathBuf> {
    file.ancestors().nth(2).map(Path::to_owned)
}

fn read(kind: Kind, body: &[u8]) -> Result<Asked, Failure> {
    match kind {
        Kind::Single => {
            let SingleJson { miner, sector, proof_type } = serde_json::from_slice(body)?;
            let proof = RegisteredSealProof::try_from(sector.seal_proof)?;
            if post_proof_size(proof_type) != Some(proof.sector_size()) {
                let size = proof.sector_size();
                return Err(format!("ProofType {proof_type} is no PoSt proof for {size} sectors").into());
            }
            let id = SectorId::new(miner, sector.sector_number);
            let input = VanillaInput {
                sealed: sector.sealed.text.parse()?,
                challenges: sector.challenge.unwrap_or_default(),
            };
            let (replica, cache) = match sector.update {
                true => (FileType::Update, FileType::UpdateCache),
                false => (FileType::Sealed, FileType::Cache),
            };
            let sector = SectorRef { id, proof };
            Ok(Asked { sector, replica, cache, work: TaskInput::Vanilla(input) })
        }
        Kind::PoRep => {
            let PoRepJson { sector, sealed, unsealed, ticket, seed } = serde_json::from_slice(body)?;
            let proof = RegisteredSealProof::try_from(sector.proof_type)?;
            let id = SectorId::new(sector.id.miner, sector.id.number);
            let unsealed: sealtasks::UnsealedCid = unsealed.text.parse()?;
            let whole = UnpaddedPieceSize::whole_sector(proof.sector_size());
            // As Lotus: one piece that is the sector.
            let piece = PieceInfo { size: whole.padded(), cid: unsealed };
            let input = Commit1Input {
                ticket: Ticket(ticket.0),
                seed: Seed(seed.0),
                pieces: vec![piece],
                sealed: sealed.text.parse()?,
                unsealed,
            };
            let sector = SectorRef { id, proof };
            let (replica, cache) = (FileType::Sealed, FileType::Cache);
            Ok(Asked { sector, replica, cache, work: TaskInput::Commit1(input) })
        }
    }
}

/// Go's `http.Error`: status 500 and the text on a line.
fn text(message: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{message}\n")).into_response()
}
