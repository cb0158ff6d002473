//! Reading a tar stream into a fresh directory, or only for what is in it.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;

use tar::{EntryType, Header, PaxExtensions};

use super::{BLOCK, padding};
use crate::disk;
use crate::error::StoreError;
use crate::members::{self, Manifest};

/// A PAX header carries a few short records; more is refused (bytes).
const PAX_BYTES_MAX: u64 = 16 << 10;
/// Each file has its header, and a PAX header or two before it.
const HEADERS_MAX: usize = 4 * members::MEMBERS_MAX;
/// What may follow the end blocks: the filling of a tape record, no more (bytes).
const TRAILING_MAX: usize = 1 << 20;
/// Buffer in front of each file (bytes).
const WRITE_BUFFER: usize = 1 << 20;

/// Writes the stream's files into `dir`, which must be empty, syncs them, and returns their names and lengths.
///
/// Refused are names and sizes outside the list of a sector's files, anything but regular files, a bad checksum, and
/// a stream that ends within a member. What was written before a refusal stays: the caller discards `dir`.
pub(crate) fn extract(stream: &mut impl BufRead, dir: &Path) -> Result<Manifest, StoreError> {
    let manifest = members(stream, |stream, name, size| write_member(stream, &dir.join(name), size))?;
    disk::sync_dir(dir)?;
    Ok(manifest)
}

/// Names and lengths of the stream's files, every byte of which came. Refuses what [`extract`] refuses.
pub(crate) fn list(stream: &mut impl BufRead) -> Result<Manifest, StoreError> {
    members(stream, |stream, name, size| pass(stream, name, size, |_| Ok(())))
}

/// Goes through a stream; `take` reads each file's bytes.
fn members<R: BufRead>(
    stream: &mut R,
    mut take: impl FnMut(&mut R, &str, u64) -> Result<(), StoreError>,
) -> Result<Manifest, StoreError> {
    let mut manifest = Manifest::default();
    let mut long = Pax::default();
    let mut headers = 0;
    while let Some(header) = next_header(stream)? {
        headers += 1;
        if headers > HEADERS_MAX {
            return Err(refused(format!("more than {HEADERS_MAX} headers")));
        }
        let size = header
            .entry_size()
            .map_err(|error| refused(format!("a header's size is unreadable: {error}")))?;
        match header.entry_type() {
            EntryType::XHeader => long = read_pax(stream, size)?,
            EntryType::XGlobalHeader => {
                read_pax(stream, size)?;
            }
            EntryType::Regular => {
                let pax = std::mem::take(&mut long);
                let size = pax.size.unwrap_or(size);
                let name = member_name(pax.path.as_deref().unwrap_or(&header.path_bytes()), size)?;
                if manifest.0.insert(name.clone(), size).is_some() {
                    return Err(refused(format!("{name} comes twice")));
                }
                take(stream, &name, size)?;
                if !skip_padding(stream, size)? {
                    break;
                }
            }
            other => return Err(refused(format!("a member of type {other:?}; expected regular files only"))),
        }
    }
    drain(stream)?;
    Ok(manifest)
}

#[derive(Default)]
struct Pax {
    size: Option<u64>,
    path: Option<Vec<u8>>,
}

/// `None` at the end: an end block, or the end of a stream that has none.
fn next_header(stream: &mut impl BufRead) -> Result<Option<Header>, StoreError> {
    let mut header = Header::new_old();
    let got = read_up_to(stream, header.as_mut_bytes())?;
    if got == 0 || (got == BLOCK && header.as_bytes().iter().all(|byte| *byte == 0)) {
        return Ok(None);
    }
    if got < BLOCK {
        return Err(refused("it ends within a header".to_owned()));
    }
    // The checksum counts its own eight bytes as spaces.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let bytes = header.as_bytes();
    let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
    match header.cksum() {
        Ok(found) if found == expected => Ok(Some(header)),
        _ => Err(refused("a header's checksum is wrong".to_owned())),
    }
}

fn read_pax(stream: &mut impl BufRead, size: u64) -> Result<Pax, StoreError> {
    let length = usize::try_from(size).ok().filter(|_| size <= PAX_BYTES_MAX);
    let length =
        length.ok_or_else(|| refused(format!("a PAX header of {size} bytes; at most {PAX_BYTES_MAX}")))?;
    let mut bytes = vec![0; length];
    if read_up_to(stream, &mut bytes)? < length || !skip_padding(stream, size)? {
        return Err(refused("it ends within a PAX header".to_owned()));
    }
    let mut pax = Pax::default();
    for record in PaxExtensions::new(&bytes) {
        let record = record.map_err(|error| refused(format!("a PAX record is unreadable: {error}")))?;
        match record.key_bytes() {
            b"size" => {
                let size = record.value().ok().and_then(|text| text.parse().ok());
                pax.size = Some(size.ok_or_else(|| refused("a PAX size is no number".to_owned()))?);
            }
            b"path" => pax.path = Some(record.value_bytes().to_owned()),
            _ => {}
        }
    }
    Ok(pax)
}

fn member_name(bytes: &[u8], size: u64) -> Result<String, StoreError> {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
    let name = std::str::from_utf8(bytes).ok().filter(|name| members::size_max(name).is_some());
    let name = name.ok_or_else(|| refused(format!("{:?} is no file of a sector's directory", shown())))?;
    match members::size_max(name) {
        Some(most) if size <= most => Ok(name.to_owned()),
        most => Err(refused(format!("{name} has {size} bytes; at most {}", most.unwrap_or(0)))),
    }
}

fn write_member(stream: &mut impl BufRead, path: &Path, size: u64) -> Result<(), StoreError> {
    let mut out = BufWriter::with_capacity(WRITE_BUFFER, disk::create_new(path)?);
    pass(stream, path, size, |part| out.write_all(part).map_err(StoreError::io("write", path)))?;
    let file = out.into_inner().map_err(|error| StoreError::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(StoreError::io("sync", path))
}

/// Hands on `size` bytes of the stream, part by part; `name` is for the error.
fn pass(
    stream: &mut impl BufRead,
    name: impl std::fmt::Debug,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut left = size;
    while left > 0 {
        let chunk = fill(stream)?;
        if chunk.is_empty() {
            return Err(refused(format!("it ends {left} bytes before the end of {name:?}")));
        }
        let part = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        take(part)?;
        let used = part.len();
        left -= used as u64;
        stream.consume(used);
    }
    Ok(())
}

/// Whether the stream goes on. Lotus leaves the last member's padding out.
fn skip_padding(stream: &mut impl BufRead, size: u64) -> Result<bool, StoreError> {
    let mut filling = [0; BLOCK];
    let wanted = padding(size);
    Ok(read_up_to(stream, &mut filling[..wanted])? == wanted)
}

/// Reads to the end of the body, so that a transfer cut short there is noticed too.
fn drain(stream: &mut impl BufRead) -> Result<(), StoreError> {
    let mut trailing = 0_usize;
    loop {
        let got = fill(stream)?.len();
        if got == 0 {
            return Ok(());
        }
        trailing += got;
        if trailing > TRAILING_MAX {
            return Err(refused(format!("more than {TRAILING_MAX} bytes follow its end")));
        }
        stream.consume(got);
    }
}

fn read_up_to(stream: &mut impl BufRead, into: &mut [u8]) -> Result<usize, StoreError> {
    let mut done = 0;
    while done < into.len() {
        let chunk = fill(stream)?;
        let part = chunk.len().min(into.len() - done);
        if part == 0 {
            break;
        }
        into[done..done + part].copy_from_slice(&chunk[..part]);
        stream.consume(part);
        done += part;
    }
    Ok(done)
}

fn fill<R: BufRead>(stream: &mut R) -> Result<&[u8], StoreError> {
    stream.fill_buf().map_err(broken)
}

fn broken(error: io::Error) -> StoreError {
    refused(format!("the transfer broke off: {error}"))
}

fn refused(reason: String) -> StoreError {
    StoreError::Archive { reason }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn header(name: &str, size: u64, kind: EntryType) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_size(size);
        header.set_entry_type(kind);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    /// A PAX header of this kind with its record, in two blocks.
    fn said_before(kind: EntryType, record: &[u8]) -> Vec<u8> {
        let mut stream = header("x", record.len() as u64, kind);
        stream.extend(record);
        stream.resize(2 * BLOCK, 0);
        stream
    }

    fn check(stream: Vec<u8>) -> Result<Manifest, StoreError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        extract(&mut Cursor::new(stream), dir.path())
    }

    #[test]
    fn unterminated_stream_without_the_last_padding_is_whole() {
        let mut stream = header("p_aux", 64, EntryType::Regular);
        stream.extend([7; BLOCK]);
        stream.truncate(BLOCK + 64);
        assert_eq!(check(stream).expect("Lotus sends it so").0, [("p_aux".to_owned(), 64)].into());
    }

    #[test]
    fn stream_cut_within_a_member_is_refused() {
        let mut stream = header("p_aux", 64, EntryType::Regular);
        stream.extend([7; 63]);
        assert!(
            check(stream).expect_err("one byte is missing").to_string().contains("1 bytes before the end")
        );
    }

    #[test]
    fn a_stream_of_headers_without_end_is_refused() {
        let one = said_before(EntryType::XGlobalHeader, b"11 size=64\n");
        let error = check(one.repeat(HEADERS_MAX + 1)).expect_err("never a file").to_string();
        assert!(error.contains("headers"), "{error}");
    }

    #[test]
    fn pax_size_overrides_the_header() {
        let mut stream = said_before(EntryType::XHeader, b"11 size=64\n");
        stream.extend(header("p_aux", 0, EntryType::Regular));
        stream.extend([1; 64]);
        assert_eq!(check(stream).expect("a PAX size").0, [("p_aux".to_owned(), 64)].into());
    }

    #[test]
    fn sizes_of_8_gib_and_more_are_read_from_pax() {
        // The stream ends at once: the message shows that the size was understood and accepted.
        let mut stream = said_before(EntryType::XHeader, b"20 size=34359738368\n");
        stream.extend(header("sc-02-data-layer-1.dat", 0, EntryType::Regular));
        let error = check(stream).expect_err("the layer is missing").to_string();
        assert!(error.contains("34359738368 bytes before the end"), "{error}");
    }

    #[test]
    fn names_and_types_outside_the_list_are_refused() {
        let cases = [
            ("../p_aux", 1, EntryType::Regular, "no file of a sector"),
            ("a/p_aux", 1, EntryType::Regular, "no file of a sector"),
            ("sc-02-data-layer-12.dat", 1, EntryType::Regular, "no file of a sector"),
            ("sc-02-data-layer-01.dat", 1, EntryType::Regular, "no file of a sector"),
            ("p_aux", 65, EntryType::Regular, "at most 64"),
            ("p_aux", 0, EntryType::Symlink, "regular files only"),
            ("p_aux", 0, EntryType::Directory, "regular files only"),
        ];
        for (name, size, kind, expected) in cases {
            let mut raw = Header::new_ustar();
            raw.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            raw.set_size(size);
            raw.set_entry_type(kind);
            raw.set_cksum();
            let mut stream = raw.as_bytes().to_vec();
            stream.extend([0; 2 * BLOCK]);
            let error = check(stream).expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
