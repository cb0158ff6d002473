//! `worker tasks enable|disable`: what the worker on this machine offers, until it ends.

use rpc::WorkerApi;
use sealtasks::TaskType;
use serde_json::json;

use super::storage::worker_client;
use crate::args::{TasksArgs, TasksCommand};
use crate::connect::{expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, print_json};

/// Tasks that can be switched. Source: Lotus's `lotus-worker tasks`.
const SETTABLE: [TaskType; 9] = [
    TaskType::Unseal,
    TaskType::Commit2,
    TaskType::PreCommit2,
    TaskType::PreCommit1,
    TaskType::ProveReplicaUpdate2,
    TaskType::ReplicaUpdate,
    TaskType::AddPiece,
    TaskType::DataCid,
    TaskType::RegenSectorKey,
];

/// `worker tasks …`.
pub async fn tasks(command: &TasksCommand) -> Outcome {
    let args = match command {
        TasksCommand::Enable(args) | TasksCommand::Disable(args) => args,
    };
    let named = if args.all { SETTABLE.to_vec() } else { named(args)? };
    let worker = worker_client(&expand(&args.worker_repo)?)?;
    for task in named {
        let switched = match command {
            TasksCommand::Enable(_) => worker.task_enable(task).await,
            TasksCommand::Disable(_) => worker.task_disable(task).await,
        };
        match switched {
            Ok(()) => {}
            // With --all: those that this worker was not started with stay off.
            Err(rpc::ApiError::Remote { .. }) if args.all => {}
            Err(error) => return Err(rpc_failure(error)),
        }
    }
    let offered = worker.task_types().await.map_err(rpc_failure)?;
    if args.json {
        return print_json(&json!({ "tasks": offered }));
    }
    let names: Vec<&str> = offered.iter().map(|task| task.short()).collect();
    line(&format!(
        "the worker offers {} now; when it is started again, what it is started with",
        names.join(" ")
    ))
}

fn named(args: &TasksArgs) -> Result<Vec<TaskType>, Failure> {
    let one = |text: &String| {
        let task = TaskType::from_short(&text.to_ascii_uppercase()).filter(|task| SETTABLE.contains(task));
        task.ok_or_else(|| {
            let known = SETTABLE.map(TaskType::short).join(", ");
            Failure::new(Code::Usage, format!("{text:?} is no task that can be switched"))
                .advise(format!("give --all or any of {known}"))
        })
    };
    args.tasks.iter().map(one).collect()
}
