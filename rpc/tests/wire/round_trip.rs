//! Every method through client and server, over both transports: what arrives is what was sent, and back.

use std::collections::BTreeMap;

use rpc::api::{Missing, PledgeOptions};
use rpc::storage::{CopyDeed, CopyState};
use rpc::{ApiError, Job, ManagerApi as _, Permission, Transport, WorkerApi as _};
use sealtasks::{
    ActorId, FileTypes, PathType, SectorId, SectorNumber, SectorSize, TaskInput, TaskType, WorkerId,
};
use uuid::Uuid;

use crate::fakes::{FakeWorker, ManagerHost, WorkerHost};
use crate::{explained, sample};

const BOTH: [Transport; 2] = [Transport::Http, Transport::Ws];

#[tokio::test]
async fn a_manager_answers_over_both_transports_what_it_answers_itself() {
    for transport in BOTH {
        let host = ManagerHost::start().await;
        let client = host.client(transport);
        assert_eq!(client.version().await.unwrap(), sample::manager_version());
        assert_eq!(client.session().await.unwrap(), sample::SESSION);
        assert_eq!(client.actor_address().await.unwrap(), ActorId::new(1000));
        assert_eq!(client.actor_sector_size(ActorId::new(1000)).await.unwrap(), SectorSize::GiB64);
        let token = client.auth_new(vec![Permission::Read, Permission::Sign]).await.unwrap();
        let allowed = client.auth_verify(token).await.unwrap();
        assert_eq!(allowed, [Permission::Read, Permission::Sign]);
        assert_eq!(client.storage_info(sample::storage_id()).await.unwrap(), sample::storage_info());
        let (types, size) = (FileTypes::UNSEALED, SectorSize::KiB2);
        let found = client.storage_find(sample::SECTOR, types, Some(size)).await.unwrap();
        assert_eq!(found, [sample::found()]);
        client.storage_find(sample::SECTOR, types, None).await.unwrap();
        let best =
            client.storage_best_alloc(types, size, PathType::Storage, ActorId::new(1000)).await.unwrap();
        assert_eq!(best, [sample::storage_info()]);
        let listed = client.storage_list().await.unwrap();
        let expected =
            BTreeMap::from([(sample::storage_id(), vec![sample::decl()]), (sample::missing_id(), vec![])]);
        assert_eq!(listed, expected);
        assert!(client.storage_try_lock(sample::SECTOR, FileTypes::SEALED, FileTypes::NONE).await.unwrap());
        assert_eq!(client.storage_files(sample::storage_id()).await.unwrap(), [sample::decl()]);
        assert_eq!(client.storage_get_locks().await.unwrap(), [sample::lock()]);
        assert_eq!(client.storage_local().await.unwrap()[&sample::storage_id()].to_str(), Some("/store"));
        assert_eq!(client.storage_stat(sample::storage_id()).await.unwrap(), sample::fs_stat());
        assert_eq!(client.worker_stats().await.unwrap()[&WorkerId(sample::SESSION)], sample::worker_stats());
        assert_eq!(client.worker_jobs().await.unwrap()[&WorkerId::CLOSED], [sample::worker_job()]);
        assert_eq!(client.sched_diag(true).await.unwrap(), serde_json::json!({"forced": true}));
        assert_eq!(client.pledge_sector().await.unwrap(), sample::SECTOR);
        assert_eq!(client.miners().await.unwrap(), sample::miners());
        assert_eq!(client.sectors().await.unwrap(), [sample::SECTOR, SectorId::new(2000, 42)]);
        let numbers = [SectorNumber::new(1), SectorNumber::new(u64::MAX)];
        assert_eq!(client.sectors_list().await.unwrap(), numbers);
        assert_eq!(client.sectors_summary().await.unwrap()["Proving"], 2);
        let states = client.sectors_in_states(vec!["Proving".into()]).await.unwrap();
        assert_eq!(states, [SectorNumber::new(1)]);
        assert_eq!(client.sector_detail(sample::SECTOR.into()).await.unwrap(), sample::sector_detail());
        assert_eq!(client.hello(sample::hello()).await.unwrap(), Some(sample::hello()));
        assert_eq!(client.overview().await.unwrap(), sample::overview());
        assert_eq!(client.jobs().await.unwrap(), [sample::job_view()]);
        let subject = "12.2".parse().unwrap();
        assert_eq!(client.why(subject).await.unwrap(), explained::explanation());
        assert_eq!(client.schedule(7).await.unwrap(), explained::schedule());
        let asked = host.fake.calls.take();
        let read = format!("storage_find {:?}", (sample::SECTOR, types, Some(size)));
        let plain = format!("storage_find {:?}", (sample::SECTOR, types, None::<SectorSize>));
        assert!(asked.contains(&read) && asked.contains(&plain), "{asked:?}");
        assert!(
            asked.contains(&format!("why {subject:?}")) && asked.contains(&"schedule 7".into()),
            "{asked:?}"
        );
        let best = format!("storage_best_alloc {:?}", (types, size, PathType::Storage, ActorId::new(1000)));
        assert!(asked.contains(&best), "{asked:?}");
    }
}

#[tokio::test]
async fn what_a_manager_is_told_arrives_over_both_transports() {
    for transport in BOTH {
        let host = ManagerHost::start().await;
        let client = host.client(transport);
        let (id, sector, types) =
            (sample::storage_id(), sample::SECTOR, FileTypes::SEALED | FileTypes::CACHE);
        let options = PledgeOptions {
            stop_after_c1: true,
            sector_size: Some(SectorSize::MiB8),
            miner: Some(ActorId::new(2000)),
        };
        let mut expected = Vec::new();
        macro_rules! tell {
            ($method:ident($($argument:expr),*)) => {{
                expected.push(format!("{} {:?}", stringify!($method), tell!(@debug $($argument),*)));
                client.$method($($argument.clone()),*).await.unwrap();
            }};
            (@debug) => { () };
            (@debug $one:expr) => { $one };
            (@debug $($several:expr),*) => { ($($several.clone()),*) };
        }
        let url = "http://10.0.0.7:3456/rpc/v0".to_owned();
        tell!(worker_connect(url));
        tell!(can_reach(url));
        tell!(storage_attach(sample::storage_info(), sample::fs_stat()));
        tell!(storage_detach(id, url));
        tell!(storage_report_health(id, sample::health()));
        tell!(storage_declare(id, sector, types, true));
        tell!(storage_declare_batch(id, vec![(sample::decl(), true), (sample::decl(), false)]));
        tell!(storage_declared_all(id));
        let deed = CopyDeed { path: id.clone(), sector, types, state: CopyState::Superseded };
        tell!(storage_deed(sample::attempt(), deed));
        tell!(storage_drop(id, sector, types));
        tell!(storage_lock(sector, types, FileTypes::NONE));
        tell!(storage_add_local(std::path::PathBuf::from("/a b")));
        tell!(storage_detach_local(std::path::PathBuf::from("/a b")));
        tell!(storage_redeclare_local(Some(sample::storage_id()), Missing::Drop));
        tell!(storage_redeclare_local(None::<sealtasks::StorageId>, Missing::Keep));
        tell!(sealing_abort(sample::call()));
        tell!(sealing_remove_request(Uuid::from_u128(7)));
        tell!(abort_attempt(sample::attempt()));
        tell!(retry_sector(rpc::SectorName::from(SectorId::new(2000, 42))));
        tell!(worker_state(sample::worker_state()));
        tell!(pledge(options));
        tell!(shutdown());
        assert_eq!(host.fake.calls.take(), expected, "{transport:?}");
    }
}

#[tokio::test]
async fn a_worker_answers_over_both_transports_what_it_answers_itself() {
    for transport in BOTH {
        let host = WorkerHost::start(FakeWorker { knows_hello: true, ..FakeWorker::default() }).await;
        let client = host.client(transport);
        assert_eq!(client.version().await.unwrap(), 67328);
        assert_eq!(client.session().await.unwrap(), WorkerId(sample::SESSION));
        assert_eq!(client.process_session().await.unwrap(), WorkerId::CLOSED);
        assert_eq!(client.info().await.unwrap(), sample::worker_info());
        assert_eq!(client.task_types().await.unwrap().len(), TaskType::ALL.len());
        assert_eq!(client.paths().await.unwrap(), [sample::storage_path()]);
        assert_eq!(client.storage_local().await.unwrap()[&sample::storage_id()].to_str(), Some("/sealing"));
        assert!(client.enabled().await.unwrap());
        assert_eq!(client.hello(sample::hello()).await.unwrap(), Some(sample::hello()));
        assert_eq!(client.state().await.unwrap(), sample::worker_state());
        assert_eq!(client.beat(sample::beat()).await.unwrap(), sample::beaten());
        assert_eq!(client.settings().await.unwrap(), [sample::executor_setting()]);
        let asked = host.fake.calls.take();
        assert!(asked.contains(&format!("beat {:?}", sample::beat())), "{asked:?}");
        client.abort(sample::call()).await.unwrap();
        client.task_enable(TaskType::Commit2).await.unwrap();
        client.task_disable(TaskType::PreCommit1).await.unwrap();
        client.remove(sample::SECTOR).await.unwrap();
        client.storage_add_local("/p".into()).await.unwrap();
        client.storage_detach_local("/p".into()).await.unwrap();
        client.storage_detach_all().await.unwrap();
        client.storage_redeclare_local(None, Missing::Keep).await.unwrap();
        client.set_enabled(false).await.unwrap();
        client.wait_quiet().await.unwrap();
        client.shutdown().await.unwrap();
        let expected = [
            format!("abort {:?}", sample::call()),
            "task_enable Commit2".into(),
            "task_disable PreCommit1".into(),
            format!("remove {:?}", sample::SECTOR),
            "storage_add_local \"/p\"".into(),
            "storage_detach_local \"/p\"".into(),
            "storage_detach_all ()".into(),
            "storage_redeclare_local (None, Keep)".into(),
            "set_enabled false".into(),
            "wait_quiet ()".into(),
            "shutdown ()".into(),
        ];
        assert_eq!(host.fake.calls.take(), expected, "{transport:?}");
    }
}

#[tokio::test]
async fn every_task_arrives_as_it_was_given_with_and_without_an_attempt() {
    for transport in BOTH {
        let host = WorkerHost::start(FakeWorker { knows_hello: true, ..FakeWorker::default() }).await;
        let client = host.client(transport);
        for attempt in [None, Some(sample::attempt())] {
            for work in sample::tasks() {
                let job = Job {
                    sector: sample::sector_ref(),
                    work: work.clone(),
                    attempt,
                    data: None,
                    gpus: Vec::new(),
                };
                assert_eq!(client.start(job).await.unwrap(), sample::call());
                let started = host.take_started().remove(0);
                assert_eq!(started.work, work);
                assert_eq!(started.attempt, attempt, "{work:?}");
                let whole = !matches!(work, TaskInput::DataCid(_));
                let sector = if whole { sample::sector_ref().id } else { sealtasks::SectorId::new(0, 0) };
                assert_eq!(started.sector.id, sector);
            }
        }
    }
}

#[tokio::test]
async fn a_sealyard_worker_is_told_its_gpus_and_a_lotus_worker_is_not() {
    let share = rpc::extension::GpuShare { device: 2, thousandths: 500 };
    for (knows_hello, told) in [(true, vec![share]), (false, Vec::new())] {
        let host = WorkerHost::start(FakeWorker { knows_hello, ..FakeWorker::default() }).await;
        let job = Job {
            sector: sample::sector_ref(),
            work: sample::tasks().remove(3),
            attempt: Some(sample::attempt()),
            data: None,
            gpus: vec![share],
        };
        host.client(Transport::Http).start(job).await.unwrap();
        assert_eq!(host.take_started().remove(0).gpus, told);
    }
}

#[tokio::test]
async fn a_lotus_worker_is_given_tasks_by_lotus_s_methods() {
    for transport in BOTH {
        // A fake that does not know our methods answers none to the greeting, as the client sees a Lotus.
        let host = WorkerHost::start(FakeWorker::default()).await;
        let client = host.client(transport);
        let work = sample::tasks().remove(2);
        let job = Job {
            sector: sample::sector_ref(),
            work: work.clone(),
            attempt: Some(sample::attempt()),
            data: None,
            gpus: Vec::new(),
        };
        client.start(job).await.unwrap();
        let started = host.take_started().remove(0);
        assert_eq!((started.work, started.attempt), (work, None));
    }
}

#[tokio::test]
async fn thirty_mebibytes_pass_over_both_transports() {
    for transport in BOTH {
        let host = WorkerHost::start(FakeWorker::default()).await;
        let c1 = sealtasks::C1Output(vec![0xa5; 30 << 20]);
        let work = TaskInput::Commit2(sealtasks::Commit2Input { c1 });
        let job = Job {
            sector: sample::sector_ref(),
            work: work.clone(),
            attempt: None,
            data: None,
            gpus: Vec::new(),
        };
        host.client(transport).start(job).await.unwrap();
        assert!(host.take_started().remove(0).work == work);
    }
}

#[tokio::test]
async fn a_handler_s_refusal_arrives_in_its_own_words() {
    for transport in BOTH {
        let host = ManagerHost::start().await;
        let error = host.client(transport).storage_info(sample::missing_id()).await.unwrap_err();
        assert!(matches!(error, ApiError::Remote { code: 1, .. }), "{error:?}");
        assert_eq!(error.to_string(), "sector store not found");
    }
}

#[tokio::test]
async fn a_method_that_the_peer_does_not_know_is_told_apart() {
    for transport in BOTH {
        let host = WorkerHost::start(FakeWorker::default()).await;
        // A worker is asked what only a manager knows.
        let info = rpc::ApiInfo {
            token: Some(host.manager.token(&Permission::ALL)),
            address: format!("http://{}", host.address).parse().unwrap(),
        };
        let client = rpc::ManagerClient::new(&info, transport).unwrap();
        let error = client.overview().await.unwrap_err();
        assert!(error.is_method_not_found(), "{error:?}");
        assert_eq!(error.to_string(), "method 'Sealyard.Overview' not found");
    }
}

#[tokio::test]
async fn nobody_there_and_a_wrong_token_are_told_apart() {
    for transport in BOTH {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let info: rpc::ApiInfo = format!("/ip4/127.0.0.1/tcp/{}/http", port.port()).parse().unwrap();
        let error = rpc::ManagerClient::new(&info, transport).unwrap().version().await.unwrap_err();
        assert_eq!(error.code(), "RPC001", "{error:?}");
        let host = ManagerHost::start().await;
        let info = rpc::ApiInfo { token: Some("x.y.z".into()), ..host.info() };
        let error = rpc::ManagerClient::new(&info, transport).unwrap().version().await.unwrap_err();
        assert!(matches!(error, ApiError::Unauthorized { status: 401, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_websocket_client_connects_again_when_its_manager_was_restarted() {
    let bound = std::time::Duration::from_secs(20);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let secret = rpc::Secret::generate().unwrap();
    let fake = std::sync::Arc::new(crate::fakes::FakeManager::new(secret.clone()));
    let router = || {
        let auth = std::sync::Arc::new(secret.clone());
        rpc::rpc_router(rpc::manager_methods(fake.clone()), auth, rpc::PushStreams::new())
    };
    let first = tokio::spawn({
        let router = router();
        async move { axum::serve(listener, router).await }
    });
    let info = format!("/ip4/127.0.0.1/tcp/{}/http", address.port()).parse().unwrap();
    let client = rpc::ManagerClient::new(&info, Transport::Ws).unwrap();
    client.session().await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // The server is gone and its websockets with it.
    let gone = async {
        while client.session().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(bound, gone).await.expect("the connection ends with the router");
    assert_eq!(client.session().await.unwrap_err().code(), "RPC001");
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let router = router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(client.session().await.unwrap(), sample::SESSION);
}

#[tokio::test]
async fn a_call_that_was_never_sent_is_told_apart_from_one_that_may_have_arrived() {
    let call = |address: std::net::SocketAddr| {
        let address = format!("http://{address}").parse().unwrap();
        rpc::ManagerClient::new(&rpc::ApiInfo { token: None, address }, Transport::Http).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = call(address).version().await.unwrap_err();
    assert!(error.was_not_sent(), "{error:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs_up = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read_u8(&mut socket).await.unwrap();
    });
    let error = call(address).version().await.unwrap_err();
    assert!(matches!(error, ApiError::Unreachable { .. }) && !error.was_not_sent(), "{error:?}");
    hangs_up.await.unwrap();
}
