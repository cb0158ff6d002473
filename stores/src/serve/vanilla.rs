//! `POST /remote/vanilla/single` and `/remote/vanilla/porep`: proofs of the replicas that lie here, for a miner that proves
//! its sectors from afar. Requests, statuses and bodies are Lotus's; the work is done by a [`Prover`]. Never: holds a lock,
//! or writes a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
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
        Err(error) if access.is_admin() => return text(&crate::local::chain(&*error), None),
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
        Err(failure) => {
            tracing::warn!(%sector, ?kind, class = ?failure.class, message = failure.message, "not proven");
            text(&failure.message, Some(failure.class))
        }
    }
}

async fn prove(server: &Server, asked: Asked) -> Result<Vec<u8>, ExecutorFailure> {
    let broken = |message: String| ExecutorFailure { class: FailureClass::Environment, message };
    let Some(prover) = &server.prover else {
        return Err(broken(NO_PROVER.to_owned()));
    };
    let mut files = std::collections::BTreeMap::new();
    for (kind, role) in [(asked.replica, FileType::Sealed), (asked.cache, FileType::Cache)] {
        let found = server.local.file_path(asked.sector.id, kind).await;
        let found = found.map_err(|error| broken(crate::local::chain(&error)))?;
        let missing = || broken(StoreError::NotFound { sector: asked.sector.id, kind }.to_string());
        files.insert(role, found.ok_or_else(missing)?.1);
    }
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector: asked.sector,
        work: asked.work,
        files: SectorFiles(files),
    };
    let paths: Vec<PathBuf> = request.files.0.values().filter_map(|file| path_of(file)).collect();
    let made = Arc::clone(prover).prove(request).await;
    if let Err(failure) = &made
        && failure.class == FailureClass::BadData
        && let Some(away) = paths.iter().find(|path| !path.join(META_FILE).exists())
    {
        return Err(broken(format!("storage path {} is not mounted: {}", away.display(), failure.message)));
    }
    match made? {
        TaskOutput::Vanilla(proof) => Ok(proof.0),
        TaskOutput::Commit1(output) => Ok(output.0),
        _ => Err(broken("the executor did another task".to_owned())),
    }
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
fn text(message: &str, class: Option<FailureClass>) -> Response {
    let mut response = (StatusCode::INTERNAL_SERVER_ERROR, format!("{message}\n")).into_response();
    let class = class.and_then(|class| serde_json::to_value(class).ok());
    if let Some(class) = class.as_ref().and_then(|class| class.as_str()?.parse().ok()) {
        response.headers_mut().insert(FAILURE_HEADER, class);
    }
    response
}
