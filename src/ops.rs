//! Everything that answers over HTTP, on two addresses: health and metrics for operators (`server`, `routes`), and the
//! API for programs and people (`api`). The only place where axum is named.
//!
//! ```text
//! listener   accepts within limits: connections, deadlines, slow readers, TLS     both servers
//! server     /health/live, /health/ready, /metrics
//! api        /v1, /docs
//! keys       the keys file: who may call the API; `triaged keys` writes it, the API reads it
//! ```

mod api;
mod headers;
mod keyring;
mod keys;
mod listener;
pub mod review;
mod routes;
mod server;
mod serving;
mod tls;

pub use api::{ApiError, ApiParts, ApiServer};
pub use keyring::{Denied, Keyring};
pub use keys::{KeyRecord, KeyState, KeysError, KeysFile, Moment, NewKey, Permission};
pub use listener::BindError;
pub use server::OpsServer;
pub use serving::Serving;
pub use tls::TlsError;
