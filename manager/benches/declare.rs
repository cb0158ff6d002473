//! How fast files are declared to a manager over loopback: a million in packed calls, and one call a file as Lotus does,
//! in turns, beside the goals.
//!
//! `cargo bench -p manager --bench declare [-- --quick]`. A whole manager with its durable state, scheduler and index answers
//! on a real socket; client and server share the machine's cores. Each file is one type of one sector. Rates are by the
//! clock, medians of rounds.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::fs::read_to_string;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use manager::{
    ChainChoice, InitOptions, Manager, ManagerHandle, ManagerOptions, Repo, RpcDialer, Timing, Verifier,
};
use rpc::{ApiInfo, ManagerApi, ManagerClient, Permission, Transport, Trust};
use sealtasks::{
    ActorId, FileTypes, FsStat, SectorDecl, SectorId, SectorRef, SectorSize, StorageId, StorageInfo,
    StorageStanza, VerifyInput,
};

/// Goals, as the issue and the list of figures state them.
const BATCH_LEAST: f64 = 1e6;
const FASTER_LEAST: f64 = 10.0;

/// Files in one call.
const BATCH: usize = 100_000;
const ROUNDS: usize = 5;

type Files = Vec<(SectorDecl, bool)>;

/// Nothing is proven here.
struct Nobody;

#[async_trait]
impl Verifier for Nobody {
    async fn verify(&self, _sector: SectorRef, _input: VerifyInput) -> Result<bool, String> {
        Ok(false)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let quick = has("--quick") || !has("--bench");
    let (many, single, rounds) = if quick { (20_000, 50, 1) } else { (1_000_000, 2000, ROUNDS) };
    println!("load average {}", read_to_string("/proc/loadavg").unwrap_or_default().trim());

    let dir = tempfile::tempdir().expect("a temporary directory");
    let handle = start(&dir.path().join("repo")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = handle.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = handle.api().auth_new(Permission::ALL.to_vec()).await.expect("a token");
    let info: ApiInfo = format!("{token}:http://{address}").parse().expect("an address");
    for transport in [Transport::Ws, Transport::Http] {
        let client = ManagerClient::new(&info, transport).expect("a client");
        table(&client, transport, (many, single, rounds)).await;
    }
    handle.stop().await;
    ExitCode::SUCCESS
}

async fn start(repo: &std::path::Path) -> ManagerHandle {
    Repo::init(repo, InitOptions::new(ActorId::new(1000), SectorSize::GiB32)).expect("a new repo");
    let options = ManagerOptions {
        repo: Repo::open(repo).expect("it opens"),
        chain: ChainChoice::Offline,
        remote_urls: vec!["http://127.0.0.1:9/remote".to_owned()],
        advertised: None,
        software: "sealyard benchmark".to_owned(),
        verifier: Arc::new(Nobody),
        dialer: Arc::new(RpcDialer { trust: Trust::system() }),
        trust: Trust::system(),
        timing: Timing::default(),
        begun: Vec::new(),
    };
    Manager::start(options).await.expect("the manager starts")
}

async fn table(client: &ManagerClient, transport: Transport, (many, single, rounds): (usize, usize, usize)) {
    let (mut packed, mut apart) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let id: StorageId = format!("{transport:?}-{round}").parse().expect("an id");
        attach(client, &id).await;
        let all = files(round, many);
        packed.push(
            rate(many, async {
                for batch in all.chunks(BATCH) {
                    client.storage_declare_batch(id.clone(), batch.to_vec()).await.expect("declared");
                }
            })
            .await,
        );
        apart.push(
            rate(single, async {
                for (decl, primary) in &all[..single] {
                    let told = client.storage_declare(id.clone(), decl.sector, decl.types, *primary).await;
                    told.expect("declared");
                }
            })
            .await,
        );
    }
    let (packed, apart) = (median(packed), median(apart));
    let verdict = |reached: bool| if reached { "reached" } else { "NOT reached" };
    let fine = verdict(packed >= BATCH_LEAST);
    println!(
        "{transport:?}: packed, {BATCH} a call      {:.2} M files/s   >= 1 M/s     {fine}",
        packed / 1e6
    );
    let fine = verdict(packed / apart >= FASTER_LEAST);
    println!("{transport:?}: one call a file          {:.1} k files/s", apart / 1e3);
    println!(
        "{transport:?}: the first to the second  {:.0} times        >= 10 times  {fine}",
        packed / apart
    );
}

async fn attach(client: &ManagerClient, id: &StorageId) {
    let stanza = StorageStanza { weight: 10, can_store: true, ..StorageStanza::default() };
    let info = StorageInfo { id: id.clone(), urls: vec!["http://127.0.0.1:9/remote".to_owned()], stanza };
    client.storage_attach(info, FsStat::default()).await.expect("attached");
}

/// Three files a sector, other sectors in every round.
fn files(round: usize, count: usize) -> Files {
    let types = [FileTypes::UNSEALED, FileTypes::SEALED, FileTypes::CACHE];
    let decl = |at: usize| SectorDecl {
        sector: SectorId::new(1000, (round * count + at / 3) as u64),
        types: types[at % 3],
    };
    (0..count).map(|at| (decl(at), true)).collect()
}

async fn rate(count: usize, work: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    work.await;
    count as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
