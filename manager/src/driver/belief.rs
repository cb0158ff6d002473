//! Results of AddPiece and PreCommit2 that can be checked against what lies in the sector: zeros have one commitment, and
//! pieces make one CommD. Never: proofs; another process verifies those.

use pieces::commitment::{combine, zero_commitment};
use sealtasks::{PieceInfo, PieceSource, SectorId, TaskInput, TaskOutput, UnsealedCid};

use super::{Driver, Task};

impl Driver {
    /// Why a result of this task is not believed; `None`: nothing speaks against it.
    pub(super) fn disbelieved(&self, task: &Task, output: &TaskOutput) -> Option<String> {
        // A rehearsal's results are marked in place of being right; the pipeline looks at the mark.
        if self.shared.rehearses() {
            return None;
        }
        match (&*task.work, output) {
            (TaskInput::AddPiece(input), TaskOutput::AddPiece(piece))
                if input.source == PieceSource::Zeros =>
            {
                let zeros = PieceInfo::new(piece.size, zero_commitment(piece.size));
                (zeros.cid != piece.cid).then(|| {
                    format!(
                        "AddPiece wrote {} bytes with CommP {}; zeros have {}",
                        piece.size, piece.cid, zeros.cid
                    )
                })
            }
            (_, TaskOutput::PreCommit2 { unsealed, .. }) => self.wrong_comm_d(task.sector.id, *unsealed),
            _ => None,
        }
    }

    fn wrong_comm_d(&self, id: SectorId, found: UnsealedCid) -> Option<String> {
        let record = &self.sectors.get(&id)?.record;
        let pieces = &record.progress().pieces;
        match combine(pieces, record.sector().proof.sector_size()) {
            Ok(expected) if UnsealedCid::new(expected) == found => None,
            Ok(expected) => Some(format!(
                "PC2 found CommD {found}, but the sector's {} pieces make {}",
                pieces.len(),
                UnsealedCid::new(expected)
            )),
            Err(error) => Some(format!("the sector's pieces make no CommD: {error}")),
        }
    }
}
