//! Why to believe lara: a float64 reference and its exact directional derivative for everything the GPU computes.
//!
//! A reference is a naive function, generic over [`Real`]: evaluated with `f64` it gives values, with [`Dual`] numbers
//! exact directional derivatives. [`check`] compares the GPU's values with the first and, by the adjoint identity
//! <v, J u> = <J^T v, u> for random u and v, every entry of every gradient with the second.

#[cfg(not(target_arch = "wasm32"))]
mod case;
#[cfg(not(target_arch = "wasm32"))]
mod check;
mod golden;
mod golden_case;
mod real;

#[cfg(not(target_arch = "wasm32"))]
pub use case::{Build, Case};
#[cfg(not(target_arch = "wasm32"))]
pub use check::{Outcome, Reference, adapter, assert_close, check, check_golden, cotangent, random, run, tune};
pub use golden::{Golden, golden_inputs};
pub use golden_case::{GOLDEN_TOLERANCE, GOLDEN_VARIANTS, GoldenCase, relative_error};
pub use real::{Dual, Real};
