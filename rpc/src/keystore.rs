//! The file in a repo that keeps the token secret, where Lotus keeps it and as Lotus writes it, so that a Lotus repo's
//! tokens stay valid. Refuses a file that others can read. Keeps no other key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::token::{Secret, TokenError};

/// The key's file: base32 of `auth-jwt-private`, unpadded.
const FILE_NAME: &str = "MF2XI2BNNJ3XILLQOJUXMYLUMU";
/// What the key is for, as Lotus names it.
const KEY_TYPE: &str = "jwt-hmac-secret";
/// A key file is about 100 bytes; anything longer than this is something else.
const FILE_SIZE_MAX: u64 = 64 << 10;

/// Where the secret lies in a repo.
pub fn path(repo: &Path) -> PathBuf {
    repo.join("keystore").join(FILE_NAME)
}

/// Reads the secret, or makes one when there is none. The flag is true when it was made just now: then the repo's
/// `token` file must be written too. The caller holds the repo's lock.
///
/// # Errors
/// See [`KeystoreError`].
pub fn load_or_create(repo: &Path) -> Result<(Secret, bool), KeystoreError> {
    if let Some(secret) = load(repo)? {
        return Ok((secret, false));
    }
    let secret = Secret::generate().map_err(|source| KeystoreError::Random { source })?;
    create(repo, &secret)?;
    Ok((secret, true))
}

/// Reads the secret; `None` when the repo has none.
///
/// # Errors
/// See [`KeystoreError`].
pub fn load(repo: &Path) -> Result<Option<Secret>, KeystoreError> {
    let path = path(repo);
    let io_error = |source| KeystoreError::Io { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let mode = file.metadata().map_err(io_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::Exposed { path, mode });
    }
    let mut text = String::new();
    file.take(FILE_SIZE_MAX).read_to_string(&mut text).map_err(io_error)?;
    decode(&text).map(Some).map_err(|detail| KeystoreError::Malformed { path, detail })
}

/// Writes a new secret: directory 0700, file 0600, on disk before this returns. Never replaces one.
///
/// # Errors
/// There is one already, or the file system's refusal.
pub fn create(repo: &Path, secret: &Secret) -> Result<(), KeystoreError> {
    let path = path(repo);
    let io_error = |source| KeystoreError::Io { path: path.clone(), source };
    let directory = repo.join("keystore");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(io_error)?;
    let key = KeyFile { key_type: KEY_TYPE.to_owned(), private_key: STANDARD.encode(secret.bytes()) };
    let text = serde_json::to_string(&key).map_err(|source| io_error(source.into()))?;
    // Written under another name first: a crash must not leave half a secret, which would read as a malformed one.
    let temporary = directory.join(format!("{FILE_NAME}.new"));
    // One left by a crash may be linked to the key itself, so it is unlinked and never truncated.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io_error)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io_error)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error)?;
    // A link, not a rename: it fails when the name is taken.
    fs::hard_link(&temporary, &path).map_err(io_error)?;
    fs::remove_file(&temporary).map_err(io_error)?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(io_error)
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    #[serde(rename = "Type")]
    key_type: String,
    #[serde(rename = "PrivateKey")]
    private_key: String,
}

fn decode(text: &str) -> Result<Secret, String> {
    // The text of a parse error could repeat parts of the key, so it is not passed on.
    let file: KeyFile = serde_json::from_str(text)
        .map_err(|_| r#"expected {"Type":"jwt-hmac-secret","PrivateKey":"<base64>"}"#.to_owned())?;
    if file.key_type != KEY_TYPE {
        return Err(format!("Type is {:?}, expected {KEY_TYPE:?}", file.key_type));
    }
    let bytes = STANDARD.decode(file.private_key).map_err(|_| "PrivateKey is not base64".to_owned())?;
    Secret::from_bytes(bytes).map_err(|error: TokenError| error.to_string())
}

/// The keystore cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Others can read the secret.
    #[error("{} has mode {mode:04o}: others can read the token secret; run chmod 0600 on it", .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key file.
    #[error("{} is no token secret: {detail}", .path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong; never parts of the key.
        detail: String,
    },
    /// The file system refused.
    #[error("{} cannot be read or written", .path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No randomness.
    #[error("/dev/urandom cannot be read")]
    Random {
        /// Why.
        #[source]
        source: io::Error,
    },
}
