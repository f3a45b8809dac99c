//! The OpenAPI document against what is really answered: its paths, and requests that Schemathesis makes out of it.

use std::process::Command;

use serde_json::Value;

use super::server::Api;
use crate::peers::fetch;
use crate::volumes::events;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Requests for each path and phase; more find more and take longer.
const EXAMPLES: &str = "40";
/// Not among them: that what is valid by its schema is accepted (a span that ends before it begins is not), and what
/// concerns keys, which other tests look at.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

/// Where Python finds what Schemathesis is taught.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

#[test]
fn every_path_of_the_document_is_answered_and_needs_what_it_says() {
    let (api, keys) = Api::with_keys("");
    let document = api.get("/v1/openapi.json").json();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            assert!(METHODS.contains(&method.as_str()), "{path}: {method}");
            operations += 1;
            let url = api.url(&path.replace("{id}", "00000000-0000-5000-8000-000000000000"));
            let call = |key: Option<&String>| {
                let mut request = ureq::http::Request::builder().method(method.to_uppercase().as_str()).uri(&url);
                if let Some(key) = key {
                    request = request.header("authorization", format!("Bearer {key}"));
                }
                api.request(request.body(()).expect("a request")).status
            };
            assert_eq!(call(None), 401, "{method} {path}");
            let role = operation["security"][0]["key"][0].as_str().expect("a role");
            for (key, own) in keys.iter().zip(["read", "write", "admin"]) {
                let rank = |role: &str| ["read", "write", "admin"].iter().position(|known| *known == role);
                let (status, allowed) = (call(Some(key)), rank(own) >= rank(role));
                assert_eq!(status != 403, allowed, "{method} {path} with the role {own}: {status}");
                assert_ne!(status, 405, "{method} {path}");
            }
        }
    }
    assert_eq!(operations, 27);
}

#[test]
fn schemathesis_finds_no_fault() {
    let (api, [.., admin]) = Api::with_keys("");
    api.insert(&events(1, 200));
    api.insert_forecast(1_767_247_200, &["*", "soc", "identity"]);
    let library = format!("{}:{HOOKS}", fetch::schemathesis_library().display());
    // The same requests each time, unless somebody asks for others.
    let seed = std::env::var("TRIAGED_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    let key = format!("Authorization: Bearer {admin}");
    let command = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
    let output = Command::new("python3")
        .args(["-c", command, "run", &api.url("/v1/openapi.json"), "--header", &key, "--checks", CHECKS])
        // One worker: Python 3.11 counts the depth of `ast.parse` for all threads together and takes two for a fault.
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--workers", "1"])
        .args(["--seed", &seed, "--generation-database", "none", "--suppress-health-check", "all"])
        .args(["--continue-on-failure", "--no-color"])
        .current_dir(api.folder.path())
        .env("PYTHONPATH", library)
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .output()
        .expect("tests need python3 to run Schemathesis");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metrics = api.metrics.encode();
    let is_failure = |line: &&str| line.starts_with("triaged_http_requests_total") && line.contains("status=\"5");
    let failures: Vec<&str> = metrics.lines().filter(is_failure).collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn the_document_is_served_as_it_is_generated() {
    let api = Api::start("");
    let answer = api.get("/v1/openapi.json");
    assert_eq!(answer.header("content-type"), "application/json");
    let document: Value = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let page = api.get("/docs");
    assert!(page.header("content-type").starts_with("text/html") && page.body.contains("/docs/docs.js"), "{page:?}");
    assert!(page.header("content-security-policy").contains("script-src 'self'"));
}
