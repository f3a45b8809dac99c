//! The classify stage. Its template cache is keyed by what `template` makes of a line.

pub mod template;
