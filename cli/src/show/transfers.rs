//! `storage transfers`, and how far a job's downloads are.

use rpc::Miners;
use rpc::extension::FetchView;
use rpc::storage::HostTransfers;
use sealtasks::{TransferLimits, TransferView};

use super::{age, bytes, line, paint, plain};
use crate::exit::Outcome;

/// Prints the downloads of each process under what they may use.
pub fn print_transfers(hosts: &[HostTransfers], miners: &Miners) -> Outcome {
    for host in hosts {
        let name = paint::blue(&plain(&host.host));
        match (&host.report, &host.error) {
            (Some(report), _) => {
                line(&format!("{name}: {}", limits(report.limits)))?;
                print_rows(&report.transfers, miners)?;
            }
            (None, error) => {
                let error = error.as_deref().unwrap_or("it told nothing");
                line(&format!("{name}: {}", paint::red(&plain(error))))?;
            }
        }
    }
    Ok(())
}

fn limits(limits: TransferLimits) -> String {
    let TransferLimits { bandwidth, parallel, streams, verify } = limits;
    let bandwidth = bandwidth.map_or_else(|| "no limit".to_owned(), |rate| format!("{}/s", bytes(rate)));
    let verify = if verify { "verified" } else { "not verified" };
    format!("{bandwidth}; {parallel} files at once, {streams} connections each, {verify}")
}

fn print_rows(transfers: &[TransferView], miners: &Miners) -> Outcome {
    if transfers.is_empty() {
        return Ok(());
    }
    line(&format!("  {:<8} {:<14}{:<11}{:<32}{:<14}To", "Sector", "File", "State", "Progress", "Rate"))?;
    for transfer in transfers {
        let progress = progress(transfer.bytes_done, transfer.bytes_total, transfer.eta_s);
        let from = match transfer.url.as_str() {
            "" => String::new(),
            url => format!(" from {} at {}", plain(&transfer.from), plain(host_of(url))),
        };
        line(&format!(
            "  {:<8} {:<14}{:<11}{:<32}{:<14}{}{from}",
            miners.name(transfer.sector).to_string(),
            transfer.kind.to_string(),
            transfer.phase.name(),
            progress,
            format!("{}/s", bytes(transfer.rate)),
            plain(&transfer.path.to_string_lossy())
        ))?;
    }
    Ok(())
}

/// What is being fetched for a job, in a few words.
pub fn fetch_words(fetch: FetchView) -> String {
    let files = if fetch.files == 1 { "1 file" } else { &format!("{} files", fetch.files) };
    let progress = progress(fetch.bytes_done, fetch.bytes_total, fetch.eta_s);
    format!("fetching {files}: {progress}, {}/s", bytes(fetch.rate))
}

/// `1.5 GiB of 32 GiB (4 %), 2m05s left`.
fn progress(done: u64, total: u64, eta_s: Option<u64>) -> String {
    let left =
        eta_s.map(|seconds| format!(", {} left", age(seconds.saturating_mul(1000)))).unwrap_or_default();
    match total {
        0 => format!("{}{left}", bytes(done)),
        total => {
            let percent = done.min(total) as f64 / total as f64 * 100.0;
            format!("{} of {} ({percent:.0} %){left}", bytes(done), bytes(total))
        }
    }
}

fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_people_say_it() {
        assert_eq!(progress(0, 0, None), "0 B");
        assert_eq!(progress(3 << 29, 32 << 30, Some(125)), "1.5 GiB of 32 GiB (5 %), 2m05s left");
        let fetch =
            FetchView { files: 2, bytes_done: 1 << 20, bytes_total: 4 << 20, rate: 1 << 20, eta_s: Some(3) };
        assert_eq!(fetch_words(fetch), "fetching 2 files: 1 MiB of 4 MiB (25 %), 3.0s left, 1 MiB/s");
        let slow = TransferLimits { bandwidth: Some(5 << 20), ..TransferLimits::default() };
        assert_eq!(limits(slow), "5 MiB/s; 10 files at once, 3 connections each, verified");
    }
}
