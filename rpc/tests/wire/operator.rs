//! What operators control, over the wire and back, for admins only.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rpc::operator::{
    AbortOutcome, AbortView, CapView, CapsTarget, CapsView, NAME_MAX, PriorityView, Removal, RestTask,
    WorkerMode, WorkerRest,
};
use rpc::subject::Subject;
use rpc::{ApiResult, ManagerClient, OperatorApi, Permission, Secret, SectorName, Transport};
use sealtasks::{CapSpec, SectorNumber, TaskId, TaskType, WorkerId};
use serde_json::json;

use crate::framing::post;
use crate::{fakes, sample};

/// Notes what it is asked.
#[derive(Default)]
struct FakeOperator(Mutex<Vec<String>>);

impl FakeOperator {
    fn note(&self, asked: String) {
        self.0.lock().unwrap().push(asked);
    }
}

fn rest() -> WorkerRest {
    let task = RestTask {
        attempt: sample::attempt(),
        sector: SectorNumber::new(42).into(),
        task: TaskType::PreCommit1,
        stage: "running".into(),
    };
    WorkerRest {
        name: "big-box".into(),
        url: "http://10.0.0.7:3456/rpc/v0".into(),
        session: Some(WorkerId(sample::SESSION)),
        mode: WorkerMode::Draining,
        tasks: vec![task],
        waiting: 3,
        nowhere: vec![TaskId::new(7)],
        between_tasks: 1,
        expected_end_ms: Some(9),
    }
}

fn caps() -> CapsView {
    let group = "PC2+C2".parse().unwrap();
    let cap = CapView { group, running: 1, most: None, origin: "operator".into(), overruled: None };
    CapsView { name: "rack-7".into(), machine: true, caps: vec![cap] }
}

fn priority() -> PriorityView {
    PriorityView { subject: "sector 42".into(), before: 0, priority: -5, tasks: 1 }
}

fn aborted() -> AbortView {
    AbortView {
        attempt: sample::attempt(),
        subject: "PC1 of sector 42".into(),
        worker: Some("w1".into()),
        outcome: AbortOutcome::Detached,
    }
}

#[async_trait]
impl OperatorApi for FakeOperator {
    async fn set_worker_mode(&self, worker: String, mode: WorkerMode, by: String) -> ApiResult<WorkerRest> {
        self.note(format!("{} {worker} {by}", mode.word()));
        Ok(rest())
    }

    async fn worker_rest(&self, worker: String) -> ApiResult<WorkerRest> {
        self.note(format!("rest of {worker}"));
        Ok(rest())
    }

    async fn change_caps(
        &self,
        target: CapsTarget,
        changes: Vec<CapSpec>,
        by: String,
    ) -> ApiResult<CapsView> {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        self.note(format!("{target:?} {} {by}", changes.join(" ")));
        Ok(caps())
    }

    async fn set_priority(&self, what: Subject, priority_: i64, by: String) -> ApiResult<PriorityView> {
        self.note(format!("{what} {priority_} {by}"));
        Ok(priority())
    }

    async fn remove_sector(&self, sector: SectorName, removal: Removal, by: String) -> ApiResult<()> {
        self.note(format!("remove {sector} {removal:?} {by}"));
        Ok(())
    }

    async fn abort(&self, what: Subject, by: String) -> ApiResult<AbortView> {
        self.note(format!("abort {what} {by}"));
        Ok(aborted())
    }
}

/// Where it is served, and a token for it.
async fn host(fake: &Arc<FakeOperator>, permission: Permission) -> (SocketAddr, String) {
    let secret = Secret::generate().unwrap();
    let token = secret.mint(&[permission]).unwrap();
    let methods = rpc::operator_methods(fake.clone());
    let router = rpc::rpc_router(methods, Arc::new(secret), rpc::PushStreams::new());
    (fakes::serve(router).await, token)
}

async fn client(fake: &Arc<FakeOperator>, permission: Permission) -> ManagerClient {
    let (address, token) = host(fake, permission).await;
    let info = rpc::ApiInfo { token: Some(token), address: format!("http://{address}").parse().unwrap() };
    ManagerClient::new(&info, Transport::Http).unwrap()
}

#[tokio::test]
async fn every_order_arrives_as_it_was_given_and_is_answered_in_full() {
    let fake = Arc::new(FakeOperator::default());
    let client = client(&fake, Permission::Admin).await;
    let by = || "root@here".to_owned();
    assert_eq!(client.set_worker_mode("w1".into(), WorkerMode::Draining, by()).await.unwrap(), rest());
    assert_eq!(client.worker_rest("w1".into()).await.unwrap(), rest());
    let changes = vec!["PC1=3".parse().unwrap(), "PC2+C2=none".parse().unwrap()];
    let target = CapsTarget::Machine("rack-7".into());
    assert_eq!(client.change_caps(target, changes, by()).await.unwrap(), caps());
    assert_eq!(client.set_priority("s-t01000-42".parse().unwrap(), -5, by()).await.unwrap(), priority());
    assert_eq!(client.abort("7.2".parse().unwrap(), by()).await.unwrap(), aborted());
    client.remove_sector(SectorNumber::new(42).into(), Removal::AlthoughOnChain, by()).await.unwrap();
    let asked = [
        "draining w1 root@here",
        "rest of w1",
        "Machine(\"rack-7\") PC1=3 PC2+C2=none root@here",
        "s-t01000-42 -5 root@here",
        "abort 7.2 root@here",
        "remove 42 AlthoughOnChain root@here",
    ];
    assert_eq!(*fake.0.lock().unwrap(), asked);
}

/// `lotus-miner sectors remove` calls this; what has money on chain needs Sealyard's own command and its explicit word.
#[tokio::test]
async fn lotus_s_name_for_a_removal_removes_nothing_that_is_on_chain() {
    let fake = Arc::new(FakeOperator::default());
    for (permission, done) in [(Permission::Sign, false), (Permission::Admin, true)] {
        let (address, token) = host(&fake, permission).await;
        let header = format!("Authorization: Bearer {token}");
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "Filecoin.SectorRemove", "params": [42]});
        let answer = post(address, "/rpc/v0", &[&header], &request.to_string()).await.json();
        assert_eq!(answer.get("result").is_some(), done, "{answer}");
    }
    let by = "a token with permission admin (SectorRemove)";
    assert_eq!(*fake.0.lock().unwrap(), [format!("remove 42 UnlessOnChain {by}")]);
}

#[tokio::test]
async fn without_admin_or_with_endless_names_nothing_is_asked() {
    let fake = Arc::new(FakeOperator::default());
    let error = client(&fake, Permission::Sign).await.worker_rest("w1".into()).await.unwrap_err();
    assert!(error.to_string().contains("missing permission"), "{error}");
    let long = "x".repeat(NAME_MAX + 1);
    let error = client(&fake, Permission::Admin).await.worker_rest(long).await.unwrap_err();
    assert!(error.to_string().contains("at most 1024"), "{error}");
    assert!(fake.0.lock().unwrap().is_empty());
}
