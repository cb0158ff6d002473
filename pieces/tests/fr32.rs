//! Padding against a reference that moves one bit at a time, and the streaming forms against the plain one.
//!
//! Lotus's fr32 tests, and what stands for them here; all pass:
//!
//! | Lotus | here |
//! |---|---|
//! | TestPadChunkFFI | `five_bytes_over_and_over_pad_like_the_reference_and_come_back`; against the proofs library's own padding: `proofs/tests/oracle.rs`, `add_piece_writes_what_the_library_writes` |
//! | TestPadChunkRandEqFFI | `padding_moves_bits_like_the_reference_and_back`; against the proofs library: there |
//! | TestRoundtrip | `five_bytes_over_and_over_pad_like_the_reference_and_come_back` |
//! | TestRoundtripChunkRand, Roundtrip16MRand | `padding_moves_bits_like_the_reference_and_back`, `sizes_that_no_power_of_two_divides_come_back` (16 MiB among them) |
//! | RoundtripMisalignedSizes, UnpadMisalignedThreadBoundaries, PadUnpadVariousSizesAboveMTTresh | `sizes_that_no_power_of_two_divides_come_back` |
//! | TestWriteTwoPcs | `add_piece.rs::a_long_piece_behind_another_comes_back_whole` (16 MiB each); four pieces as the proofs library writes them: `proofs/tests/oracle.rs`, as above |
//! | TestUnpadReader, BufWithSmallWorkBuf, SmallReads, LargeReads | `streams_longer_than_their_buffers_come_through`, `reads_of_any_size_deliver_all`, `a_window_delivers_just_its_bytes` |
//! | TestUnpadReaderPartialPiece and nine of TestUnpadReaderSizeMismatch: whole chunks, then the stream ends; Lotus delivers them and then says EOF | `streams_that_end_behind_a_chunk_are_errors_too`: they are delivered, and the end is an error, never a short piece |
//! | TestPadWriterUnpadReader | `the_streams_pad_as_the_whole_does` |
//!
//! `streams_that_end_inside_a_chunk_are_errors` asks what Lotus does not.

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

/// The bytes of Lotus's table: all ones, the lowest bit, the highest bit, none, the four in the middle.
#[test]
fn five_bytes_over_and_over_pad_like_the_reference_and_come_back() {
    for byte in [0xff, 0x01, 0x80, 0x00, 0x3c] {
        let raw = [byte; 127];
        let mut padded = [0xaa; 128];
        fr32::pad(&raw, &mut padded).unwrap();
        assert_eq!(padded[..], pad_slowly(&raw), "{byte:#04x}");
        assert!(padded.chunks(32).all(|element| element[31] & 0xc0 == 0), "{byte:#04x}: {padded:02x?}");
        let mut back = [0xaa; 127];
        fr32::unpad(&padded, &mut back).unwrap();
        assert_eq!(back, raw, "{byte:#04x}");
    }
    // By hand, so that the reference is not alone with itself: what is pushed out of an element begins the next.
    let mut padded = [0; 128];
    fr32::pad(&[0xff; 127], &mut padded).unwrap();
    let element = [[0xff; 31].as_slice(), &[0x3f]].concat();
    assert_eq!(padded.to_vec(), element.repeat(4));
    fr32::pad(&[0x80; 127], &mut padded).unwrap();
    assert_eq!((padded[30], padded[31], padded[32], padded[33], padded[64]), (0x80, 0, 2, 2, 8));
}

/// Delivers at most so many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let most = out.len().min(self.1);
        self.0.read(&mut out[..most])
    }
}

/// All that a reader delivers by reads of this size, and how it ends.
fn read_by(reader: &mut impl Read, step: usize) -> (Vec<u8>, std::io::Result<usize>) {
    let (mut got, mut buffer) = (Vec::new(), vec![0; step]);
    loop {
        match reader.read(&mut buffer) {
            Ok(count @ 1..) => got.extend_from_slice(&buffer[..count]),
            end => return (got, end),
        }
    }
}

/// Bytes whose place can be told from them.
fn counted(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 31) ^ (at >> 9)) as u8).collect()
}

#[test]
fn reads_of_any_size_deliver_all() {
    let raw = counted(127 * 9000);
    let mut padded = vec![0; 128 * 9000];
    fr32::pad(&raw, &mut padded).unwrap();
    let window = Window::new(0, raw.len() as u64).unwrap();
    for (step, trickle) in
        [(1, usize::MAX), (63, 1000), (127, 128), (128, 1), (4096, 127), (10 << 20, 65_537)]
    {
        let mut reader = UnpadReader::new(Trickle(&padded, trickle), &window);
        let (got, end) = read_by(&mut reader, step);
        assert!(got == raw && matches!(end, Ok(0)), "reads of {step} bytes: {} came, {end:?}", got.len());
    }
}

/// A buffer of the reader holds 512 chunks; 4096 of them are Lotus's threshold for threads, 65536 are 8 MiB.
#[test]
fn streams_that_end_behind_a_chunk_are_errors_too() {
    const BUFFERED: usize = 512;
    let whole = 70_000;
    let raw = counted(127 * whole);
    let mut padded = vec![0; 128 * whole];
    fr32::pad(&raw, &mut padded).unwrap();
    let window = Window::new(0, raw.len() as u64).unwrap();
    for chunks in [0, 1, 100, BUFFERED, BUFFERED + 1, 4096, 65_536, 66_068] {
        for step in [100, 4096, 127 * 100, 10 << 20].into_iter().chain((chunks < 5000).then_some(1)) {
            let mut reader = UnpadReader::new(&padded[..128 * chunks], &window);
            let (got, end) = read_by(&mut reader, step);
            // What fills a buffer is delivered; of a part of one nobody could tell whether it is the end.
            let delivered = 127 * (chunks - chunks % BUFFERED);
            assert!(got == raw[..delivered], "{chunks} chunks, reads of {step}: {} came", got.len());
            assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{chunks} chunks, reads of {step}");
            assert_eq!(reader.remaining(), (raw.len() - delivered) as u64);
        }
    }
    // The same at an offset, as a piece's part is read.
    let part = Window::new(127 * 8192, 127 * 4096).unwrap();
    let from = part.padded.start as usize;
    let mut reader = UnpadReader::new(&padded[from..from + 128 * 1024], &part);
    let (got, end) = read_by(&mut reader, 1000);
    assert!(got == raw[127 * 8192..127 * (8192 + 1024)]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
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
