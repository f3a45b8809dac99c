//! The keys as the API knows them: read from the keys file, read again when it changes, compared in constant time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::keys::{KeyRecord, KeyState, KeysError, KeysFile, Moment, parts};

/// How long a revoked key may still be taken.
const RECHECK: Duration = Duration::from_secs(1);

/// Why a key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Unknown,
    Expired,
    Revoked,
}

/// What tells one state of the file from another.
type Stamp = Option<(i64, i64, u64, u64)>;

#[derive(Debug)]
struct Seen {
    looked_at: Instant,
    stamp: Stamp,
}

/// All keys; shared by all requests.
#[derive(Debug)]
pub struct Keyring {
    file: KeysFile,
    keys: ArcSwap<Vec<KeyRecord>>,
    seen: Mutex<Seen>,
}

impl Keyring {
    pub fn open(file: KeysFile) -> Result<Self, KeysError> {
        // Looked at before it is read: a change in between is read again, not missed.
        let stamp = stamp_of(&file);
        let keys = ArcSwap::from_pointee(file.read()?);
        Ok(Keyring { file, keys, seen: Mutex::new(Seen { looked_at: Instant::now(), stamp }) })
    }

    pub fn file(&self) -> &KeysFile {
        &self.file
    }

    /// The keys of now, or of a second ago.
    pub fn keys(&self) -> Arc<Vec<KeyRecord>> {
        // Whoever comes while another one looks takes what is there.
        if let Ok(mut seen) = self.seen.try_lock()
            && seen.looked_at.elapsed() >= RECHECK
        {
            seen.looked_at = Instant::now();
            let stamp = stamp_of(&self.file);
            if stamp != seen.stamp {
                seen.stamp = stamp;
                self.read_again();
            }
        }
        self.keys.load_full()
    }

    fn read_again(&self) {
        match self.file.read() {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the keys file was read again");
                self.keys.store(Arc::new(keys));
            }
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::error!(error, "the keys file cannot be read, the keys stay as they were");
            }
        }
    }

    /// Whose key it is.
    pub fn verify(&self, text: &str) -> Result<KeyRecord, Denied> {
        let (id, secret) = parts(text).ok_or(Denied::Unknown)?;
        let keys = self.keys();
        let key = keys.iter().find(|key| key.id == id).ok_or(Denied::Unknown)?;
        let digest = HEXLOWER.encode(&Sha256::digest(secret));
        if !bool::from(digest.as_bytes().ct_eq(key.sha256.as_bytes())) {
            return Err(Denied::Unknown);
        }
        match key.state(Moment::now()) {
            KeyState::Valid => Ok(key.clone()),
            KeyState::Expired => Err(Denied::Expired),
            KeyState::Revoked => Err(Denied::Revoked),
        }
    }
}

fn stamp_of(file: &KeysFile) -> Stamp {
    let found = fs::metadata(file.path()).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Permission;

    #[test]
    fn only_the_whole_key_opens() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(&folder.path().join("keys.json"));
        let key = file.create("a", Permission::Write, None).unwrap();
        let ring = Keyring::open(file).unwrap();
        assert_eq!(ring.verify(key.text.reveal()).unwrap(), key.record);
        let text = key.text.reveal();
        let mut other = text.to_owned();
        let last = other.pop().unwrap();
        other.push(if last == '0' { '1' } else { '0' });
        for wrong in ["", "trg_", "trg__", &other, &text[1..], &text[..text.len() - 1], &key.record.id] {
            assert_eq!(ring.verify(wrong), Err(Denied::Unknown), "{wrong}");
        }
    }

    #[test]
    fn a_change_of_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeysFile::at(&folder.path().join("keys.json"));
        let ring = Keyring::open(file.clone()).unwrap();
        let key = file.create("a", Permission::Read, None).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let wait_for = |expected: Result<(), Denied>| {
            while ring.verify(key.text.reveal()).map(drop) != expected {
                assert!(Instant::now() < deadline, "{expected:?} never came");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait_for(Ok(()));
        std::fs::write(file.path(), "{").unwrap();
        std::thread::sleep(RECHECK);
        assert!(ring.verify(key.text.reveal()).is_ok(), "a broken file changes nothing");
        std::fs::remove_file(file.path()).unwrap();
        wait_for(Err(Denied::Unknown));
    }
}
