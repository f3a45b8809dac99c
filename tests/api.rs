//! The HTTP API over real connections: each path with and without the right key, limits, TLS, uploads, many callers at a
//! time, and requests that are made out of its own OpenAPI document.

mod access;
mod contract;
mod endpoints;
mod limits;
mod load;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod page;
mod reviews;
mod server;
mod tls;
mod uploads;
