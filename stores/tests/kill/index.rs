//! The index as a process of its own, and the client to it: as much of the manager as a move needs.
//!
//! It forgets everything when it is killed; nodes then find another session and declare what they have.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sealtasks::{
    ActorId, FileType, FileTypes, FsStat, HealthReport, PathType, SectorDecl, SectorId, SectorSize,
    SectorStorageInfo, StorageId, StorageInfo,
};
use serde_json::{Value, json};
use stores::{CopyKind, Index, IndexError, MemIndex};

use super::support::{both, clock, id, info, room, sector};

/// Everything is about this path's room (bytes).
const ROOM: i64 = 1 << 42;

pub fn serve(port: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let index = Arc::new(MemIndex::new(clock().1));
        let session = format!("{:?}", std::time::SystemTime::now());
        let router = Router::new().route("/", post(answer)).with_state((index, session));
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("the port");
        axum::serve(listener, router).await.expect("served");
    });
}

type Served = (Arc<MemIndex>, String);

async fn answer(State((index, session)): State<Served>, body: Bytes) -> String {
    let asked: Value = serde_json::from_slice(&body).expect("our own words");
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let bits = asked["types"].as_u64().unwrap_or(0);
    let types: FileTypes =
        FileType::ALL.into_iter().filter(|kind| bits & u64::from(kind.bit()) != 0).collect();
    let sector = sector(1).id;
    let done = match text("do").as_str() {
        "session" => Ok(json!(session)),
        "attach" => {
            let attached = index.attach(info(&text("id"), &text("url"), both()), room(ROOM)).await;
            attached.map(|()| Value::Null)
        }
        "declare" => {
            let copy = CopyKind::from(asked["primary"] == true);
            index.declare(&id(&text("id")), sector, types, copy).await.map(|()| Value::Null)
        }
        "drop" => index.drop_files(&id(&text("id")), sector, types).await.map(|()| Value::Null),
        "find" => index.find(sector, types, None).await.map(|found| {
            found.into_iter().map(|one| json!([one.id.as_str(), one.base_urls, one.primary])).collect()
        }),
        "best" => {
            let found = index.best_alloc(types, SectorSize::KiB2, PathType::Sealing, sector.miner).await;
            found.map(|all| all.into_iter().map(|one| json!([one.id.as_str(), one.urls])).collect())
        }
        other => panic!("{other} is none of our words"),
    };
    done.unwrap_or_else(|error| json!({ "error": error.to_string() })).to_string()
}

/// The index as a node reaches it.
pub struct Far {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Far {
    pub fn new(port: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: format!("http://127.0.0.1:{port}/"), client }
    }

    /// The names of the storage paths that are declared to hold the directory.
    pub async fn holders(&self) -> Vec<String> {
        let found = self.find(sector(1).id, FileTypes::CACHE, None).await.unwrap_or_default();
        found.into_iter().map(|one| one.id.as_str().to_owned()).collect()
    }

    pub async fn session(&self) -> Option<String> {
        self.ask(json!({ "do": "session" })).await.ok()?.as_str().map(str::to_owned)
    }

    async fn ask(&self, words: Value) -> Result<Value, IndexError> {
        let far = |error: Box<dyn std::error::Error + Send + Sync>| IndexError::Remote(error);
        let request =
            Request::post(&self.url).body(Full::from(words.to_string())).map_err(|e| far(e.into()))?;
        let answer = self.client.request(request).await.map_err(|error| far(error.into()))?;
        let body = Body::new(answer.into_body()).collect().await.map_err(|error| far(error.into()))?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|error| far(error.into()))?;
        match value["error"].as_str() {
            Some(error) => Err(far(error.to_owned().into())),
            None => Ok(value),
        }
    }
}

fn urls(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|url| url.as_str().map(str::to_owned)).collect()
}

#[async_trait]
impl Index for Far {
    async fn attach(&self, info: StorageInfo, _: FsStat) -> Result<(), IndexError> {
        self.ask(json!({ "do": "attach", "id": info.id.as_str(), "url": info.urls[0] })).await.map(drop)
    }

    async fn detach(&self, _: &StorageId, _: &str) -> Result<(), IndexError> {
        Ok(())
    }

    async fn info(&self, id: &StorageId) -> Result<StorageInfo, IndexError> {
        Err(IndexError::UnknownStorage { id: id.clone() })
    }

    async fn report_health(&self, _: &StorageId, _: HealthReport) -> Result<(), IndexError> {
        Ok(())
    }

    async fn declare(
        &self,
        id: &StorageId,
        _: SectorId,
        types: FileTypes,
        copy: CopyKind,
    ) -> Result<(), IndexError> {
        let primary = copy.is_primary();
        let words = json!({ "do": "declare", "id": id.as_str(), "types": types.bits(), "primary": primary });
        self.ask(words).await.map(drop)
    }

    async fn declare_batch(&self, id: &StorageId, files: &[(SectorDecl, bool)]) -> Result<(), IndexError> {
        for (file, primary) in files {
            self.declare(id, file.sector, file.types, CopyKind::from(*primary)).await?;
        }
        Ok(())
    }

    async fn files(&self, _: &StorageId) -> Result<Vec<SectorDecl>, IndexError> {
        Ok(Vec::new())
    }

    async fn drop_files(&self, id: &StorageId, _: SectorId, types: FileTypes) -> Result<(), IndexError> {
        self.ask(json!({ "do": "drop", "id": id.as_str(), "types": types.bits() })).await.map(drop)
    }

    async fn find(
        &self,
        sector: SectorId,
        types: FileTypes,
        _: Option<SectorSize>,
    ) -> Result<Vec<SectorStorageInfo>, IndexError> {
        let found = self.ask(json!({ "do": "find", "types": types.bits() })).await?;
        let one = |value: &Value| {
            let base_urls = urls(&value[1]);
            SectorStorageInfo {
                id: id(value[0].as_str().unwrap_or_default()),
                urls: base_urls.iter().map(|base| format!("{base}/{types}/{sector}")).collect(),
                base_urls,
                weight: 10,
                can_seal: true,
                can_store: true,
                primary: value[2] == true,
                filters: both().filters,
            }
        };
        Ok(found.as_array().into_iter().flatten().map(one).collect())
    }

    async fn best_alloc(
        &self,
        types: FileTypes,
        _: SectorSize,
        _: PathType,
        _: ActorId,
    ) -> Result<Vec<StorageInfo>, IndexError> {
        let found = self.ask(json!({ "do": "best", "types": types.bits() })).await?;
        let one = |value: &Value| StorageInfo {
            id: id(value[0].as_str().unwrap_or_default()),
            urls: urls(&value[1]),
            stanza: both(),
        };
        Ok(found.as_array().into_iter().flatten().map(one).collect())
    }
}
