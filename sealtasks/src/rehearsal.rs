//! The mark of a rehearsal: every result of an executor that only plays a task begins with it, so that no such result is
//! ever taken for a real one, wherever it is carried and whatever else is forgotten on the way.

use crate::{
    C1Output, Commitment, Pc1Output, PieceInfo, Proof, SealedCid, SectorId, TaskOutput, UnsealedCid,
};

/// What every rehearsed result begins with. No real result does: proofs, commitments and the proofs library's JSON (which
/// begins with a brace) have these nine bytes with a chance of 2^-72 at most.
pub const MARK: &[u8; 9] = b"REHEARSAL";

/// Bytes of one partition's SNARK (Groth16 over BLS12-381).
const SNARK_BYTES: usize = 192;

/// What rehearsed bytes stand for; part of a commitment, so that no two of one sector are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// CommP of the piece that fills it, and so CommD.
    Data,
    /// CommR.
    Replica,
    /// The sealing randomness.
    Ticket,
    /// The interactive randomness.
    Seed,
}

/// Whether bytes are marked.
pub fn is_marked(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

/// 32 marked bytes, the same for the same sector and part. The top byte is zero, as in every field element.
pub fn bytes_of(sector: SectorId, part: Part) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (mark, rest) = bytes.split_at_mut(MARK.len());
    mark.copy_from_slice(MARK);
    rest[0] = match part {
        Part::Data => b'D',
        Part::Replica => b'R',
        Part::Ticket => b'T',
        Part::Seed => b'S',
    };
    rest[1..9].copy_from_slice(&sector.miner.get().to_le_bytes());
    rest[9..17].copy_from_slice(&sector.number.get().to_le_bytes());
    bytes
}

/// What the manager of a rehearsal keeps in place of the secret that other managers derive tickets from. It is durable, so
/// that a manager is one of rehearsals from its beginning to its end.
pub fn beacon() -> [u8; 32] {
    bytes_of(SectorId::new(0, 0), Part::Seed)
}

/// The commitment to the data of a sector.
pub fn unsealed(sector: SectorId) -> UnsealedCid {
    UnsealedCid::new(Commitment::new(bytes_of(sector, Part::Data)))
}

/// The commitment to its replica.
pub fn sealed(sector: SectorId) -> SealedCid {
    SealedCid::new(Commitment::new(bytes_of(sector, Part::Replica)))
}

/// PreCommit1's output, from which [`pieces_in`] reads the pieces again.
pub fn pc1(pieces: &[PieceInfo]) -> Pc1Output {
    let mut bytes = MARK.to_vec();
    // Numbers and texts always have a JSON form.
    bytes.extend(serde_json::to_vec(pieces).unwrap_or_default());
    Pc1Output(bytes)
}

/// The pieces in a rehearsed PreCommit1's output; `None`: it is none.
pub fn pieces_in(pc1: &Pc1Output) -> Option<Vec<PieceInfo>> {
    serde_json::from_slice(pc1.0.strip_prefix(MARK)?).ok()
}

/// Commit1's output.
pub fn c1() -> C1Output {
    C1Output(MARK.to_vec())
}

/// Commit2's output: as long as a proof of so many partitions, each of them marked.
pub fn proof(partitions: usize) -> Proof {
    let mut one = [0; SNARK_BYTES];
    one[..MARK.len()].copy_from_slice(MARK);
    Proof(one.repeat(partitions))
}

/// Whether a result is marked; `None`: its kind carries no mark, since nothing of it is proven to anybody.
pub fn mark_of(output: &TaskOutput) -> Option<bool> {
    match output {
        TaskOutput::PreCommit1(pc1) => Some(is_marked(&pc1.0)),
        TaskOutput::PreCommit2 { sealed, .. } => Some(is_marked(sealed.commitment().bytes())),
        TaskOutput::Commit1(c1) => Some(is_marked(&c1.0)),
        TaskOutput::Commit2(proof) => Some(is_marked(&proof.0)),
        TaskOutput::AddPiece(piece) => is_marked(piece.cid.commitment().bytes()).then_some(true),
        TaskOutput::DataCid(piece) => is_marked(piece.cid.commitment().bytes()).then_some(true),
        TaskOutput::Finalize
        | TaskOutput::ReleaseUnsealed
        | TaskOutput::Fetch
        | TaskOutput::Move
        | TaskOutput::Unseal
        | TaskOutput::Verify(_)
        | TaskOutput::Scrub(_)
        | TaskOutput::Vanilla(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rehearsed_result_is_marked_and_no_real_one() {
        let sector = SectorId::new(1000, 7);
        let piece = PieceInfo { size: 2048.try_into().expect("a size"), cid: unsealed(sector) };
        let rehearsed = [
            TaskOutput::AddPiece(piece),
            TaskOutput::PreCommit1(pc1(std::slice::from_ref(&piece))),
            TaskOutput::PreCommit2 { unsealed: piece.cid, sealed: sealed(sector) },
            TaskOutput::Commit1(c1()),
            TaskOutput::Commit2(proof(10)),
        ];
        assert!(rehearsed.iter().all(|output| mark_of(output) == Some(true)));
        let TaskOutput::PreCommit1(output) = &rehearsed[1] else { unreachable!("made above") };
        assert_eq!(pieces_in(output), Some(vec![piece]));
        assert_eq!(proof(10).0.len(), 1920);
        assert!(proof(2).0.chunks(SNARK_BYTES).all(is_marked), "a partition alone is marked, too");

        let cid = UnsealedCid::new(Commitment::new([4; 32]));
        let real = PieceInfo { size: 2048.try_into().expect("a size"), cid };
        assert_eq!(mark_of(&TaskOutput::AddPiece(real)), None, "real zeros may fill a rehearsed sector");
        assert_eq!(mark_of(&TaskOutput::PreCommit1(Pc1Output(b"{}".to_vec()))), Some(false));
        assert_eq!(mark_of(&TaskOutput::Commit2(Proof(vec![7; 192]))), Some(false));
        assert_eq!(pieces_in(&Pc1Output(b"{}".to_vec())), None);
    }

    #[test]
    fn what_stands_for_randomness_differs_by_sector_and_part() {
        let mut seen: Vec<[u8; 32]> = Vec::new();
        for number in 0..3 {
            for part in [Part::Data, Part::Replica, Part::Ticket, Part::Seed] {
                let bytes = bytes_of(SectorId::new(1000, number), part);
                assert!(is_marked(&bytes) && bytes[31] == 0 && !seen.contains(&bytes));
                seen.push(bytes);
            }
        }
        assert!(is_marked(&beacon()) && !seen.contains(&beacon()));
    }
}
