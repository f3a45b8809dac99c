//! The HTTP port for operators: liveness, readiness with reasons, and metrics.
//!
//! Nothing here changes anything, and nothing confidential leaves: no configuration, no texts. A slow or idle peer is
//! cut off, and peers beyond the limit wait in the kernel's backlog.

pub mod review;
mod routes;
mod server;

pub use server::{OpsError, OpsServer};
