//! The only reader of the environment and of configuration files: default.toml, then the user's file, then
//! `TRIAGED_*` variables, checked as a whole into a `Config`.

mod secret;
mod settings;

pub use secret::Secret;
pub use settings::*;
