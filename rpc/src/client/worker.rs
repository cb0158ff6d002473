//! A worker on another machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use sealtasks::{
    AttemptId, CallId, PathOrder, PathReport, PieceSource, ScrubOrder, ScrubbedFile, SectorId, StorageId,
    TaskInput, TaskType, TransferChange, TransferReport, WorkerId,
};
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use url::Url;
use uuid::Uuid;

use super::peer::Peer;
use super::{Caller, ClientError, NO_PARAMS, http, unsendable};
use crate::api::{ApiResult, Job, Missing, StoragePath, WorkerApi, WorkerInfo};
use crate::api_info::{Transport, with_scheme};
use crate::beat::{Beat, Beaten, BeatenShape};
use crate::error::ApiError;
use crate::extension::{ExecutorSetting, GpuShare, Hello, WorkerState};
use crate::mark::Mark;
use crate::push_sender::{Pushed, push, push_url};
use crate::reader::{PieceData, PieceStream, ReaderParam};
use crate::tls::Trust;
use crate::token::random_bytes;
use crate::wire::{self, task};

/// Calls a worker, Sealyard or Lotus.
pub struct WorkerClient {
    peer: Peer,
    /// The worker's RPC endpoint over HTTP, beside which its push endpoint lies.
    push_base: Url,
    pusher: reqwest::Client,
}

impl WorkerClient {
    /// `url` is what the worker gave to WorkerConnect, for example `http://10.0.0.7:3456/rpc/v0`; its scheme is changed
    /// as `transport` needs. Checked with the machine's authorities where it speaks TLS. Opens no connection yet.
    ///
    /// # Errors
    /// The URL's scheme or the token cannot be used.
    pub fn new(url: &Url, token: Option<String>, transport: Transport) -> Result<Self, ClientError> {
        Self::trusting(url, token, transport, &Trust::system(), &Mark::default())
    }

    /// As [`WorkerClient::new`], with the authorities of `trust`; the worker is told that the caller is the manager of `mark`.
    ///
    /// # Errors
    /// The URL's scheme or the token cannot be used.
    pub fn trusting(
        url: &Url,
        token: Option<String>,
        transport: Transport,
        trust: &Trust,
        mark: &Mark,
    ) -> Result<Self, ClientError> {
        let push_base = with_scheme(url, Transport::Http).map_err(|source| ClientError::Url { source })?;
        Ok(Self {
            peer: Peer::new(Caller::new(url, token, transport, trust, mark)?),
            push_base,
            // Its own client: the endpoint takes no token, so none is sent.
            pusher: http::builder(trust).build().map_err(|source| ClientError::Http { source })?,
        })
    }

    fn caller(&self) -> &Caller {
        &self.peer.caller
    }

    /// The reader parameter for these bytes, and the push that goes with it if they are a stream.
    fn offer(
        &self,
        work: &TaskInput,
        data: Option<PieceData>,
    ) -> ApiResult<(Option<ReaderParam>, Option<Push>)> {
        let (size, source) = match work {
            TaskInput::AddPiece(input) => (input.size, input.source),
            TaskInput::DataCid(input) => (input.size, input.source),
            _ => return Ok((None, None)),
        };
        match (source, data) {
            (PieceSource::Zeros, _) | (PieceSource::Stream, Some(PieceData::Zeros)) => {
                Ok((Some(ReaderParam::Null(size.to_string())), None))
            }
            (PieceSource::Stream, Some(PieceData::Url(url))) => Ok((Some(ReaderParam::Http(url)), None)),
            (PieceSource::Stream, Some(PieceData::Stream(stream))) => {
                let bytes =
                    random_bytes().map_err(|error| ApiError::refused(format!("/dev/urandom: {error}")))?;
                let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
                Ok((Some(ReaderParam::Push(id)), Some(self.push(id, stream))))
            }
            (PieceSource::Stream, None) => {
                Err(ApiError::refused("not sent: the task takes a stream of bytes, but none was given"))
            }
        }
    }

    /// The same call, named by its attempt. A worker that cannot be told its GPUs uses those that its environment names.
    async fn start_attempt(
        &self,
        attempt: AttemptId,
        method: &str,
        params: &RawValue,
        gpus: &[GpuShare],
    ) -> ApiResult<Box<RawValue>> {
        let (attempt, short) = (attempt.to_string(), method.trim_start_matches("Filecoin."));
        if !gpus.is_empty() {
            let answer = self.caller().call("Sealyard.StartOn", &(&attempt, short, params, gpus)).await;
            if !answer.as_ref().is_err_and(ApiError::is_method_not_found) {
                return answer;
            }
        }
        self.caller().call("Sealyard.Start", &(attempt, short, params)).await
    }

    /// Starts to offer the bytes; the worker's endpoint holds the offer until the call arrives.
    fn push(&self, id: Uuid, stream: PieceStream) -> Push {
        let (client, to) = (self.pusher.clone(), push_url(&self.push_base, id));
        Push(Some(tokio::spawn(async move {
            match push(&client, to, stream).await {
                Ok(Pushed::Sent) => tracing::debug!(%id, "piece sent"),
                Ok(Pushed::Unread) => {
                    tracing::warn!(%id, "the worker closed the piece's stream without reading it")
                }
                Err(error) => {
                    let error = crate::error::chain(&error);
                    tracing::warn!(%id, error, "piece not sent");
                }
            }
        })))
    }
}

/// A push under way, stopped when the call that names it fails or is given up.
struct Push(Option<JoinHandle<()>>);

impl Push {
    /// The call was accepted: the push goes on by itself.
    fn detach(mut self) {
        self.0.take();
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

#[async_trait]
impl WorkerApi for WorkerClient {
    async fn version(&self) -> ApiResult<u32> {
        self.caller().call("Filecoin.Version", &NO_PARAMS).await
    }

    async fn session(&self) -> ApiResult<WorkerId> {
        self.caller().call("Filecoin.Session", &NO_PARAMS).await
    }

    async fn process_session(&self) -> ApiResult<WorkerId> {
        self.caller().call("Filecoin.ProcessSession", &NO_PARAMS).await
    }

    async fn info(&self) -> ApiResult<WorkerInfo> {
        self.caller().call_as::<wire::worker::WorkerInfo, _, _>("Filecoin.Info", &NO_PARAMS).await
    }

    async fn task_types(&self) -> ApiResult<BTreeSet<TaskType>> {
        let tasks: Option<wire::worker::TaskTypes> =
            self.caller().call("Filecoin.TaskTypes", &NO_PARAMS).await?;
        Ok(tasks.unwrap_or_default().into())
    }

    async fn paths(&self) -> ApiResult<Vec<StoragePath>> {
        self.caller().call_list::<wire::worker::StoragePath, _, _>("Filecoin.Paths", &NO_PARAMS).await
    }

    async fn start(&self, job: Job) -> ApiResult<CallId> {
        let as_attempt = match job.attempt {
            Some(attempt) if self.peer.is_sealyard().await? => Some(attempt),
            _ => None,
        };
        let (reader, push) = self.offer(&job.work, job.data)?;
        let (method, params) = task::encode(job.sector, job.work, reader).map_err(unsendable)?;
        let call = match as_attempt {
            None => self.caller().call_raw(method, params).await,
            Some(attempt) => {
                let answer = self.start_attempt(attempt, method, &params, &job.gpus).await;
                if self.peer.turned_lotus(&answer) {
                    self.caller().call_raw(method, params).await
                } else {
                    answer
                }
            }
        }?;
        let call: wire::sector::CallId =
            serde_json::from_str(call.get()).map_err(|error| super::malformed(method, &error))?;
        if let Some(push) = push {
            push.detach();
        }
        Ok(call.into())
    }

    async fn abort(&self, call: CallId) -> ApiResult<()> {
        self.caller().tell("Sealyard.Abort", &(wire::sector::CallId::from(call),)).await
    }

    async fn task_enable(&self, task: TaskType) -> ApiResult<()> {
        self.caller().tell("Filecoin.TaskEnable", &(task,)).await
    }

    async fn task_disable(&self, task: TaskType) -> ApiResult<()> {
        self.caller().tell("Filecoin.TaskDisable", &(task,)).await
    }

    async fn remove(&self, sector: SectorId) -> ApiResult<()> {
        self.caller().tell("Filecoin.Remove", &(wire::sector::SectorId::from(sector),)).await
    }

    async fn storage_local(&self) -> ApiResult<BTreeMap<StorageId, PathBuf>> {
        Ok(self.caller().call::<_, Option<_>>("Filecoin.StorageLocal", &NO_PARAMS).await?.unwrap_or_default())
    }

    async fn storage_add_local(&self, path: PathBuf) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageAddLocal", &(path,)).await
    }

    async fn storage_detach_local(&self, path: PathBuf) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageDetachLocal", &(path,)).await
    }

    async fn storage_detach_all(&self) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageDetachAll", &NO_PARAMS).await
    }

    async fn storage_redeclare_local(&self, path: Option<StorageId>, missing: Missing) -> ApiResult<()> {
        self.caller().tell("Filecoin.StorageRedeclareLocal", &(path, missing == Missing::Drop)).await
    }

    async fn enabled(&self) -> ApiResult<bool> {
        self.caller().call("Filecoin.Enabled", &NO_PARAMS).await
    }

    async fn set_enabled(&self, enabled: bool) -> ApiResult<()> {
        self.caller().tell("Filecoin.SetEnabled", &(enabled,)).await
    }

    async fn wait_quiet(&self) -> ApiResult<()> {
        self.caller().tell("Filecoin.WaitQuiet", &NO_PARAMS).await
    }

    async fn shutdown(&self) -> ApiResult<()> {
        self.caller().tell("Filecoin.Shutdown", &NO_PARAMS).await
    }

    async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        self.peer.hello(hello).await
    }

    async fn state(&self) -> ApiResult<WorkerState> {
        self.caller().call("Sealyard.State", &NO_PARAMS).await
    }

    async fn beat(&self, beat: Beat) -> ApiResult<Beaten> {
        self.caller().call_as::<BeatenShape, _, _>("Sealyard.Beat", &(beat,)).await
    }

    async fn settings(&self) -> ApiResult<Vec<ExecutorSetting>> {
        self.caller().call("Sealyard.Settings", &NO_PARAMS).await
    }

    async fn path_order(&self, order: PathOrder) -> ApiResult<PathReport> {
        self.caller().call("Sealyard.OrderPaths", &(order,)).await
    }

    async fn scrub(&self, order: ScrubOrder) -> ApiResult<Vec<ScrubbedFile>> {
        self.caller().call("Sealyard.Scrub", &(order,)).await
    }

    async fn transfers(&self, change: TransferChange) -> ApiResult<TransferReport> {
        self.caller().call("Sealyard.Transfers", &(change,)).await
    }
}
