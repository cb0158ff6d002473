//! Why a worker does not run, as an exit code and with advice.

use worker::WorkerError;

use crate::exit::{Code, Failure};

/// A worker that does not run, with its exit code.
pub fn worker_failure(error: WorkerError) -> Failure {
    let code = match &error {
        WorkerError::Repo(_) | WorkerError::Journal(_) | WorkerError::Io { .. } => Code::Repo,
        WorkerError::Stores(_) => Code::Storage,
        WorkerError::NotBuilt { .. } => Code::NotBuilt,
        WorkerError::Version(_) | WorkerError::NoPlans { .. } => Code::Version,
        WorkerError::Token { .. } => Code::Token,
        WorkerError::Handshake { source, .. } => match source {
            rpc::ApiError::Unauthorized { .. } => Code::Token,
            rpc::ApiError::Unreachable { .. } => Code::Unreachable,
            error if error.is_fenced() => Code::Overtaken,
            _ => Code::Failed,
        },
        WorkerError::NotTaken { .. } => Code::DialBack,
        WorkerError::OtherManager { .. } => Code::Overtaken,
        WorkerError::OtherMiner { .. } | WorkerError::NoLimit(_) => Code::Setting,
        WorkerError::NoManager => Code::Unreachable,
        WorkerError::Closed => Code::Failed,
    };
    let not_a_manager =
        matches!(&error, WorkerError::Handshake { source: rpc::ApiError::Malformed { .. }, .. });
    let knows_no_plans = matches!(&error, WorkerError::NoPlans { .. });
    let advice = match code {
        _ if not_a_manager => Some(
            "what answers there is no manager; is it a worker? `sealyard workers join-command` prints the right line",
        ),
        _ if knows_no_plans => None,
        Code::Version => Some("run the same version on both machines"),
        Code::DialBack => {
            Some("open that port, or name an address that the manager can reach with --address HOST:PORT")
        }
        _ => None,
    };
    let failure = Failure::from_error(code, &error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}
