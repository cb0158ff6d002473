//! When a sector is pledged by itself: each condition alone stands in the way.

use pipeline::{BEFORE_PC1_MAX, Hindrance, Pledging};

const FREE: Pledging = Pledging {
    keep: 10,
    in_pipeline: 9,
    parked: 3,
    parked_max: 3,
    paused: false,
    workers: (1, 1),
    before_pc1: BEFORE_PC1_MAX - 1,
    sealing: (100, 100),
    storage: (10, 10),
};

#[test]
fn each_condition_alone_stands_in_the_way() {
    assert_eq!(FREE.hindrance(), None);
    for (facts, hindrance) in [
        (Pledging { keep: 0, ..FREE }, Hindrance::Off),
        (Pledging { paused: true, ..FREE }, Hindrance::Paused),
        (Pledging { in_pipeline: 10, ..FREE }, Hindrance::Full),
        (Pledging { parked: 4, ..FREE }, Hindrance::Parked),
        (Pledging { workers: (0, 1), ..FREE }, Hindrance::NoWorker),
        (Pledging { workers: (1, 0), ..FREE }, Hindrance::NoWorker),
        (Pledging { before_pc1: BEFORE_PC1_MAX, ..FREE }, Hindrance::Pc1Busy),
        (Pledging { sealing: (99, 100), ..FREE }, Hindrance::NoSealingSpace),
        (Pledging { storage: (9, 10), ..FREE }, Hindrance::NoStorageSpace),
    ] {
        assert_eq!(facts.hindrance(), Some(hindrance), "{facts:?}");
    }
}
