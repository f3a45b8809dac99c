//! Notices that files have changed, by what is in them: a ConfigMap changes by moving a link, an editor by moving a file,
//! and either may leave every time as it was.
//!
//! A change is told when it has stayed the same from one look to the next, so that nobody reads what is half written, and
//! once only: what was refused is told again when it changes again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Of a larger file only the beginning, the size and the time of its change are looked at: weights of a model, whose
/// manifest names their hash.
const MOST_READ: u64 = 4 << 20;

/// What is in each file; `None` for one that cannot be read.
type Seen = BTreeMap<PathBuf, Option<u64>>;

/// Files, and what was in them.
#[derive(Debug, Default)]
pub struct Watch {
    /// What is running, or was refused.
    known: Seen,
    /// What was there at the last look, where it differs.
    unsettled: Option<Seen>,
}

impl Watch {
    /// What is in the files now, to be read before they are.
    pub fn look(files: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, Option<u64>)> {
        files.into_iter().map(|path| (path.clone(), content(&path))).collect()
    }

    /// From now on these files are watched, and what they held then is known.
    pub fn know(&mut self, seen: Vec<(PathBuf, Option<u64>)>) {
        self.known = seen.into_iter().collect();
        self.unsettled = None;
    }

    /// What these files held then is known; all others stay as they are.
    pub fn learn(&mut self, seen: Vec<(PathBuf, Option<u64>)>) {
        self.known.extend(seen);
        self.unsettled = None;
    }

    /// The files that are watched.
    pub fn files(&self) -> Vec<PathBuf> {
        self.known.keys().cloned().collect()
    }

    /// Takes a look's result; says whether something changed and has settled.
    pub fn take(&mut self, seen: Vec<(PathBuf, Option<u64>)>) -> bool {
        let now: Seen = seen.into_iter().collect();
        if now == self.known {
            self.unsettled = None;
            return false;
        }
        if self.unsettled.as_ref() == Some(&now) {
            return true;
        }
        self.unsettled = Some(now);
        false
    }
}

/// A hash of what is in a file; the same as `Config::file` has it.
fn content(path: &std::path::Path) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    if about.is_dir() {
        return None;
    }
    let mut bytes = Vec::new();
    if about.len() <= MOST_READ {
        file.read_to_end(&mut bytes).ok()?;
        return Some(xxh3_64(&bytes));
    }
    file.take(MOST_READ).read_to_end(&mut bytes).ok()?;
    let mut hash = Xxh3::new();
    hash.update(&bytes);
    for number in [about.len() as i64, about.mtime(), about.mtime_nsec(), about.ino() as i64] {
        hash.update(&number.to_le_bytes());
    }
    Some(hash.digest())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn look(watch: &mut Watch) -> bool {
        let seen = Watch::look(watch.files());
        watch.take(seen)
    }

    #[test]
    fn a_change_is_told_once_it_has_settled_and_once_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, missing) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
        fs::write(&path, "one").expect("written");
        let mut watch = Watch::default();
        watch.know(Watch::look([path.clone(), missing.clone()]));
        assert!(!look(&mut watch) && !look(&mut watch));
        fs::write(&path, "tw").expect("written");
        assert!(!look(&mut watch), "it may be half written");
        fs::write(&path, "two").expect("written");
        assert!(!look(&mut watch), "it was");
        assert!(look(&mut watch));
        watch.know(Watch::look([path.clone(), missing.clone()]));
        assert!(!look(&mut watch) && !look(&mut watch));
        fs::write(&missing, "there now").expect("written");
        assert!(!look(&mut watch) && look(&mut watch));
    }

    #[test]
    fn a_link_that_is_moved_is_a_change_and_one_that_comes_back_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(at(name)).expect("made");
            fs::write(at(name).join("a.toml"), text).expect("written");
        }
        let point_to = |name: &str| {
            std::os::unix::fs::symlink(at(name), at("next")).expect("linked");
            fs::rename(at("next"), at("data")).expect("moved");
        };
        point_to("one");
        let mut watch = Watch::default();
        watch.know(Watch::look([at("data/a.toml")]));
        point_to("two");
        assert!(!look(&mut watch));
        point_to("one");
        assert!(!look(&mut watch) && !look(&mut watch));
        point_to("two");
        assert!(!look(&mut watch) && look(&mut watch));
    }
}
