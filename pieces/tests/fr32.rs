//! Padding against a reference that moves one bit at a time, and the streaming forms against the plain one.
//!
//! Lotus's fr32 tests, and what stands for them here; all pass:
//!
//! | Lotus | here |
//! |---|---|
//! | TestPadChunkFFI, TestPadChunkRandEqFFI | `padding_moves_bits_like_the_reference_and_back`; against the proofs library: its room |
//! | TestRoundtrip, RoundtripChunkRand, Roundtrip16MRand | the same, and `sizes_that_no_power_of_two_divides_come_back` |
//! | RoundtripMisalignedSizes, UnpadMisalignedThreadBoundaries, PadUnpadVariousSizesAboveMTTresh | `sizes_that_no_power_of_two_divides_come_back` |
//! | TestUnpadReader, BufWithSmallWorkBuf, SmallReads, LargeReads, PartialPiece | `a_window_delivers_just_its_bytes`, `streams_longer_than_their_buffers_come_through` |
//! | TestUnpadReaderSizeMismatch (whole chunks, then EOF in Lotus) | `streams_that_end_inside_a_chunk_are_errors`: an error, never a short piece |
//! | TestPadWriterUnpadReader | `the_streams_pad_as_the_whole_does` |

use std::io::{ErrorKind, Read, Write};

use pieces::fr32::{self, Fr32Error, PadReader, PadWriter, UnpadReader, Window};
use proptest::prelude::*;

/// Moves bits one by one: each 254 raw bits are followed by two zero bits.
fn pad_slowly(raw: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; raw.len() / 127 * 128];
    for bit in 0..raw.len() * 8 {
        let to = bit / 254 * 256 + bit % 254;
        padded[to / 8] |= (raw[bit / 8] >> (bit % 8) & 1) << (to % 8);
    }
    padded
}

fn chunks(most: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..=most).prop_flat_map(|chunks| prop::collection::vec(any::<u8>(), chunks * 127))
}

proptest! {
    #[test]
    fn padding_moves_bits_like_the_reference_and_back(raw in chunks(9)) {
        let mut padded = vec![0xff; raw.len() / 127 * 128];
        fr32::pad(&raw, &mut padded).unwrap();
        prop_assert_eq!(&padded, &pad_slowly(&raw));
        let mut back = vec![0xff; raw.len()];
        fr32::unpad(&padded, &mut back).unwrap();
        prop_assert_eq!(back, raw);
    }

    #[test]
    fn unpadding_ignores_the_padding_bits(raw in chunks(2), noise: [bool; 8]) {
        let mut padded = pad_slowly(&raw);
        for (element, noise) in padded.chunks_exact_mut(32).zip(noise) {
            element[31] |= if noise { 0xc0 } else { 0x40 };
        }
        let mut back = vec![0; raw.len()];
        fr32::unpad(&padded, &mut back).unwrap();
        prop_assert_eq!(back, raw);
    }

    #[test]
    fn a_window_delivers_just_its_bytes(raw in chunks(9), a: prop::sample::Index, b: prop::sample::Index, step in 1usize..300) {
        let (a, b) = (a.index(raw.len() + 1), b.index(raw.len() + 1));
        let (start, end) = (a.min(b), a.max(b));
        let window = Window::new(start as u64, (end - start) as u64).unwrap();
        let padded = pad_slowly(&raw);
        let part = &padded[window.padded.start as usize..window.padded.end as usize];
        let mut reader = UnpadReader::new(part, &window);
        let (mut got, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 { break }
            got.extend_from_slice(&buffer[..count]);
        }
        prop_assert_eq!(&got, &raw[start..end]);
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn the_streams_pad_as_the_whole_does(raw in chunks(9), step in 1usize..300) {
        let mut read = Vec::new();
        PadReader::new(&raw[..]).read_to_end(&mut read).unwrap();
        prop_assert_eq!(&read, &pad_slowly(&raw));
        let mut writer = PadWriter::new(Vec::new());
        for part in raw.chunks(step) {
            writer.write_all(part).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap(), pad_slowly(&raw));
    }
}

#[test]
fn streams_longer_than_their_buffers_come_through() {
    let raw: Vec<u8> = (0..127 * 2000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut padded = Vec::new();
    PadReader::new(&raw[..]).read_to_end(&mut padded).unwrap();
    assert_eq!(padded, pad_slowly(&raw));
    let mut writer = PadWriter::new(Vec::new());
    writer.write_all(&raw).unwrap();
    assert_eq!(writer.finish().unwrap(), padded);
    let window = Window::new(100, raw.len() as u64 - 200).unwrap();
    let mut back = Vec::new();
    UnpadReader::new(&padded[window.padded.start as usize..], &window).read_to_end(&mut back).unwrap();
    assert_eq!(back, raw[100..raw.len() - 100]);
}

#[test]
fn lengths_that_make_no_chunks_are_refused() {
    let mut out = [0; 256];
    assert_eq!(fr32::pad(&[0; 126], &mut out), Err(Fr32Error::RawLength { bytes: 126 }));
    assert_eq!(fr32::pad(&[0; 127], &mut out), Err(Fr32Error::OutputLength { bytes: 256, expected: 128 }));
    assert_eq!(fr32::unpad(&[0; 129], &mut out), Err(Fr32Error::PaddedLength { bytes: 129 }));
    assert_eq!(fr32::unpad(&[0; 128], &mut out), Err(Fr32Error::OutputLength { bytes: 256, expected: 127 }));
    assert_eq!(Window::new(u64::MAX, 0), Err(Fr32Error::TooFar { offset: u64::MAX, len: 0 }));
    assert_eq!(Window::new(1, u64::MAX), Err(Fr32Error::TooFar { offset: 1, len: u64::MAX }));
    let longest = u64::MAX / 128 * 127;
    assert_eq!(Window::new(0, longest).unwrap().padded, 0..u64::MAX / 128 * 128);
    assert!(Window::new(0, longest + 1).is_err());
}

#[test]
fn streams_that_end_inside_a_chunk_are_errors() {
    let error = PadReader::new(&[1u8; 300][..]).read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut writer = PadWriter::new(Vec::new());
    writer.write_all(&[1; 300]).unwrap();
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::InvalidData);
    let window = Window::new(0, 254).unwrap();
    let error = UnpadReader::new(&[0u8; 200][..], &window).read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn sizes_that_no_power_of_two_divides_come_back() {
    // 66061 chunks once came back wrong in Lotus: its threads' shares were no whole chunks.
    for chunks in [1, 3, 4095, 4097, 8193, 66_061, 131_072] {
        let raw: Vec<u8> = (0..127 * chunks).map(|at| ((at * 31) ^ (at >> 9)) as u8).collect();
        let mut padded = vec![0xff; 128 * chunks];
        fr32::pad(&raw, &mut padded).unwrap();
        assert!(padded == pad_slowly(&raw), "{chunks} chunks");
        let mut back = vec![0xff; raw.len()];
        fr32::unpad(&padded, &mut back).unwrap();
        assert!(back == raw, "{chunks} chunks");
    }
}
