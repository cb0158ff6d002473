//! The two small files by which programs on the same host find a running manager or worker: `api` (its address as a
//! multiaddr, there while it runs) and `token` (mode 0600). Both as Lotus writes them: no newline at the end, and
//! trimmed when read. Knows nothing of what the repo holds besides.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longer than any address or token; a bigger file is something else.
const FILE_SIZE_MAX: u64 = 64 << 10;

/// Says where the API is.
///
/// # Errors
/// The file system's refusal.
pub fn write_api(repo: &Path, address: &str) -> Result<(), RepoFileError> {
    write(&repo.join("api"), address, 0o644)
}

/// Where the API is; `None` when nothing runs here.
///
/// # Errors
/// The file system's refusal, or a file too large to be an address.
pub fn read_api(repo: &Path) -> Result<Option<String>, RepoFileError> {
    read(&repo.join("api"))
}

/// Takes the address away on a clean end. Nothing there is fine.
///
/// # Errors
/// The file system's refusal.
pub fn remove_api(repo: &Path) -> Result<(), RepoFileError> {
    let path = repo.join("api");
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RepoFileError { path, source }),
        _ => Ok(()),
    }
}

/// Leaves a token for programs of the same user.
///
/// # Errors
/// The file system's refusal.
pub fn write_token(repo: &Path, token: &str) -> Result<(), RepoFileError> {
    write(&repo.join("token"), token, 0o600)
}

/// The token; `None` when there is none.
///
/// # Errors
/// The file system's refusal, or a file too large to be a token.
pub fn read_token(repo: &Path) -> Result<Option<String>, RepoFileError> {
    read(&repo.join("token"))
}

/// Written beside and renamed: a reader sees the old text or the new one, never half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), RepoFileError> {
    let io_error = |source| RepoFileError { path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(io_error)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io_error)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error)?;
    fs::rename(&temporary, path).map_err(io_error)
}

fn read(path: &Path) -> Result<Option<String>, RepoFileError> {
    let io_error = |source| RepoFileError { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    if file.metadata().map_err(io_error)?.len() > FILE_SIZE_MAX {
        return Err(io_error(io::Error::new(io::ErrorKind::InvalidData, "larger than 64 KiB")));
    }
    let text = io::read_to_string(file).map_err(io_error)?;
    let text = text.trim();
    Ok(if text.is_empty() { None } else { Some(text.to_owned()) })
}

/// A repo file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read or written", .path.display())]
pub struct RepoFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}
