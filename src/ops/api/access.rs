//! Who calls, and what they may do.
//!
//! With a keys file every caller shows a key: `Authorization: Bearer trg_…`. Without one the API listens on loopback only
//! and everyone on this machine is an administrator; then the request must also be addressed to this machine, so that
//! no web page can reach it through a name of its own (DNS rebinding).

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use crate::ops::listener::Peer;
use crate::ops::{Denied, Permission};
use crate::volumes::AuditEntry;

use super::ApiState;
use super::problem::Problem;

/// The one who calls; an extension of every request that needs a permission, and an argument of its handler.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Name and id of the key; `local` without keys.
    actor: String,
    permission: Permission,
    address: IpAddr,
}

impl Caller {
    fn require(&self, needed: Permission) -> Result<(), Problem> {
        if self.permission >= needed {
            return Ok(());
        }
        let detail = format!("this needs a key with the role {needed}; yours has {}", self.permission);
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }

    /// Name and id of the key; `local` without keys.
    pub(super) fn actor(&self) -> &str {
        &self.actor
    }

    /// The entry for a change that this caller makes now, for `VolumeStore::audit`.
    pub(super) fn change(&self, action: &str, subject: &str, detail: &Value) -> AuditEntry {
        AuditEntry::now(&self.actor, &self.address.to_string(), action, subject, detail)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Caller>().expect("`identify` stands before every path with a caller").clone())
    }
}

/// Middleware: finds out who calls, and whether not too often.
pub(super) async fn identify(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let address = peer(&request).0.ip();
    let caller = match &state.keyring {
        None => {
            addressed_to_this_machine(request.headers())?;
            Caller { actor: "local".to_owned(), permission: Permission::Admin, address }
        }
        Some(keyring) => {
            let key = keyring.verify(bearer(request.headers())?).map_err(refusal)?;
            state.limits.check_key(&key.id)?;
            Caller { actor: format!("{} ({})", key.name, key.id), permission: key.role, address }
        }
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Middleware: lets those through who have the permission.
pub(super) async fn require(
    State(needed): State<Permission>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    caller.require(needed)?;
    Ok(next.run(request).await)
}

/// The other end of the connection.
pub(super) fn peer(request: &Request) -> Peer {
    *request.extensions().get::<Peer>().expect("the listener says who it is")
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, key) = given.and_then(|text| text.split_once(' ')).unwrap_or_default();
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(key.trim()),
        false => {
            Err(Problem::unauthorized("show a key: `Authorization: Bearer trg_…`; `triaged keys create` makes one"))
        }
    }
}

/// Who has the secret may know that its time is over; nobody else learns which keys there are.
fn refusal(denied: Denied) -> Problem {
    Problem::unauthorized(match denied {
        Denied::Unknown => "there is no such key",
        Denied::Expired => "the key has expired",
        Denied::Revoked => "the key was revoked",
    })
}

fn addressed_to_this_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    if name.eq_ignore_ascii_case("localhost") || literal.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected",
        "without keys the API answers on localhost only; set api.keys_file to be called by another name",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_key_comes_in_the_authorization_header() {
        let key = |value: &str| bearer(&headers(header::AUTHORIZATION, value)).map(str::to_owned).ok();
        assert_eq!((key("Bearer trg_1_2"), key("bearer  x ")), (Some("trg_1_2".into()), Some("x".into())));
        assert_eq!((key("Basic eA=="), key("Bearer"), key("")), (None, None, None));
        assert!(bearer(&HeaderMap::new()).is_err());
    }

    #[test]
    fn without_keys_only_this_machine_is_spoken_to() {
        for host in ["localhost", "LOCALHOST:9465", "127.0.0.1:9465", "127.8.8.8", "[::1]:9465", "[::1]"] {
            assert!(addressed_to_this_machine(&headers(header::HOST, host)).is_ok(), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:9465", "192.0.2.1", "[::2]:9465", "127.0.0.1.nip.io"] {
            assert!(addressed_to_this_machine(&headers(header::HOST, host)).is_err(), "{host}");
        }
        assert!(addressed_to_this_machine(&HeaderMap::new()).is_err());
    }
}
