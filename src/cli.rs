//! The command line.

pub mod evaluate;
pub mod train;
