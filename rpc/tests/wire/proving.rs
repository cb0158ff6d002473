//! Whether sectors can be proven, over the wire and back, for admins only; and Lotus's `CheckProvable` in Go's bytes.

use std::sync::Arc;

use async_trait::async_trait;
use rpc::proving::{ProvingCopy, ProvingState, ProvingView, ProvingWish};
use rpc::{ApiError, ApiResult, ManagerClient, Permission, ProvingApi, Secret, Transport};
use sealtasks::{SectorId, SectorNumber, SectorRef, StorageId};

use crate::framing::post;
use crate::sample;

/// Finds every sector but number 42 bad.
struct FakeProver;

fn view() -> ProvingView {
    let (sealed, cache) = (sample::storage_id(), sample::missing_id());
    ProvingView {
        sector: sample::SECTOR,
        state: ProvingState::Bad,
        detail: "p_aux: it is missing".into(),
        paths: vec![sealed.clone(), cache.clone()],
        copies: vec![ProvingCopy {
            sealed,
            cache,
            url: "http://10.0.0.7:3456/remote".into(),
            state: ProvingState::NotSealed,
            detail: String::new(),
        }],
    }
}

#[async_trait]
impl ProvingApi for FakeProver {
    async fn check_provable(&self, wish: ProvingWish) -> ApiResult<ProvingView> {
        assert_eq!(wish, ProvingWish { sector: SectorNumber::new(42).into(), challenges: 7 });
        Ok(view())
    }

    async fn replicas_in(&self, path: StorageId) -> ApiResult<Vec<SectorId>> {
        if path == sample::storage_id() {
            Ok(vec![sample::SECTOR])
        } else {
            Err(ApiError::refused("no such path"))
        }
    }

    async fn unheld(&self) -> ApiResult<Vec<SectorId>> {
        Ok(vec![SectorId::new(2000, 9)])
    }

    async fn not_provable(&self, sectors: Vec<SectorRef>) -> ApiResult<Vec<(SectorNumber, String)>> {
        let bad = sectors.into_iter().filter(|sector| sector.id.number != sample::SECTOR.number);
        Ok(bad.map(|sector| (sector.id.number, format!("bad: {} is gone", sector.id))).collect())
    }
}

async fn host() -> (std::net::SocketAddr, Secret) {
    let secret = Secret::generate().expect("randomness");
    let methods = rpc::proving_methods(Arc::new(FakeProver));
    let router = rpc::rpc_router(methods, Arc::new(secret.clone()), rpc::PushStreams::new());
    (crate::serve(router).await, secret)
}

fn client(address: std::net::SocketAddr, secret: &Secret, permissions: &[Permission]) -> ManagerClient {
    let token = Some(secret.mint(permissions).expect("a token"));
    let address = rpc::api_info::ApiAddress::Multiaddr(rpc::multiaddr::Multiaddr::http(address));
    ManagerClient::new(&rpc::ApiInfo { token, address }, Transport::Http).expect("a client")
}

#[tokio::test]
async fn it_goes_over_the_wire_and_back() {
    let (address, secret) = host().await;
    let asked = client(address, &secret, &Permission::ALL);
    assert_eq!(asked.unheld().await.expect("told"), [SectorId::new(2000, 9)]);
    assert_eq!(asked.replicas_in(sample::storage_id()).await.expect("told"), [sample::SECTOR]);
    let error = asked.replicas_in(sample::missing_id()).await.expect_err("refused").to_string();
    assert!(error.contains("no such path"), "{error}");
    let wish = ProvingWish { sector: SectorNumber::new(42).into(), challenges: 7 };
    assert_eq!(asked.check_provable(wish.clone()).await.expect("told"), view());
    let other = SectorRef { id: SectorId::new(1000, 43), ..sample::sector_ref() };
    let told = asked.not_provable(vec![sample::sector_ref(), other]).await.expect("told");
    assert_eq!(told, [(SectorNumber::new(43), "bad: s-t01000-43 is gone".to_owned())]);
    assert_eq!(asked.not_provable(Vec::new()).await.expect("told"), []);
    let reader = client(address, &secret, &[Permission::Read, Permission::Write]);
    let error = reader.check_provable(wish).await.expect_err("refused").to_string();
    assert!(error.contains("missing permission to invoke 'CheckProvable' (need 'admin')"), "{error}");
}

#[tokio::test]
async fn go_asks_for_provable_sectors() {
    let (address, secret) = host().await;
    let token = secret.mint(&Permission::ALL).expect("a token");
    let header = format!("Authorization: Bearer {token}");
    let ask = async |params: &str| {
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"Filecoin.CheckProvable","params":{params}}}"#);
        post(address, "/rpc/v0", &[&header], &body).await.body
    };
    let one = |number: u64, proof: i64| {
        format!(r#"{{"ID":{{"Miner":1000,"Number":{number}}},"ProofType":{proof}}}"#)
    };
    let told = ask(&format!("[13,[{},{}]]", one(42, 8), one(7, 8))).await;
    assert!(told.contains(r#""result":{"7":"bad: s-t01000-7 is gone"}"#), "{told}");
    assert!(ask("[13,null]").await.contains(r#""result":{}"#));
    let told = ask("[15,[]]").await;
    assert!(told.contains("15 is no PoSt proof"), "{told}");
    let told = ask(&format!("[10,[{}]]", one(7, 8))).await;
    assert!(told.contains("PoSt proof 10 is for 2KiB sectors, and sector 7 has another size"), "{told}");
}
