//! Versions of models that are put into use and taken back while the daemon runs.

use std::fs;

use serde_json::{Value, json};

use super::{PATIENCE, World, label_of_one, train};
use crate::peers::client::Isolation;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;

const LINE: &str = "coolant in unit 3 of hall 4";

fn model(daemon: &Daemon) -> String {
    label_of_one(daemon, "triaged_model_info{arm=\"champion\"", "id")
}

#[test]
fn a_promoted_version_decides_the_next_record() {
    let world = World::new(1);
    let registry = world.path("registry");
    fs::create_dir_all(registry.join("lines")).expect("made");
    train(&registry.join("lines/0001"), [("coolant", "plumbing"), ("voltage", "power")]);
    train(&registry.join("lines/0002"), [("coolant", "cooling"), ("voltage", "grid")]);
    let registry_text = registry.display().to_string();
    let promote = |version: &str| {
        let output = triaged(&["model", "promote", "lines", version, "--registry", &registry_text]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    promote("0001");
    let setup = world
        .setup()
        .with("model.registry", &format!("{registry:?}"))
        .with("model.log", "'registry:lines'")
        .with("model.ticket", "''")
        .with("rules.files", "[]")
        .with("reload.watch", "'100ms'");
    let mut daemon = setup.start_ready();
    let mut events = world.broker.reader("queue-events", Isolation::ReadUncommitted);
    let mut count = 0;
    let mut next = || -> Value {
        world.broker.produce("logs", [("", LINE)]);
        count += 1;
        events.wait_for(count, PATIENCE)[count - 1].json()
    };
    let first = next();
    assert_eq!((&first["queue"], &first["model"]), (&"plumbing".into(), &model(&daemon).into()));

    let (status, answer) = world.post("/v1/models/lines/promote", &json!({"version": "0002"}));
    assert_eq!(
        (status, &answer["previous_version"], &answer["decides"]),
        (200, &"0001".into(), &json!(["log"])),
        "{answer}"
    );
    let second = next();
    assert_eq!((&second["queue"], &second["config"]), (&"cooling".into(), &answer["config"]));
    assert_ne!(second["model"], first["model"]);
    let listed = world.get("/v1/models");
    let running =
        listed["models"].as_array().expect("models").iter().find(|model| model["kind"] == "log").expect("one");
    assert_eq!((&running["id"], &running["arm"]), (&second["model"], &"champion".into()));
    let current: Vec<bool> =
        listed["registry"].as_array().expect("versions").iter().map(|one| one["is_current"] == true).collect();
    assert_eq!(current, [false, true], "{listed}");

    let (status, answer) = world.post("/v1/models/lines/rollback", &json!({}));
    assert_eq!((status, &answer["version"]), (200, &"0001".into()), "{answer}");
    let third = next();
    assert_eq!((&third["model"], &third["config"]), (&first["model"], &first["config"]), "the same decides again");

    // What cannot be used is refused, and the registry says what it said before.
    fs::create_dir_all(registry.join("lines/0003")).expect("made");
    fs::copy(registry.join("lines/0002/manifest.json"), registry.join("lines/0003/manifest.json")).expect("copied");
    fs::write(registry.join("lines/0003/weights.safetensors"), "half of it").expect("written");
    for (path, body, status, code) in [
        ("/v1/models/lines/promote", json!({"version": "0003"}), 422, "unusable_model"),
        ("/v1/models/lines/promote", json!({"version": "0009"}), 404, "not_found"),
        ("/v1/models/lines/promote", json!({"version": 2}), 422, "invalid_json"),
        ("/v1/models/other/rollback", json!({}), 409, "nothing_before"),
        ("/v1/models/..%2Flines/rollback", json!({}), 422, "invalid_parameter"),
    ] {
        let (found, problem) = world.post(path, &body);
        assert_eq!((found, &problem["code"]), (status, &code.into()), "{path}: {problem}");
    }
    assert_eq!(fs::read_to_string(registry.join("lines/current")).expect("it is there"), "0001\n");
    assert_eq!(next()["model"], first["model"]);

    // Another instance, or the command line, changes the registry: the daemon sees it.
    promote("0002");
    wait_until("the change is seen", PATIENCE, || second["model"] == model(&daemon));
    assert_eq!(next()["queue"], "cooling");

    let audit = world.get("/v1/audit")["entries"].clone();
    let changes: Vec<(&str, &str, &str)> = audit
        .as_array()
        .expect("entries")
        .iter()
        .filter_map(|entry| {
            Some((entry["action"].as_str()?, entry["subject"].as_str()?, entry["detail"]["version"].as_str()?))
        })
        .collect();
    assert_eq!(changes, [("model.rolled_back", "lines", "0001"), ("model.promoted", "lines", "0002")]);
    assert!(daemon.stop(PATIENCE).success());
}
