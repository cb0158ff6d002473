//! Our registered seal proofs and the library's, one to one.

use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof as Library};
use sealtasks::{RegisteredSealProof, SectorSize};

/// The library's proofs in the order of their numbers on chain (0 to 19).
const BY_NUMBER: [Library; 20] = [
    Library::StackedDrg2KiBV1,
    Library::StackedDrg8MiBV1,
    Library::StackedDrg512MiBV1,
    Library::StackedDrg32GiBV1,
    Library::StackedDrg64GiBV1,
    Library::StackedDrg2KiBV1_1,
    Library::StackedDrg8MiBV1_1,
    Library::StackedDrg512MiBV1_1,
    Library::StackedDrg32GiBV1_1,
    Library::StackedDrg64GiBV1_1,
    Library::StackedDrg2KiBV1_1_Feat_SyntheticPoRep,
    Library::StackedDrg8MiBV1_1_Feat_SyntheticPoRep,
    Library::StackedDrg512MiBV1_1_Feat_SyntheticPoRep,
    Library::StackedDrg32GiBV1_1_Feat_SyntheticPoRep,
    Library::StackedDrg64GiBV1_1_Feat_SyntheticPoRep,
    Library::StackedDrg2KiBV1_2_Feat_NonInteractivePoRep,
    Library::StackedDrg8MiBV1_2_Feat_NonInteractivePoRep,
    Library::StackedDrg512MiBV1_2_Feat_NonInteractivePoRep,
    Library::StackedDrg32GiBV1_2_Feat_NonInteractivePoRep,
    Library::StackedDrg64GiBV1_2_Feat_NonInteractivePoRep,
];

/// The library's name for a proof.
pub fn to_library(proof: RegisteredSealProof) -> Library {
    // The number is 0 to 19 by construction of the type.
    BY_NUMBER[proof.number() as usize]
}

/// The window PoSt of sectors with this proof; version 1.2, which new networks have.
pub fn window_post(proof: RegisteredSealProof) -> RegisteredPoStProof {
    match proof.sector_size() {
        SectorSize::KiB2 => RegisteredPoStProof::StackedDrgWindow2KiBV1_2,
        SectorSize::MiB8 => RegisteredPoStProof::StackedDrgWindow8MiBV1_2,
        SectorSize::MiB512 => RegisteredPoStProof::StackedDrgWindow512MiBV1_2,
        SectorSize::GiB32 => RegisteredPoStProof::StackedDrgWindow32GiBV1_2,
        SectorSize::GiB64 => RegisteredPoStProof::StackedDrgWindow64GiBV1_2,
    }
}

/// Our name for a library proof.
pub fn from_library(proof: Library) -> RegisteredSealProof {
    RegisteredSealProof::all()
        .find(|ours| to_library(*ours) == proof)
        .expect("the table holds every proof of the library version it is built with")
}

#[cfg(test)]
mod tests {
    use filecoin_proofs_api::{ApiFeature, ApiVersion};
    use sealtasks::{ProofFeature, ProofVersion};

    use super::*;

    #[test]
    fn every_proof_maps_to_the_one_of_its_number_size_and_feature() {
        for ours in RegisteredSealProof::all() {
            let theirs = to_library(ours);
            assert_eq!(from_library(theirs), ours);
            assert_eq!(u64::from(theirs.sector_size()), ours.sector_size().bytes());
            // The first eight bytes of the porep id are the proof's number on chain.
            let id = theirs.as_v1_config().porep_id;
            assert_eq!(id[..8], ours.number().to_le_bytes());
            assert_eq!(theirs.version() == ApiVersion::V1_0_0, ours.version() == ProofVersion::V1);
            let feature = |f| theirs.feature_enabled(f);
            assert_eq!(feature(ApiFeature::SyntheticPoRep), ours.feature() == ProofFeature::Synthetic);
            assert_eq!(
                feature(ApiFeature::NonInteractivePoRep),
                ours.feature() == ProofFeature::NonInteractive
            );
        }
    }
}
