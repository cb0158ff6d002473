//! The run-length code: the examples of its format, its one shortest form, and bytes that are no code.

use std::collections::BTreeSet;

use pieces::ranges::Ranges;
use pieces::rle::{RleError, decode, encode};
use proptest::prelude::*;

fn set(ranges: &[(u64, u64)]) -> Ranges {
    let mut set = Ranges::default();
    ranges.iter().for_each(|(start, end)| set.insert(*start..*end));
    set
}

#[test]
fn the_examples_code_byte_for_byte() {
    type Example = (&'static [(u64, u64)], &'static [u8]);
    let examples: [Example; 6] = [
        (&[], &[]),
        (&[(0, 2048)], &[0x04, 0x10, 0x02]),
        (&[(0, 1024)], &[0x04, 0x10, 0x01]),
        // By hand: version 00, first run set 1, a run of one 1: 0011 lowest first.
        (&[(0, 1)], &[0b0000_1100]),
        // 00, not set 0, run of 2 = 01 0100, run of one 1.
        (&[(2, 3)], &[0b0101_0000, 0b0000_0010]),
        // 00, 1, run of 15 = 01 1111.
        (&[(0, 15)], &[0b1111_0100, 0b0000_0001]),
    ];
    for (ranges, code) in examples {
        assert_eq!(encode(&set(ranges)), code, "{ranges:?}");
        assert_eq!(decode(code, 2048).unwrap(), set(ranges), "{code:02x?}");
    }
}

#[test]
fn an_unset_run_at_the_end_is_accepted() {
    // 00 1, run of one 1, then unset: run of 3 = 01 1100.
    assert_eq!(decode(&[0b1010_1100, 0b0000_0001], 4).unwrap(), set(&[(0, 1)]));
    // Nor does it matter that it runs beyond the limit.
    assert_eq!(decode(&[0b1010_1100, 0b0000_0001], 1).unwrap(), set(&[(0, 1)]));
}

#[test]
fn bytes_that_are_no_code_are_refused() {
    assert_eq!(decode(&[0x04, 0x00], 10), Err(RleError::TrailingZero));
    assert_eq!(decode(&[0x05], 10), Err(RleError::Version { version: 1 }));
    assert_eq!(decode(&[0x04, 0x10, 0x02], 2047), Err(RleError::BeyondLimit { end: 2048, limit: 2047 }));
    // A long run whose number is 0, with more behind it.
    assert_eq!(decode(&[0x04, 0xe0], 10), Err(RleError::EmptyRun));
    // A number that says it goes on where the code ends.
    assert_eq!(decode(&[0x04, 0x10], 1 << 40), Err(RleError::CutNumber));
    // Bytes that all go on, beyond 64 bits.
    let endless = [&[0b1110_0100][..], &[0xff; 12]].concat();
    assert_eq!(decode(&endless, u64::MAX), Err(RleError::RunTooLong));
    assert_eq!(decode(&[0xff; 14], 10), Err(RleError::Version { version: 3 }));
}

proptest! {
    #[test]
    fn sets_come_back_in_their_shortest_form(runs in prop::collection::vec((1u64..1 << 36, 1u64..1 << 36), 0..40), at_zero: bool) {
        let (mut set, mut at) = (Ranges::default(), 0);
        for (index, (gap, len)) in runs.into_iter().enumerate() {
            // Many short ones among the long.
            let (gap, len) = if index % 3 == 0 { (gap, len) } else { (gap % 18 + 1, len % 18 + 1) };
            at += if index == 0 && at_zero { 0 } else { gap };
            set.insert(at..at + len);
            at += len;
        }
        let code = encode(&set);
        prop_assert_ne!(code.last(), Some(&0));
        let back = decode(&code, at).unwrap();
        prop_assert_eq!(encode(&back), code.clone());
        prop_assert_eq!(back, set);
        if at > 0 {
            prop_assert!(decode(&code, at - 1).is_err());
        }
    }

    #[test]
    fn any_bytes_decode_to_something_within_the_limit_or_fail(code in prop::collection::vec(any::<u8>(), 0..200), limit: u64) {
        if let Ok(set) = decode(&code, limit) {
            prop_assert!(set.end() <= limit);
            // What it stands for has a form of its own that stands for the same.
            prop_assert_eq!(decode(&encode(&set), limit).unwrap(), set);
        }
    }

    #[test]
    fn ranges_are_the_set_of_their_offsets(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..30), probe in (0u64..40, 0u64..12)) {
        let (mut ranges, mut slow) = (Ranges::default(), BTreeSet::new());
        for (insert, start, len) in steps {
            if insert {
                ranges.insert(start..start + len);
                slow.extend(start..start + len);
            } else {
                ranges.remove(start..start + len);
                slow.retain(|offset| !(start..start + len).contains(offset));
            }
        }
        let members = |ranges: &Ranges| ranges.iter().flatten().collect::<BTreeSet<_>>();
        prop_assert_eq!(&members(&ranges), &slow);
        prop_assert_eq!(ranges.count(), slow.len() as u64);
        prop_assert_eq!(ranges.end(), slow.last().map_or(0, |last| last + 1));
        let runs: Vec<_> = ranges.iter().collect();
        prop_assert!(runs.iter().all(|run| !run.is_empty()));
        prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        let span = probe.0..probe.0 + probe.1;
        prop_assert_eq!(ranges.contains(span.clone()), span.clone().all(|offset| slow.contains(&offset)));
        prop_assert_eq!(members(&ranges.within(span.clone())), slow.iter().copied().filter(|o| span.contains(o)).collect());
        prop_assert_eq!(members(&ranges.gaps(52)), (0..52).filter(|o| !slow.contains(o)).collect());
    }
}
