//! The OpenAPI 3.1 document, made of the handlers and their types, and the page that shows it. The page needs nothing
//! from elsewhere: it renders `/v1/openapi.json` and sends requests with a key that stays in the page.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::problem::Problem;
use super::{ApiState, audit, classify, events, forecasts, incidents, models, reload, reports, reviews, volumes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "triaged",
        description = "Which queue a ticket or log line belongs to, what was decided, how much came in, and what is \
                       expected. Every refusal is a problem document (RFC 9457). Unknown parameters are refused.",
        version = env!("CARGO_PKG_VERSION"),
    ),
    paths(
        classify::classify,
        volumes::stats,
        volumes::queues,
        volumes::volumes,
        forecasts::forecasts,
        forecasts::forecasts_csv,
        forecasts::trends,
        events::events,
        events::event,
        incidents::incidents,
        incidents::incident,
        incidents::escalate,
        incidents::acknowledge,
        incidents::resolve,
        models::models,
        models::promote,
        models::rollback,
        reload::reload,
        audit::audit,
        reviews::reviews,
        reviews::queues,
        reviews::claim,
        reviews::release,
        reviews::feedback,
        reviews::bulk,
        reports::report,
        reports::email,
    ),
    components(schemas(Problem)),
)]
struct Paths;

/// What every path may answer instead.
const REFUSALS: [(&str, &str); 6] = [
    ("401", "No key, or one that is unknown, expired or revoked."),
    ("403", "The key's role is not enough."),
    ("422", "The request cannot be done as it stands."),
    ("429", "Too many requests; Retry-After says when to try again."),
    ("503", "The volume store does not answer, or too much is under way."),
    ("default", "Any other refusal."),
];

/// The whole document as JSON.
pub(super) fn document() -> String {
    let mut document = serde_json::to_value(Paths::openapi()).expect("plain data becomes JSON");
    document["components"]["securitySchemes"] = json!({
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key made by `triaged keys create`. Where the daemon has no keys file, none is needed.",
        }
    });
    for item in document["paths"].as_object_mut().expect("the document has paths").values_mut() {
        for operation in item.as_object_mut().expect("a path has operations").values_mut() {
            let operation = operation.as_object_mut().expect("an operation is an object");
            // A path that needs more than the role read says so itself.
            operation.entry("security").or_insert_with(|| json!([{ "key": ["read"] }]));
            add_refusals(operation["responses"].as_object_mut().expect("an operation has responses"));
        }
    }
    document.to_string()
}

fn add_refusals(responses: &mut Map<String, Value>) {
    for (status, description) in REFUSALS {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let answer = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": schema } },
        });
        responses.entry(status).or_insert(answer);
    }
}

const PAGE: &str = include_str!("docs/index.html");
const SCRIPT: &str = include_str!("docs/docs.js");
const STYLE: &str = include_str!("docs/docs.css");
/// Only what comes from here is loaded, run and asked.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document and its page; nobody needs a key for them.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/v1/openapi.json", get(serve_document))
        .route("/docs", get(async || page("text/html; charset=utf-8", PAGE)))
        .route("/docs/docs.js", get(async || page("text/javascript; charset=utf-8", SCRIPT)))
        .route("/docs/docs.css", get(async || page("text/css; charset=utf-8", STYLE)))
}

async fn serve_document(State(state): State<ApiState>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.document.clone()).into_response()
}

fn page(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_openapi_3_1_and_refers_to_what_it_holds() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("everything is in the document");
                        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    }
                    members.values().for_each(|member| check(document, member));
                }
                Value::Array(items) => items.iter().for_each(|item| check(document, item)),
                _ => {}
            }
        }
        check(&document, &document);
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                assert!(operation["summary"].is_string() && operation["responses"]["401"].is_object(), "{path}");
            }
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(!text.contains("//cdn") && !text.contains("https://") && !text.contains("innerHTML"));
        }
        assert!(!PAGE.contains("<style") && !PAGE.contains("style=") && !PAGE.contains("onclick"));
    }
}
