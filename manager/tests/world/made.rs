//! What fake workers make: commitments are real, since the manager checks them; the rest is canned.

use pieces::PieceData;
use pieces::commitment::{combine, zero_commitment};
use sealtasks::{
    C1Output, Commitment, Pc1Output, PieceInfo, Proof, SealedCid, SectorSize, TaskInput, TaskOutput,
    UnsealedCid,
};

/// The result of the work; `data` is what came as a stream.
pub fn output_of(work: &TaskInput, data: Option<&[u8]>) -> TaskOutput {
    match work {
        TaskInput::AddPiece(input) => TaskOutput::AddPiece(match data {
            Some(mut data) => pieces::data_cid(input.size, PieceData::Stream(&mut data)).expect("a piece"),
            None => PieceInfo::new(input.size.padded(), zero_commitment(input.size.padded())),
        }),
        // The pieces travel in place of the labels: PC2 needs them for CommD.
        TaskInput::PreCommit1(input) => {
            TaskOutput::PreCommit1(Pc1Output(serde_json::to_vec(&input.pieces).expect("JSON")))
        }
        TaskInput::PreCommit2(input) => {
            let pieces: Vec<PieceInfo> = serde_json::from_slice(&input.pc1.0).expect("what PC1 made");
            let size = SectorSize::from_bytes(pieces.iter().map(|piece| piece.size.get()).sum());
            let comm_d = combine(&pieces, size.expect("a full sector")).expect("pieces that fit");
            TaskOutput::PreCommit2 {
                unsealed: UnsealedCid::new(comm_d),
                sealed: SealedCid::new(Commitment::new([2; 32])),
            }
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

/// The bytes that came with a job.
pub async fn read(data: Option<rpc::PieceData>) -> Option<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let rpc::PieceData::Stream(mut stream) = data? else { return None };
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("all of it");
    Some(bytes)
}
