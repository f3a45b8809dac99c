//! The arithmetic of serving an encoder, and the only module with `unsafe` in it.
//!
//! Arrives: slices, and weights that were packed once. Leaves: slices. Every function checks the sizes of what it is
//! given and is safe to call. Which instructions run is decided by a `Cpu`, which exists only for instructions that
//! this processor has, so calling code compiled for them is sound.
//!
//! All paths compute the same: int8 products agree to the bit (they are sums of integers), f32 results up to rounding.

#![allow(unsafe_code)]

mod amx;
mod attention;
mod buffer;
mod cpu;
mod dense;
mod dense_tiles;
mod functions;
mod grid;
mod quantised;
mod quantised_tiles;
mod rows;
mod team;

pub(crate) use attention::{Attention, attend};
pub use cpu::{Cpu, InstructionSet};
pub(crate) use dense::DenseWeights;
pub(crate) use grid::Matrix;
pub(crate) use quantised::{QuantisedRows, QuantisedWeights};
pub(crate) use rows::{Norm, add_normalise, normalise, quantise};
pub(crate) use team::{Team, with_team};

/// What is applied to the output of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    /// x Φ(x), with the error function.
    Gelu,
    /// The approximation of GELU by the hyperbolic tangent.
    GeluTanh,
    Relu,
}

/// What every kernel needs to know: which instructions it may use and who helps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine<'a> {
    pub(crate) cpu: Cpu,
    pub(crate) team: &'a Team,
}
