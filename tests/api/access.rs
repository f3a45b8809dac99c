//! Keys, roles, headers.

use std::time::Duration;

use serde_json::Value;
use triaged::ops::Permission;

use super::server::Api;
use crate::peers::daemon::triaged;
use crate::peers::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const READ_PATHS: [&str; 9] = [
    "/v1/stats",
    "/v1/queues",
    "/v1/volumes",
    "/v1/forecasts",
    "/v1/forecasts.csv",
    "/v1/trends",
    "/v1/events",
    "/v1/events/00000000-0000-5000-8000-000000000000",
    "/v1/models",
];

#[test]
fn every_path_needs_a_key_and_its_role() {
    let (api, [read, write, admin]) = Api::with_keys("");
    for path in READ_PATHS {
        let refused = api.get(path);
        refused.problem(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        api.get_as("trg_0000000000_00", path).problem(401, "unauthorized");
        for key in [&read, &write, &admin] {
            assert!(matches!(api.get_as(key, path).status, 200 | 404), "{path}");
        }
    }
    api.post("/v1/classify?kind=log", "application/json", "\"x\"").problem(401, "unauthorized");
    for (key, status) in [(&read, 403), (&write, 403), (&admin, 200)] {
        assert_eq!(api.get_as(key, "/v1/audit").status, status);
    }
    api.get_as(&read, "/v1/audit").problem(403, "forbidden");
    for open in ["/docs", "/docs/docs.js", "/docs/docs.css", "/v1/openapi.json"] {
        assert_eq!(api.get(open).status, 200, "{open}");
    }
}

#[test]
fn a_key_that_was_revoked_or_has_expired_opens_nothing() {
    let (api, [read, ..]) = Api::with_keys("");
    let file = api.keys_file();
    let short =
        file.create("short", Permission::Read, Some(Duration::from_millis(1))).expect("a key").text.reveal().to_owned();
    let fresh = file.create("fresh", Permission::Read, None).expect("a key").text.reveal().to_owned();
    wait_until("the new key opens", PATIENCE, || api.get_as(&fresh, "/v1/models").status == 200);
    let problem = api.get_as(&short, "/v1/models").problem(401, "unauthorized");
    assert_eq!(problem["detail"], "the key has expired");
    let id = read.split('_').nth(1).expect("the id");
    file.revoke(id).expect("it is there");
    wait_until("the revoked key opens nothing", PATIENCE, || api.get_as(&read, "/v1/models").status == 401);
    assert_eq!(api.get_as(&read, "/v1/models").json()["detail"], "the key was revoked");
    assert_eq!(api.get_as(&fresh, "/v1/models").status, 200);
}

#[test]
fn keys_that_are_made_and_revoked_are_in_the_audit_log() {
    let (api, [.., admin]) = Api::with_keys("");
    let actions = || -> Vec<(String, String)> {
        let log = api.get_as(&admin, "/v1/audit").json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entries = log["entries"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| (text(&entry["action"]), text(&entry["detail"]["name"]))).collect()
    };
    wait_until("the keys are noted", PATIENCE, || actions().len() == 3);
    assert!(actions().contains(&("key.created".into(), "admin".into())));
    let gone = api.keys_file().create("gone", Permission::Write, None).expect("a key").record;
    api.keys_file().revoke(&gone.id).expect("it is there");
    wait_until("its end is noted", PATIENCE, || actions().contains(&("key.revoked".into(), "gone".into())));
}

#[test]
fn without_keys_this_machine_may_do_everything_and_no_other_name_reaches_it() {
    let api = Api::start("");
    assert_eq!(api.get("/v1/audit").status, 200);
    let by_name = |host: &str| {
        let request = ureq::http::Request::get(api.url("/v1/models")).header("host", host);
        api.request(request.body(()).expect("a request"))
    };
    assert_eq!(by_name("localhost").status, 200);
    by_name("rebound.example").problem(421, "misdirected");
}

#[test]
fn every_answer_has_safe_headers_and_no_other_origin_is_let_in() {
    let api = Api::start("");
    for path in ["/v1/models", "/v1/nothing", "/docs"] {
        let answer = api.get(path);
        assert_eq!((answer.header("x-content-type-options"), answer.header("cache-control")), ("nosniff", "no-store"));
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let preflight = |api: &Api, origin: &str| {
        let request = ureq::http::Request::options(api.url("/v1/classify"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        api.request(request.body(()).expect("a request"))
    };
    assert_eq!(preflight(&api, "https://desk.example").header("access-control-allow-origin"), "");
    let api = Api::start("api.cors_origins = [\"https://desk.example\"]\n");
    let allowed = preflight(&api, "https://desk.example");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "https://desk.example"));
    assert_eq!(preflight(&api, "https://evil.example").header("access-control-allow-origin"), "");
}

#[test]
fn the_command_makes_lists_and_revokes_keys() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("triaged.toml");
    std::fs::write(&path, "[api]\nkeys_file = \"keys.json\"\n").expect("it can be written");
    let config = path.to_str().expect("a plain path");
    let run = |arguments: &[&str]| {
        let output = triaged(&[&["keys"], arguments, &["--config", config]].concat());
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, key, said) = run(&["create", "--role", "read", "--name", "dashboard", "--expires", "90d"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(key.starts_with("trg_") && said.contains("expires at"), "{key} {said}");
    let id = key.split('_').nth(1).expect("the id").to_owned();
    let (_, json, _) = run(&["list", "--json"]);
    let listed: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&id.as_str().into(), &"valid".into()), "{listed}");
    let secret = key.trim().rsplit('_').next().expect("the secret");
    assert!(!json.contains(secret) && listed[0]["key"].is_null(), "{json}");
    assert_eq!(run(&["revoke", &id]).0, Some(0));
    assert!(run(&["list"]).1.contains("revoked"));
    assert_eq!(run(&["revoke", "nobody"]).0, Some(1));
    let nowhere = triaged(&["keys", "list"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("api.keys_file"));
}
