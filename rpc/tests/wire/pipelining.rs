//! Orders to a pipeline, over the wire and back, for admins only. Data goes another way: the manager's HTTP route.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rpc::operator::NAME_MAX;
use rpc::pipelining::{
    Batch, Flushed, Lost, Payers, PieceAdded, PieceParts, PledgingView, RoomView, RoomWish, WantedPiece,
};
use rpc::{ApiError, ApiResult, ManagerClient, Permission, PipelineApi, Secret, SectorName, Transport};
use sealtasks::{
    ActorId, Commitment, PieceInfo, RegisteredSealProof, SealedCid, SectorId, SectorNumber, SectorRef,
    SectorSize, Ticket,
};
use serde_json::{Value, json};

use crate::fakes;
use crate::framing::post;

/// Notes what it is asked.
#[derive(Default)]
struct FakePipeline(Mutex<Vec<String>>);

fn view() -> PledgingView {
    PledgingView {
        keep: 10,
        in_pipeline: 9,
        parked: 1,
        paused: true,
        waits_for: "paused".to_owned(),
        summary: "pledging is paused".to_owned(),
        change: "resume it".to_owned(),
    }
}

fn room() -> RoomView {
    let awaited = "path X is not back".to_owned();
    RoomView { sectors: 3, at_once: 2, sealing_bytes: 40, storing_bytes: 9, sealing: 1, storing: 3, awaited }
}

fn flushed() -> Vec<Flushed> {
    let sectors = |numbers: &[u64]| numbers.iter().copied().map(SectorNumber::new).collect();
    vec![
        Flushed { sectors: sectors(&[7, 8]), message: Some("bafy2bza".to_owned()), error: String::new() },
        Flushed { sectors: sectors(&[9]), message: None, error: "the base fee".to_owned() },
    ]
}

#[async_trait]
impl PipelineApi for FakePipeline {
    async fn add_piece(
        &self,
        _: Option<SectorName>,
        _: Option<ActorId>,
        _: PieceParts,
    ) -> ApiResult<PieceAdded> {
        Err(ApiError::refused("no method takes data"))
    }

    async fn start_sealing(&self, sector: SectorName) -> ApiResult<()> {
        self.0.lock().unwrap().push(format!("start {sector}"));
        Ok(())
    }

    async fn update_state(&self, sector: SectorName, state: String) -> ApiResult<()> {
        self.0.lock().unwrap().push(format!("{sector} into {state}"));
        Ok(())
    }

    async fn rebuild(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<()> {
        self.0.lock().unwrap().push(format!("rebuild {sector} from {lost:?}"));
        Ok(())
    }

    async fn rebuild_pieces(&self, sector: SectorName, lost: Option<Lost>) -> ApiResult<Vec<WantedPiece>> {
        self.0.lock().unwrap().push(format!("pieces of {sector}"));
        let wanted = |piece| WantedPiece { piece, given: false, needed: true };
        Ok(lost.into_iter().flat_map(|lost| lost.pieces).map(wanted).collect())
    }

    async fn rebuild_room(&self, wish: RoomWish) -> ApiResult<RoomView> {
        self.0.lock().unwrap().push(format!("room for {wish:?}"));
        Ok(room())
    }

    async fn give_piece(&self, _sector: SectorName, _piece: PieceInfo, _data: PieceParts) -> ApiResult<()> {
        Err(ApiError::refused("no method takes data"))
    }

    async fn pledging(&self) -> ApiResult<PledgingView> {
        Ok(view())
    }

    async fn pause_pledging(&self, paused: bool, by: String) -> ApiResult<PledgingView> {
        self.0.lock().unwrap().push(format!("paused {paused} {by}"));
        Ok(view())
    }

    async fn batched(&self, batch: Batch) -> ApiResult<Vec<SectorId>> {
        self.0.lock().unwrap().push(format!("batched {batch:?}"));
        Ok(vec![SectorId::new(1000, 7)])
    }

    async fn flush(&self, batch: Batch) -> ApiResult<Vec<Flushed>> {
        self.0.lock().unwrap().push(format!("flush {batch:?}"));
        Ok(flushed())
    }

    async fn payers(&self) -> ApiResult<Payers> {
        Ok(payers())
    }
}

fn payers() -> Payers {
    Payers { pre_commit: Vec::new(), commit: vec!["f0102".to_owned(), "f3abc".to_owned()] }
}

/// Where it is served, and a token for it.
async fn host(fake: &Arc<FakePipeline>, permission: Permission) -> (SocketAddr, String) {
    let secret = Secret::generate().unwrap();
    let token = secret.mint(&[permission, Permission::Read]).unwrap();
    let methods = rpc::pipeline_methods(fake.clone());
    let router = rpc::rpc_router(methods, Arc::new(secret), rpc::PushStreams::new());
    (fakes::serve(router).await, token)
}

async fn client(fake: &Arc<FakePipeline>, permission: Permission) -> ManagerClient {
    let (address, token) = host(fake, permission).await;
    let info = rpc::ApiInfo { token: Some(token), address: format!("http://{address}").parse().unwrap() };
    ManagerClient::new(&info, Transport::Http).unwrap()
}

/// As Lotus has it: the failed sectors are of commits alone, and nil.
#[tokio::test]
async fn what_goes_in_batches_is_told_and_sent_in_lotus_s_shapes() {
    let fake = Arc::new(FakePipeline::default());
    let (address, token) = host(&fake, Permission::Admin).await;
    let header = format!("Authorization: Bearer {token}");
    let ask = async |method: &str| {
        let request =
            json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": []});
        post(address, "/rpc/v0", &[&header], &request.to_string()).await.result()
    };
    let gone = |failed: Option<Value>| {
        let mut all = [
            json!({"Sectors": [7, 8], "Msg": {"/": "bafy2bza"}, "Error": ""}),
            json!({"Sectors": [9], "Msg": null, "Error": "the base fee"}),
        ];
        failed.iter().for_each(|failed| all.iter_mut().for_each(|one| one["FailedSectors"] = failed.clone()));
        Value::from(all.to_vec())
    };
    for method in ["SectorPreCommitPending", "SectorCommitPending"] {
        assert_eq!(ask(method).await, json!([{"Miner": 1000, "Number": 7}]));
    }
    assert_eq!(ask("SectorPreCommitFlush").await, gone(None));
    assert_eq!(ask("SectorCommitFlush").await, gone(Some(Value::Null)));
    let paying = json!({
        "PreCommitControl": null, "CommitControl": ["f0102", "f3abc"], "TerminateControl": null, "DealPublishControl": null,
        "DisableOwnerFallback": true, "DisableWorkerFallback": false,
    });
    assert_eq!(ask("ActorAddressConfig").await, paying);
    let client = client(&fake, Permission::Admin).await;
    assert_eq!(client.payers().await.unwrap(), payers());
    for batch in [Batch::PreCommit, Batch::Commit] {
        assert_eq!(client.batched(batch).await.unwrap(), [SectorId::new(1000, 7)]);
        assert_eq!(client.flush(batch).await.unwrap(), flushed());
    }
    let asked = fake.0.lock().unwrap().clone();
    let asked_for = |what: &str| asked.iter().filter(|line| *line == what).count();
    for what in ["batched PreCommit", "batched Commit", "flush PreCommit", "flush Commit"] {
        assert_eq!(asked_for(what), 2, "{asked:?}");
    }
}

#[tokio::test]
async fn every_order_arrives_as_it_was_given() {
    let fake = Arc::new(FakePipeline::default());
    let client = client(&fake, Permission::Admin).await;
    client.start_sealing(SectorNumber::new(7).into()).await.unwrap();
    client.update_state(SectorNumber::new(7).into(), "PreCommit1".to_owned()).await.unwrap();
    assert_eq!(client.pause_pledging(true, "root@here".to_owned()).await.unwrap(), view());
    assert_eq!(client.pledging().await.unwrap(), view());
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let sector = SectorRef { id: SectorId::new(1000, 7), proof };
    let sealed = SealedCid::new(Commitment::new([4; 32]));
    let pieces = vec![PieceInfo::new(256.try_into().unwrap(), Commitment::new([5; 32]))];
    let lost = Some(Lost { sector, ticket: Ticket([3; 32]), sealed, pieces: pieces.clone() });
    let wanted = client.rebuild_pieces(SectorNumber::new(7).into(), lost.clone()).await.unwrap();
    assert_eq!(wanted.iter().map(|wanted| wanted.piece).collect::<Vec<_>>(), pieces);
    let wish = RoomWish { sectors: vec![(SectorId::new(1000, 7), true)], at_once: 2 };
    assert_eq!(client.rebuild_room(wish.clone()).await.unwrap(), room());
    client.rebuild(SectorNumber::new(7).into(), lost.clone()).await.unwrap();
    client.rebuild(SectorId::new(2000, 8).into(), None).await.unwrap();
    let orders = [
        "start 7".to_owned(),
        "7 into PreCommit1".to_owned(),
        "paused true root@here".to_owned(),
        "pieces of 7".to_owned(),
        format!("room for {wish:?}"),
        format!("rebuild 7 from {lost:?}"),
        "rebuild f02000/8 from None".to_owned(),
    ];
    assert_eq!(*fake.0.lock().unwrap(), orders);
}

/// `lotus-miner sectors seal` and `sectors update-state` call these.
#[tokio::test]
async fn lotus_s_names_for_start_and_state_do_the_same() {
    let fake = Arc::new(FakePipeline::default());
    let (address, token) = host(&fake, Permission::Write).await;
    let header = format!("Authorization: Bearer {token}");
    let call = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": params})
            .to_string()
    };
    let start = call("SectorStartSealing", json!([7]));
    assert_eq!(post(address, "/rpc/v0", &[&header], &start).await.result(), Value::Null);
    let update = call("SectorsUpdate", json!([7, "Packing"]));
    let refused = post(address, "/rpc/v0", &[&header], &update).await;
    assert!(refused.error().1.contains("missing permission"), "{}", refused.body);
    let (address, token) = host(&fake, Permission::Admin).await;
    let header = format!("Authorization: Bearer {token}");
    assert_eq!(post(address, "/rpc/v0", &[&header], &update).await.result(), Value::Null);
    assert_eq!(*fake.0.lock().unwrap(), ["start 7", "7 into Packing"]);
}

#[tokio::test]
async fn without_admin_or_with_endless_words_nothing_is_changed() {
    let fake = Arc::new(FakePipeline::default());
    let error =
        client(&fake, Permission::Sign).await.start_sealing(SectorNumber::new(7).into()).await.unwrap_err();
    assert!(error.to_string().contains("missing permission"), "{error}");
    let long = "x".repeat(NAME_MAX + 1);
    let client = client(&fake, Permission::Admin).await;
    let error = client.update_state(SectorNumber::new(7).into(), long).await.unwrap_err();
    assert!(error.to_string().contains("at most 1024"), "{error}");
    assert!(fake.0.lock().unwrap().is_empty());
}
