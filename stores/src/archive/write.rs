//! Writing a directory as a tar stream.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::{Bytes, BytesMut};
use tar::{EntryType, Header};

use super::{BLOCK, padding};
use crate::error::StoreError;
use crate::members::{self, Manifest};

/// Read and handed on in pieces of this size (bytes); the buffer is used again once it was sent.
const CHUNK: usize = 1 << 20;
/// From here on a size needs a PAX record: the plain header has eleven octal digits.
const PLAIN_SIZE_MAX: u64 = (8 << 30) - 1;

/// Sends the files that `manifest` names, in name order, then the end blocks. `emit` returns false when nobody listens
/// any more.
///
/// # Errors
/// When a file cannot be read, or no longer has the length that `manifest` says: the receiver must see a broken body,
/// never a short one.
pub(crate) fn send(
    dir: &Path,
    manifest: &Manifest,
    emit: &mut dyn FnMut(Bytes) -> bool,
) -> Result<(), StoreError> {
    let mut buffer = BytesMut::new();
    for (name, size) in &manifest.0 {
        let path = dir.join(name);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        if !emit(headers(name, *size, mtime(&file))?) || !send_file(&path, file, *size, &mut buffer, emit)? {
            return Ok(());
        }
    }
    emit(Bytes::from_static(&[0; 2 * BLOCK]));
    Ok(())
}

fn send_file(
    path: &Path,
    mut file: File,
    size: u64,
    buffer: &mut BytesMut,
    emit: &mut dyn FnMut(Bytes) -> bool,
) -> Result<bool, StoreError> {
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        buffer.resize(most, 0);
        let got = file.read(buffer).map_err(StoreError::io("read", path))?;
        if got == 0 {
            let reason = format!("{path:?} became {left} bytes shorter while it was sent");
            return Err(StoreError::Archive { reason });
        }
        left -= got as u64;
        if !emit(buffer.split_to(got).freeze()) {
            return Ok(false);
        }
    }
    let filling = padding(size);
    Ok(filling == 0 || emit(Bytes::from_static(&[0; BLOCK]).slice(..filling)))
}

fn headers(name: &str, size: u64, mtime: u64) -> Result<Bytes, StoreError> {
    let mut out = Vec::new();
    if size > PLAIN_SIZE_MAX {
        let record = pax_record("size", &size.to_string());
        out.extend(
            header(&format!("PaxHeaders.0/{name}"), record.len() as u64, EntryType::XHeader, 0)?.as_bytes(),
        );
        out.extend(record.as_bytes());
        out.resize(2 * BLOCK, 0);
    }
    let plain = if size > PLAIN_SIZE_MAX { 0 } else { size };
    out.extend(header(name, plain, EntryType::Regular, mtime)?.as_bytes());
    Ok(out.into())
}

fn header(name: &str, size: u64, kind: EntryType, mtime: u64) -> Result<Header, StoreError> {
    let mut header = Header::new_ustar();
    header
        .set_path(name)
        .map_err(|error| StoreError::Archive { reason: format!("{name:?} fits no header: {error}") })?;
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_cksum();
    Ok(header)
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

fn mtime(file: &File) -> u64 {
    let modified = file.metadata().and_then(|found| found.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

impl Manifest {
    /// Names and lengths of the sector's files in its directory. Anything else there is named in a warning and not sent:
    /// no peer would take it.
    pub(crate) fn of_dir(dir: &Path) -> Result<Self, StoreError> {
        let mut files = Self::default();
        for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
            let path = entry.map_err(StoreError::io("list", dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let found = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
            match name.filter(|name| members::size_max(name).is_some() && found.is_file()) {
                Some(name) => {
                    files.0.insert(name.to_owned(), found.len());
                }
                None => tracing::warn!(?path, "foreign file in a sector's directory is not sent"),
            }
        }
        Ok(files)
    }
}
