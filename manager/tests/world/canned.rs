//! What a fake worker says; what it gives is in `made`.

use manager::{Dialer as _, RpcDialer};
use rpc::{ApiResult, Job, Transport, Trust};
use sealtasks::{CallId, TaskInput};

/// What our client says of a port that nobody listens on.
pub async fn call_nobody(job: Job) -> ApiResult<CallId> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/rpc/v0", listener.local_addr().expect("an address"));
    drop(listener);
    let dialer = RpcDialer { trust: Trust::system() };
    dialer.dial(&url, "token", Transport::Http).await?.start(job).await
}

/// The task's short code.
pub fn code_of(work: &TaskInput) -> &'static str {
    match work {
        TaskInput::Move(_) => "MOVE",
        other => other.task_type().expect("scheduled work").short(),
    }
}
