//! `triaged evaluate`: what a model package is worth on labelled rows.
