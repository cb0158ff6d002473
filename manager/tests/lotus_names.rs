//! What the manager itself, not a stand-in for it, answers to calls by Lotus's names that `lotus-miner` makes beside those of
//! workers: a sector's messages, who pays, a removal; and what it refuses, with the reason.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chain::sending::Sending;
use manager::Verifier;
use rpc::Permission;
use sealtasks::{SectorNumber, SectorRef, VerifyInput};
use serde_json::{Value, json};
use standin::StandInNode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use world::fake_worker::{FakeWorker, Plan};
use world::{ALL, World, world_judged, world_with};
use yard::{AT_ONCE, chain, land, pledge, state};

/// The manager's port, and a token for it.
struct Door {
    port: u16,
    token: String,
}

impl Door {
    async fn of(world: &World, permissions: &[Permission]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let router = world.handle.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, token: world.handle.repo().secret().mint(permissions).expect("a token") }
    }

    /// The result, or the code and the words of the refusal.
    async fn call(&self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = format!(
            "POST /rpc/v0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        let read = tokio::time::timeout(world::LIMIT, stream.read_to_string(&mut answer));
        read.await.expect("in time").expect("text");
        let answer = answer.split_once("\r\n\r\n").expect("a head").1;
        let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let error = &answer["error"];
        match error["code"].as_i64() {
            Some(code) => Err((code, error["message"].as_str().expect("words").to_owned())),
            None => Ok(answer["result"].clone()),
        }
    }

    async fn status(&self) -> Value {
        self.call("Filecoin.SectorsStatus", json!([1, false])).await.expect("a status")
    }

    async fn refused(&self, method: &str, params: Value) -> String {
        let (code, words) = self.call(method, params).await.expect_err(method);
        assert_eq!(code, 1, "{method}: {words}");
        words
    }
}

/// Says these in turn, and then yes.
struct Judge(Mutex<VecDeque<bool>>);

#[async_trait]
impl Verifier for Judge {
    async fn verify(&self, _sector: SectorRef, _input: VerifyInput) -> Result<bool, String> {
        Ok(self.0.lock().expect("no panic elsewhere").pop_front().unwrap_or(true))
    }
}

#[tokio::test]
async fn a_sector_s_status_has_its_messages_and_how_often_its_proof_was_invalid() {
    let node = StandInNode::start(standin::World::new()).await;
    let judge = Arc::new(Judge(Mutex::new([false].into())));
    let world = world_judged(chain(&node, Sending::On).await, AT_ONCE, judge).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    let door = Door::of(&world, &Permission::ALL).await;
    let told = async || {
        let status = door.status().await;
        ["PreCommitMsg", "CommitMsg", "Retries"].map(|key| status[key].clone())
    };
    let message = |number: u64| json!({"/": format!("bafy2bzacestandinmessage{number}")});
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(told().await, [message(41), Value::Null, json!(0)]);
    land(&node);
    state(&world, 1, "ComputeProofFailed").await;
    assert_eq!(told().await, [message(41), Value::Null, json!(1)]);
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
    let proven = state(&world, 1, "Proving").await;
    assert_eq!(told().await, [message(41), message(42), json!(0)]);
    let ours = (proven.pre_commit_message.as_deref(), proven.commit_message.as_deref());
    assert_eq!(ours, (Some("bafy2bzacestandinmessage41"), Some("bafy2bzacestandinmessage42")));

    // Lotus's command has no word for what is on chain.
    let words = door.refused("Filecoin.SectorRemove", json!([1])).await;
    assert!(words.contains("MGR190") && words.contains("--although-on-chain"), "{words}");
    assert_eq!(door.status().await["State"], "Proving");
    world.handle.stop().await;
}

#[tokio::test]
async fn a_sector_of_which_nothing_is_on_chain_is_removed_by_an_admin_s_token() {
    let world = world_with("").await;
    let [admin, writer] = [
        Door::of(&world, &Permission::ALL).await,
        Door::of(&world, &[Permission::Read, Permission::Write]).await,
    ];
    pledge(&world, 1).await;
    world.sector(1, |sector| !sector.tasks.is_empty()).await;
    assert!(admin.refused("Filecoin.SectorRemove", json!([1])).await.contains("MGR121"), "it is worked on");
    world.operator.abort("1".parse().expect("a sector"), "root@here".to_owned()).await.expect("it is ended");
    let words = writer.refused("Filecoin.SectorRemove", json!([1])).await;
    assert!(words.contains("missing permission to invoke 'SectorRemove' (need 'admin')"), "{words}");
    assert_ne!(admin.status().await["State"], "Removed");
    assert_eq!(admin.call("Filecoin.SectorRemove", json!([1])).await, Ok(Value::Null));
    let status = admin.status().await;
    assert_eq!(status["State"], "Removed");
    assert!(
        status["Log"].to_string().contains("says a token with permission admin (SectorRemove)"),
        "{status:#}"
    );
    assert!(admin.refused("Filecoin.SectorRemove", json!([1])).await.contains("is removed already"));
}

#[tokio::test]
async fn who_pays_is_told_as_configured() {
    let world = world_with("[chain]\nprove_commit_from = [\"f0102\", \"f3abc\"]\n").await;
    let door = Door::of(&world, &[Permission::Read]).await;
    let expected = json!({
        "PreCommitControl": null, "CommitControl": ["f0102", "f3abc"], "TerminateControl": null, "DealPublishControl": null,
        "DisableOwnerFallback": true, "DisableWorkerFallback": false,
    });
    assert_eq!(door.call("Filecoin.ActorAddressConfig", json!([])).await, Ok(expected));
}

#[tokio::test]
async fn what_this_manager_does_not_do_is_refused_with_the_way_that_there_is() {
    let world = world_with("").await;
    let door = Door::of(&world, &Permission::ALL).await;
    pledge(&world, 1).await;
    let reader = json!({"Type": "null", "Info": "2032"});
    for (method, params, why) in [
        ("LogSetLevel", json!(["rpc", "debug"]), "RUST_LOG=info,rpc=debug sealyard run"),
        ("ComputeWindowPoSt", json!([0, []]), "RPC017: this manager makes no window PoSt"),
        ("SectorAddPieceToAny", json!([2032, reader, {}]), "`sealyard sectors add-piece`"),
        ("SectorSetSealDelay", json!([1]), "`sealyard sectors start-seal`"),
        ("SectorMarkForUpgrade", json!([1, true]), "needs a replica update"),
        ("SectorTerminate", json!([1]), "a message that this manager does not send"),
        ("SectorNumReserveCount", json!(["mine", 5]), "reserves none"),
    ] {
        let words = door.refused(&format!("Filecoin.{method}"), params).await;
        assert!(words.contains(why), "{method}: {words}");
    }
    // Each name that is listed is one that is known, whoever answers it: with too many parameters it says so.
    let document = door.call("Filecoin.Discover", json!([])).await.expect("a document");
    let listed = document["methods"].as_array().expect("methods");
    assert!(listed.len() > 100, "{}", listed.len());
    for method in listed {
        let name = method["name"].as_str().expect("a name");
        let (code, words) = door.call(name, json!(vec![0; 9])).await.expect_err(name);
        assert_eq!(code, -32602, "{name}: {words}");
    }
}
