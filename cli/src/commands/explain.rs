//! `sealing why`, `sealing sched-diag`, `sealing durations`: the questions about the scheduler.

use rpc::subject::{Subject, SubjectError};

use super::operate::miners;
use crate::args::{ListArgs, SchedDiagArgs, WhyArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{print_durations, print_explanation, print_json, print_schedule};

/// What a manager says of something that it does not know; see the manager's codes.
const UNKNOWN: &str = "MGR054";

/// `sealing why`.
pub async fn why(connection: &Connection, args: &WhyArgs) -> Outcome {
    if args.what == "pledge" {
        return super::pipelining::why_pledge(connection, args.json).await;
    }
    let subject: Subject =
        args.what.parse().map_err(|error: SubjectError| Failure::new(Code::Usage, error.to_string()))?;
    let explanation = connection.manager.why(subject).await.map_err(|error| {
        let is_unknown = error.to_string().contains(UNKNOWN);
        if is_unknown { Failure::new(Code::Unknown, error.to_string()) } else { rpc_failure(error) }
    })?;
    if args.json {
        return print_json(&explanation);
    }
    connection.mark_rehearsal().await?;
    print_explanation(&explanation, &miners(connection).await?)
}

/// `sealing sched-diag`.
pub async fn sched_diag(connection: &Connection, args: &SchedDiagArgs) -> Outcome {
    if args.json {
        let diagnostics = connection.manager.sched_diag(args.force_sched).await.map_err(rpc_failure)?;
        return print_json(&diagnostics);
    }
    let schedule = connection.manager.schedule(args.limit).await.map_err(rpc_failure)?;
    print_schedule(&schedule, &miners(connection).await?)
}

/// `sealing durations`.
pub async fn durations(connection: &Connection, args: ListArgs) -> Outcome {
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    print_durations(&overview.workers, args.json)
}
