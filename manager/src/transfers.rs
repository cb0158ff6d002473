//! Downloads wherever they run: files are fetched by whoever gets them, the manager or a worker, and each tells its own.
//! Never: touches a file.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rpc::ApiError;
use rpc::api::ApiResult;
use rpc::extension::{FetchView, JobView};
use rpc::storage::HostTransfers;
use sealtasks::{SectorId, TransferChange, TransferReport, TransferView, eta_seconds};
use tokio::time::timeout;

use crate::driver::Reachable;
use crate::service::{Service, refusal};

/// How long a worker is waited for; beyond, it is listed without its downloads.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The manager's own name among the processes.
const MANAGER: &str = "manager";

impl Service {
    /// Changes limits and tells downloads, of one process or of all.
    pub(crate) async fn host_transfers(
        &self,
        worker: Option<String>,
        change: TransferChange,
    ) -> ApiResult<Vec<HostTransfers>> {
        change.check().map_err(refusal)?;
        let named = worker.clone();
        let asked = self.view(move |driver| {
            let all = driver.sealyards();
            let Some(name) = named.filter(|name| name != MANAGER) else { return Ok(all) };
            // Says what is wrong where no worker, or more than one, or a Lotus has that name.
            driver.worker_called(&name)?;
            let session = driver.worker_rest(&name)?.session;
            Ok::<_, ApiError>(all.into_iter().filter(|it| Some(it.session) == session).collect())
        });
        let mut workers = asked.await??;
        if worker.as_deref() == Some(MANAGER) {
            workers.clear();
        }
        let mut hosts = Vec::new();
        if worker.is_none_or(|name| name == MANAGER) {
            let report = self.0.remote.change_limits(change).await.map_err(refusal)?;
            hosts.push(HostTransfers {
                host: MANAGER.to_owned(),
                session: None,
                report: Some(report),
                error: None,
            });
        }
        hosts.extend(join_all(workers.into_iter().map(|worker| ask(worker, change))).await);
        Ok(hosts)
    }

    /// Says of each job what its worker downloads for its sector. A worker that does not answer has nothing to add.
    pub(crate) async fn add_fetches(&self, jobs: &mut [JobView]) -> ApiResult<()> {
        let bound: std::collections::BTreeSet<String> =
            jobs.iter().filter(|job| job.ended_ms == 0).filter_map(|job| job.worker.clone()).collect();
        if bound.is_empty() {
            return Ok(());
        }
        let mut workers = self.view(|driver| driver.sealyards()).await?;
        workers.retain(|worker| bound.contains(&worker.name));
        let told = join_all(workers.into_iter().map(|worker| ask(worker, TransferChange::default()))).await;
        let mut fetches = BTreeMap::<(String, SectorId), FetchView>::new();
        for HostTransfers { host, report, .. } in told {
            for transfer in report.iter().flat_map(|report: &TransferReport| &report.transfers) {
                add(fetches.entry((host.clone(), transfer.sector)).or_default(), transfer);
            }
        }
        for job in jobs.iter_mut().filter(|job| job.ended_ms == 0) {
            let of = job.worker.clone().map(|worker| (worker, job.sector));
            job.fetch = of.and_then(|of| fetches.get(&of).copied()).map(finished);
        }
        Ok(())
    }
}

async fn ask(worker: Reachable, change: TransferChange) -> HostTransfers {
    let Reachable { name, session, api } = worker;
    let (report, error) = match timeout(ANSWER_MAX, api.transfers(change)).await {
        Ok(Ok(report)) => (Some(report), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
    };
    HostTransfers { host: name, session: Some(session), report, error }
}

/// A total that is not known of one file is not known of all.
fn add(sum: &mut FetchView, transfer: &TransferView) {
    let unknown = transfer.bytes_total == 0 || (sum.files > 0 && sum.bytes_total == 0);
    sum.files += 1;
    sum.bytes_done = sum.bytes_done.saturating_add(transfer.bytes_done);
    sum.bytes_total = if unknown { 0 } else { sum.bytes_total.saturating_add(transfer.bytes_total) };
    sum.rate = sum.rate.saturating_add(transfer.rate);
}

fn finished(sum: FetchView) -> FetchView {
    FetchView { eta_s: eta_seconds(sum.bytes_done, sum.bytes_total, sum.rate), ..sum }
}

#[cfg(test)]
mod tests {
    use sealtasks::{FileType, TransferPhase};

    use super::*;

    fn transfer(done: u64, total: u64) -> TransferView {
        TransferView {
            number: 1,
            sector: SectorId::new(1000, 1),
            kind: FileType::Sealed,
            from: String::new(),
            url: String::new(),
            to: String::new(),
            path: "/p".into(),
            phase: TransferPhase::Receiving,
            bytes_total: total,
            bytes_done: done,
            rate: 5,
            elapsed_ms: 0,
            eta_s: None,
        }
    }

    #[test]
    fn files_of_one_task_are_added_up_and_an_unknown_length_leaves_the_total_open() {
        let sum = |parts: &[(u64, u64)]| {
            let mut sum = FetchView::default();
            parts.iter().for_each(|(done, total)| add(&mut sum, &transfer(*done, *total)));
            finished(sum)
        };
        let both = sum(&[(10, 100), (20, 50)]);
        assert_eq!((both.files, both.bytes_done, both.bytes_total, both.eta_s), (2, 30, 150, Some(12)));
        for parts in [[(10, 0), (20, 50)], [(20, 50), (10, 0)]] {
            let open = sum(&parts);
            assert_eq!((open.bytes_done, open.bytes_total, open.eta_s), (30, 0, None));
        }
    }
}
