//! `Sealyard.Why`: what lives is explained by the driver; of what is over the durable state tells how it ended, and the
//! driver what its sector does now. Never: changes anything.

use std::collections::BTreeMap;

use rpc::explain::Explanation;
use rpc::subject::Subject;
use rpc::{ApiError, ApiResult};
use sealtasks::{AttemptId, CallId, TaskId};

use crate::answers::job;
use crate::service::{Service, refusal};
use crate::state::TaskRow;

/// Why what was asked about is where it is.
///
/// # Errors
/// `MGR054`: nothing is known of it.
pub(crate) async fn why(service: &Service, subject: Subject) -> ApiResult<Explanation> {
    if let Subject::Number(number) = subject {
        service.view(move |driver| driver.numbered(number)).await??;
    }
    if let Some(explanation) = service.view(move |driver| driver.explain(subject)).await? {
        return Ok(explanation);
    }
    let row = match subject {
        Subject::Number(_) | Subject::Sector(_) | Subject::Request(_) => None,
        Subject::Task(task) => rows(service, task).await?.pop(),
        Subject::Attempt(attempt) => of_attempt(service, attempt).await?,
        Subject::Call(call) => of_call(service, call).await?,
    };
    let row = row.ok_or_else(|| unknown(subject))?;
    let sector = Subject::Sector(row.sector);
    let explained = service.view(move |driver| driver.explain(sector)).await?;
    let mut explanation = explained.ok_or_else(|| unknown(subject))?;
    explanation.asked = subject.to_string();
    explanation.ended = Some(job(row, &BTreeMap::new()));
    Ok(explanation)
}

async fn rows(service: &Service, task: TaskId) -> ApiResult<Vec<TaskRow>> {
    service.0.state.task(task).await.map_err(refusal)
}

async fn of_attempt(service: &Service, attempt: AttemptId) -> ApiResult<Option<TaskRow>> {
    Ok(rows(service, attempt.task).await?.into_iter().find(|row| row.attempt == attempt))
}

async fn of_call(service: &Service, call: CallId) -> ApiResult<Option<TaskRow>> {
    let known = service.0.state.call(call).await.map_err(refusal)?;
    match known.map(|row| row.attempt) {
        Some(Some(attempt)) => of_attempt(service, attempt).await,
        Some(None) => Err(ApiError::refused(format!(
            "MGR055: a worker returned call {call}, and nobody knows who asked for it; its result is kept, see \
             `sealyard sectors status --log {}`",
            service.0.name(call.sector)
        ))),
        None => Ok(None),
    }
}

fn unknown(subject: Subject) -> ApiError {
    let lists = match subject {
        Subject::Number(_) | Subject::Sector(_) => "`sealyard sectors list` lists the sectors",
        Subject::Task(_) | Subject::Attempt(_) | Subject::Call(_) => {
            "`sealyard sealing jobs --all` lists tasks, attempts and calls"
        }
        Subject::Request(_) => {
            "it waits no longer; `sealyard sealing sched-diag --json` lists those that wait"
        }
    };
    ApiError::refused(format!("MGR054: nothing is known of {subject}; {lists}"))
}
