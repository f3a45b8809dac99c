//! The keys file: who may call the API. `triaged keys` writes it, the API reads it.
//!
//! A key is `trg_<id>_<secret>`. The secret is 256 random bits, so its SHA-256 cannot be guessed back and needs no salt
//! or slow hash; it is shown once and kept nowhere. The file is written whole or not at all, readable for its owner
//! alone, by one at a time.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Secret;

const PREFIX: &str = "trg_";
const ID_BYTES: usize = 5;
const SECRET_BYTES: usize = 32;
const FORMAT_VERSION: u32 = 1;

/// What a caller may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Look, and have records classified: nothing changes.
    Read,
    /// Say what is right or wrong.
    Write,
    /// Change what the daemon does.
    Admin,
}

impl Permission {
    pub const ALL: [Permission; 3] = [Permission::Read, Permission::Write, Permission::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Read => "read",
            Permission::Write => "write",
            Permission::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Permission::ALL.into_iter().find(|one| one.as_str() == text).ok_or("expected read, write or admin")
    }
}

/// Why the keys file cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read the keys file {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the keys file {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the keys file {} is not one of ours", .path.display())]
    Content { path: PathBuf, source: serde_json::Error },
    #[error("the keys file {} has version {found}; this program reads version {FORMAT_VERSION}", .path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("there is no key {0}")]
    Unknown(String),
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A time to the millisecond; RFC 3339 in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Moment(DateTime<Utc>);

impl Moment {
    pub fn now() -> Self {
        Moment::of(Utc::now())
    }

    fn of(time: DateTime<Utc>) -> Self {
        Moment(DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time))
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.0.to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

impl TryFrom<String> for Moment {
    type Error = chrono::ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        DateTime::parse_from_rfc3339(&text).map(|time| Moment::of(time.to_utc()))
    }
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    pub id: String,
    /// For people: who or what has it.
    pub name: String,
    pub role: Permission,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub sha256: String,
    pub created_at: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
}

/// Whether a key opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    Valid,
    Expired,
    Revoked,
}

impl KeyState {
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Valid => "valid",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        }
    }
}

impl KeyRecord {
    pub fn state(&self, now: Moment) -> KeyState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(end)) if end <= now => KeyState::Expired,
            _ => KeyState::Valid,
        }
    }
}

/// A key that was just made: the only time that its text is known.
#[derive(Debug)]
pub struct NewKey {
    pub record: KeyRecord,
    /// To be shown once.
    pub text: Secret,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    keys: Vec<KeyRecord>,
}

/// The file at its place; it need not be there yet.
#[derive(Debug, Clone)]
pub struct KeysFile {
    path: PathBuf,
}

impl KeysFile {
    pub fn at(path: &Path) -> Self {
        KeysFile { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, in the order in which they were made; none when there is no file.
    pub fn read(&self) -> Result<Vec<KeyRecord>, KeysError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(KeysError::Read { path: path(), source }),
        };
        let content: Content =
            serde_json::from_slice(&text).map_err(|source| KeysError::Content { path: path(), source })?;
        match content.version {
            FORMAT_VERSION => Ok(content.keys),
            found => Err(KeysError::Version { path: path(), found }),
        }
    }

    /// Makes a key; without `lifetime` it never expires.
    pub fn create(&self, name: &str, role: Permission, lifetime: Option<Duration>) -> Result<NewKey, KeysError> {
        let _lock = self.lock()?;
        let mut keys = self.read()?;
        let id = loop {
            let id = HEXLOWER.encode(&random::<ID_BYTES>()?);
            if keys.iter().all(|key| key.id != id) {
                break id;
            }
        };
        let secret = HEXLOWER.encode(&random::<SECRET_BYTES>()?);
        let now = Moment::now();
        let record = KeyRecord {
            id,
            name: name.to_owned(),
            role,
            sha256: HEXLOWER.encode(&Sha256::digest(&secret)),
            created_at: now,
            expires_at: lifetime.map(|lifetime| Moment::of(now.0 + lifetime)),
            revoked_at: None,
        };
        keys.push(record.clone());
        self.write(keys)?;
        let text = Secret::new(format!("{PREFIX}{}_{secret}", record.id));
        Ok(NewKey { record, text })
    }

    /// Revokes a key for ever; its record stays, so that it can be told who it was.
    pub fn revoke(&self, id: &str) -> Result<KeyRecord, KeysError> {
        let _lock = self.lock()?;
        let mut keys = self.read()?;
        let key = keys.iter_mut().find(|key| key.id == id).ok_or_else(|| KeysError::Unknown(id.to_owned()))?;
        key.revoked_at.get_or_insert_with(Moment::now);
        let revoked = key.clone();
        self.write(keys)?;
        Ok(revoked)
    }

    /// Held while the file is read, changed and written.
    fn lock(&self) -> Result<File, KeysError> {
        let unwritable = |source| KeysError::Write { path: self.path.clone(), source };
        let place = self.beside("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(place).map_err(unwritable)?;
        lock.lock().map_err(unwritable)?;
        Ok(lock)
    }

    fn write(&self, keys: Vec<KeyRecord>) -> Result<(), KeysError> {
        let content = Content { version: FORMAT_VERSION, keys };
        let text = serde_json::to_vec_pretty(&content).expect("plain data becomes JSON");
        let place = self.beside("new");
        let write = || {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&place)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&place, &self.path)
        };
        write().map_err(|source| KeysError::Write { path: self.path.clone(), source })
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{suffix}"))
    }
}

/// Id and secret of a key's text.
pub(super) fn parts(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(PREFIX)?.split_once('_')
}

fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    let system = rustls::crypto::ring::default_provider().secure_random;
    system.fill(&mut bytes).map_err(|_| KeysError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_shown_once_and_kept_as_a_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(&folder.path().join("keys.json"));
        assert_eq!(file.read().unwrap(), []);
        let key = file.create("dashboard", Permission::Read, Some(Duration::from_secs(3600))).unwrap();
        let (id, secret) = parts(key.text.reveal()).unwrap();
        assert_eq!((id, secret.len()), (key.record.id.as_str(), 2 * SECRET_BYTES));
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(secret) && text.contains(&key.record.sha256), "{text}");
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{key:?}").contains(secret));
        assert_eq!(file.read().unwrap(), [key.record]);
    }

    #[test]
    fn a_key_ends_by_time_or_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(&folder.path().join("keys.json"));
        let short = file.create("a", Permission::Write, Some(Duration::ZERO)).unwrap().record;
        let long = file.create("b", Permission::Admin, None).unwrap().record;
        assert_eq!((short.state(Moment::now()), long.state(Moment::now())), (KeyState::Expired, KeyState::Valid));
        let revoked = file.revoke(&long.id).unwrap();
        assert_eq!(revoked.state(Moment::now()), KeyState::Revoked);
        assert_eq!(file.revoke(&long.id).unwrap().revoked_at, revoked.revoked_at, "the first time counts");
        assert!(matches!(file.revoke("nobody"), Err(KeysError::Unknown(_))));
    }

    #[test]
    fn keys_made_at_the_same_time_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(&folder.path().join("keys.json"));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = &file;
                scope.spawn(move || file.create(&number.to_string(), Permission::Read, None).unwrap());
            }
        });
        assert_eq!(file.read().unwrap().len(), 8);
    }
}
