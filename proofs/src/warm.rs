//! What a process can make before it knows its task. Never: reads a setting, or starts a thread.

use std::hint::black_box;

use filecoin_hashers::{
    POSEIDON_CONSTANTS_2, POSEIDON_CONSTANTS_4, POSEIDON_CONSTANTS_8, POSEIDON_CONSTANTS_11,
};

/// Makes the constants of the hash that trees over replicas are built with, which the library makes when it first needs them:
/// of two, four and eight nodes, and of a column of eleven layers.
pub fn warm() {
    black_box(&*POSEIDON_CONSTANTS_2);
    black_box(&*POSEIDON_CONSTANTS_4);
    black_box(&*POSEIDON_CONSTANTS_8);
    black_box(&*POSEIDON_CONSTANTS_11);
}
