//! Why to believe lara: a float64 reference and its exact directional derivative for everything the GPU computes.
//!
//! A reference is a naive function, generic over [`Real`]: evaluated with `f64` it gives values, with [`Dual`] numbers
//! exact directional derivatives. [`check`] compares the GPU's values with the first and, by the adjoint identity
//! <v, J u> = <J^T v, u> for random u and v, every entry of every gradient with the second.

mod case;
mod check;
mod golden;
mod real;

pub use case::{Build, Case};
pub use check::{Outcome, Reference, adapter, assert_close, check, cotangent, random, run, tune};
pub use golden::{Golden, golden_inputs};
pub use real::{Dual, Real};
