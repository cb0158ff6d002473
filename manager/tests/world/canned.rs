//! What a fake worker says and gives: canned, since nothing is proven here.

use manager::{Dialer as _, RpcDialer};
use rpc::{ApiResult, Job, Transport, Trust};
use sealtasks::{
    C1Output, CallId, Commitment, Pc1Output, PieceInfo, Proof, SealedCid, TaskInput, TaskOutput,
    UnpaddedPieceSize, UnsealedCid,
};

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

/// What it gives.
pub fn output_of(work: &TaskInput) -> TaskOutput {
    let comm_d = UnsealedCid::new(Commitment::new([1; 32]));
    match work {
        TaskInput::AddPiece(input) => {
            TaskOutput::AddPiece(PieceInfo { size: UnpaddedPieceSize::padded(input.size), cid: comm_d })
        }
        TaskInput::PreCommit1(_) => TaskOutput::PreCommit1(Pc1Output(b"{\"labels\":[]}".to_vec())),
        TaskInput::PreCommit2(_) => {
            TaskOutput::PreCommit2 { unsealed: comm_d, sealed: SealedCid::new(Commitment::new([2; 32])) }
        }
        TaskInput::Commit1(_) => TaskOutput::Commit1(C1Output(b"{\"vanilla\":[]}".to_vec())),
        TaskInput::Commit2(_) => TaskOutput::Commit2(Proof(vec![3; 192])),
        TaskInput::Finalize(_) => TaskOutput::Finalize,
        TaskInput::Fetch(_) => TaskOutput::Fetch,
        TaskInput::Move(_) => TaskOutput::Move,
        TaskInput::Unseal(_) => TaskOutput::Unseal,
        TaskInput::ReleaseUnsealed(_) => TaskOutput::ReleaseUnsealed,
        other => panic!("no canned output for {other:?}"),
    }
}
