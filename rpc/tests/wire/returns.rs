//! The eighteen returns: our forms, Go's forms, and the attempt that travels between Sealyards.

use rpc::api::{AttemptAccount, ReturnMethod, Returned};
use rpc::{ManagerApi as _, Permission, Transport};
use sealtasks::{CallError, CallErrorCode};

use crate::fakes::ManagerHost;
use crate::framing::post;
use crate::sample;

fn failure() -> CallError {
    CallError { code: CallErrorCode::TempWorkerRestart, message: "worker [name: w1] restarted".into() }
}

fn take(host: &ManagerHost) -> Vec<(sealtasks::CallId, Returned)> {
    std::mem::take(&mut host.fake.returned.lock().expect("no test panicked here"))
}

#[tokio::test]
async fn every_result_and_every_failure_arrives_as_it_was_returned() {
    for transport in [Transport::Http, Transport::Ws] {
        let host = ManagerHost::start().await;
        let client = host.client(transport);
        let failures = ReturnMethod::ALL.map(|method| (method, Err(failure())));
        let results = sample::outputs().into_iter().map(|(method, output)| (method, Ok(output)));
        let class = Some(sealtasks::FailureClass::Network);
        let account =
            AttemptAccount { started_ms: 1, ended_ms: 2, bytes_fetched: 3, peak_bytes: 4, cpu_ms: 5, class };
        for (method, result) in results.chain(failures) {
            for (attempt, account) in
                [(None, None), (Some(sample::attempt()), Some(account)), (None, Some(account))]
            {
                let returned = Returned { method, result: result.clone(), attempt, account };
                client.return_result(sample::call(), returned.clone()).await.unwrap();
                assert_eq!(take(&host), [(sample::call(), returned)]);
            }
        }
    }
}

#[tokio::test]
async fn to_a_lotus_manager_the_attempt_is_left_out() {
    let host = ManagerHost::start_with(|fake| fake.knows_hello = false).await;
    let returned = Returned {
        method: ReturnMethod::Fetch,
        result: Err(failure()),
        attempt: Some(sample::attempt()),
        account: None,
    };
    host.client(Transport::Http).return_result(sample::call(), returned.clone()).await.unwrap();
    assert_eq!(take(&host), [(sample::call(), Returned { attempt: None, ..returned })]);
}

/// The value that Go sends beside an error, by method; the methods that are not here send none.
const GO_ZEROS: [(ReturnMethod, &str); 10] = [
    (ReturnMethod::DataCid, r#"{"Size":0,"PieceCID":null}"#),
    (ReturnMethod::AddPiece, r#"{"Size":0,"PieceCID":null}"#),
    (ReturnMethod::SealPreCommit1, "null"),
    (ReturnMethod::SealPreCommit2, r#"{"Unsealed":null,"Sealed":null}"#),
    (ReturnMethod::SealCommit1, "null"),
    (ReturnMethod::SealCommit2, "null"),
    (ReturnMethod::ReplicaUpdate, r#"{"NewSealed":null,"NewUnsealed":null}"#),
    (ReturnMethod::ProveReplicaUpdate1, "null"),
    (ReturnMethod::ProveReplicaUpdate2, "null"),
    (ReturnMethod::ReadPiece, "false"),
];

const CALL: &str = r#"{"Sector":{"Miner":1000,"Number":42},"ID":"07554431-7f88-43b4-b2b7-c6a59f3e0001"}"#;
const ERROR: &str = r#"{"Code":101,"Message":"worker [name: w1] restarted"}"#;

async fn go(host: &ManagerHost, method: ReturnMethod, params: &str) -> crate::framing::Answer {
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":[{params}]}}"#, method.name());
    let header = format!("Authorization: Bearer {}", host.token(&[Permission::Admin]));
    post(host.address, "/rpc/v0", &[&header], &request).await
}

#[tokio::test]
async fn all_eighteen_failures_are_taken_as_go_writes_them() {
    let host = ManagerHost::start().await;
    for method in ReturnMethod::ALL {
        let zero = GO_ZEROS.iter().find(|(with, _)| *with == method);
        assert_eq!(zero.is_some(), method.has_value(), "{method:?}");
        let params = match zero {
            Some((_, zero)) => format!("{CALL},{zero},{ERROR}"),
            None => format!("{CALL},{ERROR}"),
        };
        assert!(go(&host, method, &params).await.result().is_null());
        let returned = Returned { method, result: Err(failure()), attempt: None, account: None };
        assert_eq!(take(&host), [(sample::call(), returned)], "{method:?}");
    }
}

#[tokio::test]
async fn all_eighteen_successes_are_taken_as_go_writes_them() {
    let host = ManagerHost::start().await;
    let piece = format!(r#"{{"Size":2048,"PieceCID":{{"/":"{}"}}}}"#, sample::comm_d());
    let cids =
        format!(r#"{{"Unsealed":{{"/":"{}"}},"Sealed":{{"/":"{}"}}}}"#, sample::comm_d(), sample::comm_r());
    let update = format!(
        r#"{{"NewSealed":{{"/":"{}"}},"NewUnsealed":{{"/":"{}"}}}}"#,
        sample::comm_r(),
        sample::comm_d()
    );
    for method in ReturnMethod::ALL {
        let value = match method {
            ReturnMethod::DataCid | ReturnMethod::AddPiece => Some(piece.as_str()),
            ReturnMethod::SealPreCommit2 => Some(cids.as_str()),
            ReturnMethod::ReplicaUpdate => Some(update.as_str()),
            ReturnMethod::ProveReplicaUpdate1 => Some(r#"["AQ==","Ag=="]"#),
            ReturnMethod::ReadPiece => Some("true"),
            _ if method.has_value() => Some(r#""AQ==""#),
            _ => None,
        };
        let params = match value {
            Some(value) => format!("{CALL},{value},null"),
            None => format!("{CALL},null"),
        };
        let answer = go(&host, method, &params).await;
        assert!(answer.result().is_null(), "{method:?} {answer:?}");
        let (call, returned) = take(&host).remove(0);
        assert_eq!((call, returned.method), (sample::call(), method));
        let known = sample::outputs().iter().any(|(with, _)| *with == method);
        match returned.result {
            Ok(_) => assert!(known, "{method:?}"),
            // Nobody here can use it; the worker is rid of it and the log tells.
            Err(error) => assert!(!known && error.message.contains("drops its result"), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_success_without_its_value_is_refused() {
    let host = ManagerHost::start().await;
    for (method, zero) in GO_ZEROS {
        let usable = !matches!(
            method,
            ReturnMethod::ReplicaUpdate
                | ReturnMethod::ProveReplicaUpdate1
                | ReturnMethod::ProveReplicaUpdate2
                | ReturnMethod::ReadPiece
        );
        let answer = go(&host, method, &format!("{CALL},{zero},null")).await;
        assert_eq!(answer.json().get("error").is_some(), usable, "{method:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_result_of_another_task_is_not_sent() {
    let host = ManagerHost::start().await;
    let (_, output) = sample::outputs().remove(0);
    let returned = Returned { method: ReturnMethod::Fetch, result: Ok(output), attempt: None, account: None };
    let error = host.client(Transport::Http).return_result(sample::call(), returned).await.unwrap_err();
    assert_eq!(error.code(), "RPC005");
    assert!(take(&host).is_empty());
}
