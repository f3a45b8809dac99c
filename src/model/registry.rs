//! Trained versions of models in a folder, and which of them is in use.
//!
//! ```text
//! <registry>/<name>/0001/    a package; never changed once it is there
//! <registry>/<name>/0002/
//! <registry>/<name>/current  the version in use, and below it those that were before, newest first
//! ```
//!
//! `current` is replaced as a whole (a new file, then a rename), so whoever reads it sees the old answer or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use utoipa::ToSchema;

use super::package::{MANIFEST_FILE, Manifest, PackageError, WEIGHTS_FILE, write_durably};

const CURRENT: &str = "current";
const SPEC_PREFIX: &str = "registry:";
/// `registry:NAME@VERSION` is that version, whatever is promoted.
const VERSION_MARK: char = '@';
/// Versions that can be gone back to.
const MOST_BEFORE: usize = 50;
/// Four digits keep the folders in order.
const MOST_VERSIONS: usize = 9_999;

/// Why the registry does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("`{0}` asks for a registry, and model.registry is empty")]
    NoRegistry(String),
    #[error("`{0}` is no name for a model: letters, digits, `.`, `_` and `-`, and no dot at the start")]
    Name(String),
    #[error("no version of {0} has been promoted; `triaged model promote` does it")]
    NothingPromoted(String),
    #[error("{name} has no version {version}; there are: {known}")]
    UnknownVersion { name: String, version: String, known: String },
    #[error("{0} has no version before the current one")]
    NothingBefore(String),
    #[error("{0} has no room for another version")]
    Full(String),
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// One trained version.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Version {
    pub name: String,
    pub version: String,
    pub is_current: bool,
    pub labels: usize,
    pub rows: usize,
    /// By cross-validation, from the manifest.
    pub accuracy: f64,
}

/// The folder. Nothing is read before it is asked for.
#[derive(Debug, Clone)]
pub struct Registry(PathBuf);

/// The folder of the current version when `spec` is `registry:NAME`; `None` for any other spec.
pub(super) fn resolve(spec: &str, registry: Option<&Path>) -> Result<Option<String>, RegistryError> {
    let Some(name) = spec.strip_prefix(SPEC_PREFIX) else { return Ok(None) };
    let registry = Registry::new(registry.ok_or_else(|| RegistryError::NoRegistry(spec.to_owned()))?);
    let folder = match name.split_once(VERSION_MARK) {
        None => registry.current_folder(name)?,
        Some((name, version)) => registry.whole_folder(name, version)?,
    };
    Ok(Some(folder.to_string_lossy().into_owned()))
}

/// The name in `registry:NAME`, which follows what is promoted; `None` for any other spec.
pub fn promoted_name(spec: &str) -> Option<&str> {
    spec.strip_prefix(SPEC_PREFIX).filter(|name| !name.contains(VERSION_MARK))
}

/// The files whose change is a change of the package that `spec` names; none for one inside the program.
pub fn files_of(spec: &str, registry: Option<&Path>) -> Vec<PathBuf> {
    let pointer = promoted_name(spec).zip(registry).map(|(name, registry)| registry.join(name).join(CURRENT));
    let folder = match resolve(spec, registry) {
        Ok(None) if spec.starts_with("builtin:") => None,
        Ok(None) => Some(PathBuf::from(spec)),
        Ok(Some(folder)) => Some(PathBuf::from(folder)),
        Err(_) => None,
    };
    let files = folder.map(|folder| [MANIFEST_FILE, WEIGHTS_FILE].map(|file| folder.join(file)));
    pointer.into_iter().chain(files.into_iter().flatten()).collect()
}

impl Registry {
    pub fn new(folder: &Path) -> Self {
        Registry(folder.to_owned())
    }

    /// Names of models, sorted.
    pub fn names(&self) -> Result<Vec<String>, RegistryError> {
        let mut names: Vec<String> = entries(&self.0)?.into_iter().filter(|name| check_name(name).is_ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Versions of a model that are whole, oldest first.
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, RegistryError> {
        let current = self.current(name)?;
        let mut versions = Vec::new();
        for version in self.whole_versions(name)? {
            let path = self.folder(name, &version).join(MANIFEST_FILE);
            let text = fs::read(&path).map_err(|source| RegistryError::Read { path: path.clone(), source })?;
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|error| RegistryError::Read { path, source: io::Error::from(error) })?;
            versions.push(Version {
                name: name.to_owned(),
                is_current: current.as_ref() == Some(&version),
                version,
                labels: manifest.labels.len(),
                rows: manifest.data.rows_used,
                accuracy: manifest.metrics.accuracy,
            });
        }
        Ok(versions)
    }

    /// The version in use.
    pub fn current(&self, name: &str) -> Result<Option<String>, RegistryError> {
        Ok(self.pointer(name)?.into_iter().next())
    }

    /// The folder of the version in use.
    pub fn current_folder(&self, name: &str) -> Result<PathBuf, RegistryError> {
        let version = self.current(name)?.ok_or_else(|| RegistryError::NothingPromoted(name.to_owned()))?;
        Ok(self.folder(name, &version))
    }

    pub fn folder(&self, name: &str, version: &str) -> PathBuf {
        self.0.join(name).join(version)
    }

    /// Makes a new version: `write` is given a folder of its own. It is not in use yet.
    pub fn add(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), PackageError>,
    ) -> Result<String, PackageError> {
        check_name(name)?;
        let model = self.0.join(name);
        fs::create_dir_all(&model).map_err(|source| RegistryError::Write { path: model.clone(), source })?;
        let newest = entries(&model)?.iter().filter_map(|entry| entry.parse::<usize>().ok()).max().unwrap_or(0);
        for number in newest + 1..=MOST_VERSIONS {
            let version = format!("{number:04}");
            let folder = self.folder(name, &version);
            // Whoever makes the folder has the number.
            match fs::create_dir(&folder) {
                Ok(()) => return write(&folder).map(|()| version),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(RegistryError::Write { path: folder, source }.into()),
            }
        }
        Err(RegistryError::Full(name.to_owned()).into())
    }

    /// Puts a version into use. Whoever loads `registry:NAME` from now on gets it.
    pub fn promote(&self, name: &str, version: &str) -> Result<(), RegistryError> {
        self.whole_folder(name, version)?;
        let mut pointer = self.pointer(name)?;
        if pointer.first().is_none_or(|current| current != version) {
            pointer.insert(0, version.to_owned());
        }
        self.write_pointer(name, &pointer)
    }

    /// Goes back to the version that was in use before, and returns it.
    pub fn rollback(&self, name: &str) -> Result<String, RegistryError> {
        let mut pointer = self.pointer(name)?;
        if pointer.len() < 2 {
            return Err(RegistryError::NothingBefore(name.to_owned()));
        }
        pointer.remove(0);
        self.write_pointer(name, &pointer)?;
        Ok(pointer.swap_remove(0))
    }

    /// The folder of a version that is there.
    pub fn whole_folder(&self, name: &str, version: &str) -> Result<PathBuf, RegistryError> {
        let known = self.whole_versions(name)?;
        match known.iter().any(|known| known == version) {
            true => Ok(self.folder(name, version)),
            false => {
                let (name, version, known) = (name.to_owned(), version.to_owned(), known.join(", "));
                Err(RegistryError::UnknownVersion { name, version, known })
            }
        }
    }

    /// The version in use, and those that were before, the newest first.
    pub fn history(&self, name: &str) -> Result<Vec<String>, RegistryError> {
        self.pointer(name)
    }

    /// Makes the history what it was; an empty one is that of a model of which nothing was promoted.
    pub fn restore(&self, name: &str, history: &[String]) -> Result<(), RegistryError> {
        check_name(name)?;
        self.write_pointer(name, history)
    }

    fn whole_versions(&self, name: &str) -> Result<Vec<String>, RegistryError> {
        check_name(name)?;
        let is_whole = |version: &String| {
            version.bytes().all(|byte| byte.is_ascii_digit()) && self.folder(name, version).join(MANIFEST_FILE).exists()
        };
        let mut versions: Vec<String> = entries(&self.0.join(name))?.into_iter().filter(is_whole).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    fn pointer(&self, name: &str) -> Result<Vec<String>, RegistryError> {
        check_name(name)?;
        let path = self.0.join(name).join(CURRENT);
        match fs::read_to_string(&path) {
            Ok(text) => {
                Ok(text.lines().map(str::trim).filter(|line| check_name(line).is_ok()).map(str::to_owned).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(RegistryError::Read { path, source }),
        }
    }

    fn write_pointer(&self, name: &str, versions: &[String]) -> Result<(), RegistryError> {
        let path = self.0.join(name).join(CURRENT);
        let fresh = path.with_file_name(format!(".{CURRENT}.new-{}", std::process::id()));
        let text: String = versions.iter().take(MOST_BEFORE).map(|version| format!("{version}\n")).collect();
        write_durably(&fresh, text.as_bytes())
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| RegistryError::Write { path, source })
    }
}

/// Names of what lies in a folder; none when there is no such folder.
fn entries(folder: &Path) -> Result<Vec<String>, RegistryError> {
    let failed = |source| RegistryError::Read { path: folder.to_owned(), source };
    let found = match fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    found.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}

fn check_name(name: &str) -> Result<(), RegistryError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(valid) {
        true => Ok(()),
        false => Err(RegistryError::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::package::Package;
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry, Package) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let registry = Registry::new(folder.path());
        (folder, registry, Package::load("builtin:logs").expect("a shipped package"))
    }

    #[test]
    fn versions_are_numbered_promoted_and_taken_back() {
        let (folder, registry, package) = registry();
        let add = || registry.add("logs", |path| package.write(path)).expect("written");
        assert_eq!((add(), add(), add()), ("0001".to_owned(), "0002".to_owned(), "0003".to_owned()));
        assert!(matches!(resolve("registry:logs", Some(folder.path())), Err(RegistryError::NothingPromoted(_))));
        registry.promote("logs", "0001").expect("promoted");
        registry.promote("logs", "0003").expect("promoted");
        registry.promote("logs", "0003").expect("nothing new");
        let current: Vec<(String, bool)> = registry
            .versions("logs")
            .expect("readable")
            .into_iter()
            .map(|version| (version.version, version.is_current))
            .collect();
        assert_eq!(current, [("0001".into(), false), ("0002".into(), false), ("0003".into(), true)]);
        assert_eq!(registry.rollback("logs").expect("there is one before"), "0001");
        assert!(matches!(registry.rollback("logs"), Err(RegistryError::NothingBefore(_))));
        let spec = resolve("registry:logs", Some(folder.path())).expect("resolved").expect("of the registry");
        assert!(spec.ends_with("0001") && Package::load(&spec).is_ok());
        let pinned = resolve("registry:logs@0002", Some(folder.path())).expect("resolved").expect("of the registry");
        assert!(pinned.ends_with("0002"));
        assert!(matches!(
            resolve("registry:logs@0009", Some(folder.path())),
            Err(RegistryError::UnknownVersion { .. })
        ));
        let files = files_of("registry:logs", Some(folder.path()));
        assert!(files.iter().all(|file| file.exists()) && files.len() == 3, "{files:?}");
        assert_eq!(files_of("registry:logs@0002", Some(folder.path())).len(), 2);
        assert_eq!(files_of("builtin:logs", None), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn a_version_that_was_not_finished_is_none() {
        let (_folder, registry, package) = registry();
        let failed = registry.add("logs", |path| Err(PackageError::Occupied(path.to_owned())));
        assert!(failed.is_err());
        assert_eq!(registry.add("logs", |path| package.write(path)).expect("written"), "0002");
        assert!(matches!(registry.promote("logs", "0001"), Err(RegistryError::UnknownVersion { .. })));
        assert_eq!(registry.versions("logs").expect("readable").len(), 1);
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let (_folder, registry, _) = registry();
        for name in ["..", "a/b", "", ".hidden", "a\\b"] {
            assert!(matches!(registry.current(name), Err(RegistryError::Name(_))), "{name:?}");
        }
        assert!(matches!(resolve("registry:logs", None), Err(RegistryError::NoRegistry(_))));
        assert!(resolve("builtin:logs", None).expect("another spec").is_none());
    }
}
