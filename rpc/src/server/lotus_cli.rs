//! The rest of a Lotus miner's API that needs no full node: what its command line and its tools ask besides workers, paths
//! and sectors. No sector is terminated or upgraded here, no deal is published and no number is reserved, so these answer
//! that there is none; what would change that is refused with the way that there is. Never: changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sealtasks::SectorNumber;
use serde_json::{Value, json};

use super::manager::Manager;
use super::operator::LOTUS_REMOVE;
use super::pipelining;
use super::registrar::Fault;
use crate::api::ManagerApi;
use crate::error::ApiError;
use crate::extension::AlertView;
use crate::token::Permission::{Admin, Read, Write};
use crate::wire::args::Args;
use crate::wire::worker::GoTime;

/// Why no sector that holds deals can be asked for.
const NO_DEALS: &str =
    "RPC012: this manager takes data without deals (`sealyard sectors add-piece`), and none with a deal";
/// A sector with data waits for more of it, but not for deals.
const NO_DELAY: &str = "RPC016: no sector waits for deals here; one with data starts when it is full, or by `sealyard sectors start-seal`";
/// Proofs of what is stored.
const NO_POST: &str =
    "RPC017: this manager makes no window PoSt: that needs the chain, and a miner whose proofs go there";
/// Numbers are given out by the durable state alone.
const NO_RESERVATIONS: &str = "RPC013: this manager gives out sector numbers itself and reserves none";

/// Adds them.
pub(super) fn lotus_cli(methods: &mut Manager) {
    process(methods);
    terminations(methods);
    changes(methods);
    numbers_and_deals(methods);
    discover(methods);
}

fn process(methods: &mut Manager) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    methods.on("Filecoin.StartTime", Read, 0, move |_, _| async move { Ok(GoTime { unix_ms }) });
    methods.on("Filecoin.RuntimeSubsystems", Read, 0, |_, _| async move {
        // Mining is the chain's.
        Ok(["Sealing", "SectorStorage"])
    });
    methods.on("Filecoin.LogList", Write, 0, |_, _| async move {
        Ok(["chain", "manager", "rpc", "sealyard", "stores", "worker"])
    });
    methods.on("Filecoin.LogSetLevel", Write, 2, |_, mut args| async move {
        let (subsystem, level) = (args.next::<String>("subsystem")?, args.next::<String>("level")?);
        let text = format!(
            "RPC014: log levels are set when the manager starts: RUST_LOG=info,{subsystem}={level} sealyard run"
        );
        refuse::<()>(&text)
    });
    // Over a websocket the answer is a channel's number; nothing is ever sent on that channel, as with Lotus's miner.
    let channels = Arc::new(AtomicU64::new(0));
    methods.on("Filecoin.Closing", Read, 0, move |_, _| {
        let channel = channels.fetch_add(1, Ordering::Relaxed);
        async move { Ok(channel) }
    });
    methods.on("Filecoin.LogAlerts", Admin, 0, |api, _| async move {
        Ok(api.overview().await?.alerts.iter().map(alert).collect::<Vec<_>>())
    });
}

/// In the shape of Lotus's `alerting.Alert`.
fn alert(view: &AlertView) -> Value {
    let raised = GoTime { unix_ms: view.since_ms };
    let message = json!({ "subject": view.subject, "message": view.text });
    json!({
        "Type": {"System": view.system, "Subsystem": view.subject},
        "Active": true,
        "LastActive": {"Type": "raised", "Message": message, "Time": raised},
        "LastResolved": null,
    })
}

/// No sector is terminated from here, so none waits for that, and flushing sends nothing.
fn terminations(methods: &mut Manager) {
    methods.on("Filecoin.SectorTerminatePending", Admin, 0, |_, _| async move { Ok(none()) });
    methods.on("Filecoin.SectorTerminateFlush", Admin, 0, |_, _| async move { Ok(Value::Null) });
}

/// Each needs a state that no sector of this manager is ever in; the refusal says where the sector is.
fn changes(methods: &mut Manager) {
    let one_number: [(&'static str, _, &'static str); 2] = [
        ("Filecoin.SectorAbortUpgrade", Admin, "no upgrade of it is under way"),
        ("Filecoin.SectorTerminate", Admin, "termination is a message that this manager does not send"),
    ];
    for (name, permission, why) in one_number {
        methods.on(
            name,
            permission,
            1,
            move |api, mut args| async move { stays(&*api, &mut args, why).await },
        );
    }
    methods.on("Filecoin.SectorMarkForUpgrade", Admin, 2, |api, mut args| async move {
        stays(
            &*api,
            &mut args,
            "data that comes later needs a replica update, which this manager does not make",
        )
        .await
    });
}

async fn stays(api: &dyn ManagerApi, args: &mut Args, why: &str) -> Result<(), Fault> {
    let number = SectorNumber::new(args.next("sector")?);
    let state = api.sector_detail(number.into()).await?.state;
    refuse(&format!("RPC015: sector {number} stays in {state}: {why}"))
}

fn numbers_and_deals(methods: &mut Manager) {
    methods.on("Filecoin.SectorsRefs", Read, 0, |_, _| async move { Ok(BTreeMap::<String, Value>::new()) });
    methods.on("Filecoin.SectorGetSealDelay", Read, 0, |_, _| async move { Ok(0) });
    methods.on("Filecoin.SectorSetSealDelay", Write, 1, |_, _| async move { refuse::<()>(NO_DELAY) });
    methods.on("Filecoin.ComputeWindowPoSt", Admin, 2, |_, _| async move { refuse::<()>(NO_POST) });
    methods.on("Filecoin.SectorAddPieceToAny", Admin, 3, |_, _| async move { refuse::<()>(NO_DEALS) });
    methods.on("Filecoin.SectorNumReservations", Read, 0, |_, _| async move {
        Ok(BTreeMap::<String, Value>::new())
    });
    methods.on(
        "Filecoin.SectorNumAssignerMeta",
        Read,
        0,
        |_, _| async move { refuse::<()>(NO_RESERVATIONS) },
    );
    for (name, params) in [
        ("Filecoin.SectorNumReserve", 3),
        ("Filecoin.SectorNumReserveCount", 2),
        ("Filecoin.SectorNumFree", 1),
    ] {
        methods.on(name, Admin, params, |_, _| async move { refuse::<()>(NO_RESERVATIONS) });
    }
}

/// The names of all methods, as an OpenRPC document.
fn discover(methods: &mut Manager) {
    const NAME: &str = "Filecoin.Discover";
    let mut names = methods.names();
    names.push(NAME);
    names.extend(pipelining::lotus_methods());
    names.push(LOTUS_REMOVE);
    names.sort_unstable();
    let listed: Vec<Value> = names
        .into_iter()
        .map(|name| json!({"name": name, "paramStructure": "by-position", "params": [], "result": {"name": name, "schema": true}}))
        .collect();
    methods.on(NAME, Read, 0, move |api, _| {
        let listed = listed.clone();
        async move {
            let info = json!({"title": "Sealyard manager", "version": api.version().await?.version});
            Ok(json!({"openrpc": "1.2.6", "info": info, "methods": listed}))
        }
    });
    methods.alias("rpc.discover", NAME);
}

/// An empty list; Go's nil would be null, and both are read alike.
fn none() -> [Value; 0] {
    []
}

fn refuse<T>(text: &str) -> Result<T, Fault> {
    Err(Fault::Api(ApiError::refused(text)))
}
