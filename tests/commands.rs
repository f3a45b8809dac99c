//! The program as a user meets it: help, exit codes, and commands that need no broker.
//!
//! Help and error texts are held against files in `tests/golden/`; `TRIAGED_BLESS=1` writes them anew.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn triaged(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    command.args(arguments);
    // Whoever runs the tests may have settings of their own.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRIAGED_")) {
        command.env_remove(name);
    }
    command
}

fn output(arguments: &[&str], input: &str) -> Output {
    let pipes = |command: &mut Command| -> Output {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(input.as_bytes()).expect("the program reads its input");
        drop(stdin);
        child.wait_with_output().expect("the program ends")
    };
    pipes(&mut triaged(arguments))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TRIAGED_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder can be made");
        std::fs::write(&path, found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{name} differs; TRIAGED_BLESS=1 accepts what was found");
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("the file can be written");
    path
}

#[test]
fn every_command_explains_itself() {
    let mut found = String::new();
    let commands = [
        "",
        "run",
        "demo",
        "check",
        "classify",
        "keys",
        "keys create",
        "generate",
        "replay",
        "train",
        "evaluate",
        "compare",
        "model",
        "model fetch",
        "report",
    ];
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = output(&arguments, "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        found += &format!("$ triaged {}\n{}\n", arguments.join(" "), text(&output.stdout));
    }
    assert_golden("help.txt", &found);
}

#[test]
fn every_fault_of_a_configuration_is_listed_and_the_exit_code_is_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(
        &folder,
        "bad.toml",
        "[kafka]\nbroker = \"kafka:9092\"\ndelivery = \"twice\"\n\n[kafka.properties]\nacks = 1\n\
         \"sasl.password\" = \"hunter2\"\n\n[stream]\nbatch_age = \"5 parsecs\"\nworkers = 4096\n",
    );
    let path = path.to_str().expect("a readable path");
    let without_folder = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    for command in ["check", "run"] {
        let output = output(&[command, "--config", path], "");
        assert_eq!(output.status.code(), Some(2), "{command}");
        let found = without_folder(text(&output.stdout) + &text(&output.stderr));
        assert!(!found.contains("hunter2"), "{found}");
        assert_golden(&format!("faults-{command}.txt"), &found);
    }
    let report = output(&["check", "--json", "--config", path], "");
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("the report is JSON");
    let keys: Vec<&str> =
        report["faults"].as_array().expect("a list").iter().map(|fault| fault["key"].as_str().expect("text")).collect();
    assert_eq!(
        keys,
        [
            "kafka.broker",
            "kafka.delivery",
            "kafka.properties.\"acks\"",
            "kafka.properties.\"sasl.password\"",
            "stream.batch_age",
            "stream.workers"
        ]
    );
}

#[test]
fn rule_faults_are_listed_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = "[[rule]]\nid = \"a\"\ndescription = \"x\"\nkind = \"log\"\nany = [\"reboot\"]\nqueue = \"ops\"\n\
                match = [\"nothing of the kind\"]\n";
    file(&folder, "rules.toml", rule);
    let config = file(&folder, "my.toml", "[rules]\nfiles = [\"rules.toml\"]\n[model]\nticket = \"\"\nlog = \"\"\n");
    let output = output(&["check", "--config", config.to_str().expect("a readable path")], "");
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{found}");
    assert!(found.contains("rules.toml:1: rule `a`: its `match` example does not match"), "{found}");
}

#[test]
fn what_is_shipped_is_right() {
    let output = output(&["check", "--strict"], "");
    let found = text(&output.stdout);
    assert!(output.status.success(), "{found}{}", text(&output.stderr));
    assert!(found.ends_with("good: 0 faults, 0 warnings\n"), "{found}");
}

#[test]
fn mistakes_on_the_command_line_exit_with_2_and_name_what_is_known() {
    for (arguments, expected) in [
        (vec!["chekc"], "check"),
        (vec!["run", "--role", "clasify"], "classify"),
        (vec!["classify", "--topic", "nowhere"], "the inputs are tickets, logs"),
        (vec!["generate", "--rate", "0"], "expected a number above 0"),
        (vec!["replay", "--to", "dead-letters"], "must not be the topic of the dead letters itself"),
        (vec!["check", "--config", "/nonexistent.toml"], "cannot read the file"),
    ] {
        let output = output(&arguments, "");
        let found = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {found}");
        assert!(found.contains(expected), "{arguments:?}: {found}");
    }
}

#[test]
fn generated_records_are_classified() {
    let generated = output(&["generate", "--count", "300", "--seed", "7", "--tickets", "0", "--broken", "0.1"], "");
    assert!(generated.status.success());
    // Broken records may hold bytes that are not UTF-8.
    let generated = String::from_utf8_lossy(&generated.stdout).into_owned();
    let classified = output(&["classify", "--kind", "log", "--json"], &generated);
    assert!(classified.status.success(), "{}", text(&classified.stderr));
    let classified = text(&classified.stdout);
    let decisions: Vec<serde_json::Value> =
        classified.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(decisions.len(), 300);
    for (index, decision) in decisions.iter().enumerate() {
        assert_eq!(decision["line"], index + 1);
        assert_ne!(decision["queue"].is_string(), decision["error"].is_string(), "{decision}");
    }
    let routed = decisions.iter().filter(|decision| decision["routing"] == "auto_route").count();
    assert!(routed > 150, "{routed} of 300 are sure");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child =
        triaged(&["generate"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_version_tells_what_a_bug_report_needs() {
    let found = text(&output(&["--version"], "").stdout);
    assert!(found.starts_with(concat!("triaged ", env!("CARGO_PKG_VERSION"), "\ncommit: ")), "{found}");
}

/// Lines of two teams as CSV, with columns of unusual names; one label is wrong, one row occurs twice.
fn labelled_csv() -> String {
    let mut rows = "team,msg,nr\n".to_owned();
    let hosts = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa"];
    for row in 0..60 {
        let (team, text) = match row % 2 {
            0 => ("storage", format!("disk {row} of {} is nearly full", hosts[row % 7])),
            _ => ("identity", format!("user {row} failed to log in from {}", hosts[row % 7])),
        };
        let team = if row == 20 { "identity" } else { team };
        rows += &format!("{team},\"{text}\",row-{row}\n");
    }
    rows + "identity,user 59 failed to log in from delta,again\n"
}

#[test]
fn a_model_is_trained_from_csv_evaluated_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("a readable path").to_owned();
    let data = file(&folder, "lines.csv", &labelled_csv());
    let data = data.to_str().expect("a readable path");
    let columns = ["--text-field", "msg", "--label-field", "team", "--id-field", "nr"];
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = output(arguments, "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the result is JSON")
    };
    let train = |out: &str, seed: &str| {
        let fixed =
            ["train", "--json", "--kind", "log", "--data", data, "--held-out", data, "--target-precision", "0.9"];
        json(&[&fixed[..], &columns[..], &["--time-budget", "0", "--out", out, "--name", "m", "--seed", seed]].concat())
    };
    let (first, second) = (place("first"), place("second"));
    let trained = train(&first, "1");
    assert_eq!(trained["duplicates"], 1);
    assert_eq!(trained["leakage"]["same_text"].as_array().expect("a list").len(), 61);
    assert_eq!(trained["suspects"][0]["id"], "row-20", "{}", trained["suspects"]);
    assert!(trained["manifest"]["thresholds"]["auto_route"].is_number());
    let command = trained["manifest"]["reproduce"]["command"].as_str().expect("text");
    assert!(command.contains("--text-field msg") && command.contains("--seed 1"), "{command}");
    train(&second, "2");

    let predictions = place("predictions.jsonl");
    let evaluate = ["evaluate", "--json", "--model", &first, "--data", data, "--predictions", &predictions];
    let report = json(&[&evaluate[..], &columns[..]].concat());
    assert!(report["accuracy"].as_f64().expect("a number") > 0.9, "{report}");
    for key in ["macro_f1", "ece", "per_class", "confusion", "risk_coverage"] {
        assert!(!report[key].is_null(), "{key}");
    }
    let predictions = std::fs::read_to_string(predictions).expect("it was written");
    let row: serde_json::Value = serde_json::from_str(predictions.lines().next().expect("a row")).expect("JSON");
    assert_eq!((&row["id"], &row["label"], &row["predicted"]), (&"row-0".into(), &"storage".into(), &"storage".into()));
    let compared =
        json(&[&["evaluate", "--json", "--data", data, "--compare", &first, &second], &columns[..]].concat());
    assert!(compared["mcnemar"]["p_value"].as_f64().expect("a number") > 0.05, "{compared}");
}

#[test]
fn an_interrupted_training_leaves_the_package_that_was_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = file(&folder, "lines.csv", &labelled_csv());
    let out = folder.path().join("model");
    let path = |path: &Path| path.to_str().expect("a readable path").to_owned();
    let (data, model) = (path(&data), path(&out));
    let arguments =
        ["train", "--kind", "log", "--data", &data, "--out", &model, "--text-field", "msg", "--label-field", "team"];
    assert!(output(&[&arguments[..], &["--time-budget", "0"]].concat(), "").status.success());
    let files = || {
        let read = |name: &str| std::fs::read(out.join(name)).expect("it is there");
        (read("manifest.json"), read("weights.safetensors"))
    };
    let before = files();
    let mut child = triaged(&[&arguments[..], &["--seed", "7"]].concat()).spawn().expect("the program starts");
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(files() == before);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left beside the package");
}
