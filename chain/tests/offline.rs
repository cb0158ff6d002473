//! The offline beacon: always the same, different for everything that should differ, and only for the test sizes.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use chain::{BeaconSecret, Chain, ChainError, Offline};
use sealtasks::{
    ChainEpoch, Commitment, RegisteredSealProof, SealedCid, SectorId, SectorRef, SectorSize, Seed, Ticket,
};

/// The offline beacon never waits for anything, so one poll must do.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the offline beacon waits"),
    }
}

fn beacon(byte: u8) -> Offline {
    Offline::new(BeaconSecret::new([byte; 32]))
}

fn sector(miner: u64, number: u64) -> SectorRef {
    SectorRef {
        id: SectorId::new(miner, number),
        proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2),
    }
}

fn ticket(beacon: &Offline, sector: SectorRef) -> Result<Ticket, ChainError> {
    now(beacon.ticket(sector)).map(|(ticket, epoch)| {
        assert_eq!(epoch, ChainEpoch::new(0));
        ticket
    })
}

fn seed(beacon: &Offline, sector: SectorRef) -> Result<Seed, ChainError> {
    let sealed = SealedCid::new(Commitment::new([1; 32]));
    now(beacon.seed(sector, sealed)).map(|(seed, _)| seed)
}

#[test]
fn the_same_question_has_the_same_answer_and_every_other_another() {
    let mut seen = BTreeSet::new();
    for byte in [0, 1] {
        for miner in [1000, 1001, 1 << 22] {
            for number in [0, 1, 2] {
                let sector = sector(miner, number);
                let (ticket, seed) =
                    (ticket(&beacon(byte), sector).unwrap(), seed(&beacon(byte), sector).unwrap());
                assert_eq!(ticket, self::ticket(&beacon(byte), sector).unwrap());
                assert!(seen.insert(ticket.0) && seen.insert(seed.0), "{sector:?} shares its randomness");
            }
        }
    }
}

/// A later version must not change the tickets of sectors that exist. The bytes were computed
/// with another implementation of BLAKE3.
#[test]
fn the_derivation_stays() {
    let beacon = beacon(7);
    assert_eq!(
        ticket(&beacon, sector(1000, 1)).unwrap().to_string(),
        "2c1c6cf2a17d573b1a47dbd6d60d68171a268a8d479edb79989198f566243b3d"
    );
    assert_eq!(
        seed(&beacon, sector(1000, 1)).unwrap().to_string(),
        "0df5f494f6a0a290d81f49bf72fa8cdfef20f42e70d7c3b0b2fcb513536c7409"
    );
}

#[test]
fn the_bytes_are_a_field_element() {
    for number in 0..256 {
        let sector = sector(1000, number);
        let (ticket, seed) = (ticket(&beacon(3), sector).unwrap(), seed(&beacon(3), sector).unwrap());
        assert!(ticket.0[31] < 0x40 && seed.0[31] < 0x40, "sector {number}");
    }
}

#[test]
fn only_test_sizes_go_without_a_chain() {
    for proof in RegisteredSealProof::all() {
        let sector = SectorRef { id: SectorId::new(1000, 1), proof };
        let size = proof.sector_size();
        let served = matches!(size, SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512);
        assert_eq!(Offline::check(sector).is_ok(), served, "{size}");
        assert_eq!(ticket(&beacon(1), sector).is_ok(), served, "{size}");
        assert_eq!(seed(&beacon(1), sector).is_ok(), served, "{size}");
    }
    let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
    let error = Offline::check(SectorRef { id: SectorId::new(1000, 4), proof }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "32GiB sectors need a chain: set FULLNODE_API_INFO to a Lotus node's API info (sector s-t01000-4)"
    );
    assert!(error.is_permanent());
}

#[test]
fn the_secret_is_not_shown() {
    assert_eq!(format!("{:?}", beacon(0x5a)), "Offline { secret: BeaconSecret(…) }");
    assert_eq!(beacon(1).name(), "offline");
}
