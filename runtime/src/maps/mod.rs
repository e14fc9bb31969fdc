//! What a viewer shows of attention: rows of the implied matrix, ranges, distances, moments, rollout, relevance. Nothing
//! here has a gradient; every file shares its basename with its shader and its test.
//!
//! The output of every mechanism is linear in the values, out = A v with the implied attention matrix A. So rows of A come
//! out of the gradient that the mechanism has anyway, in its own (linear) time and without a matrix of N x M numbers:
//! [`select_rows`] makes the gradient of the output, the tape's backward pass that of the values, and [`collect_rows`]
//! reads the rows out of it.

mod collect_rows;
mod discard;
mod fuse_heads;
mod map_distance;
mod map_range;
mod moments;
mod rollout;
mod select_rows;

pub use collect_rows::collect_rows;
pub use discard::discard;
pub use fuse_heads::{Fusion, fuse_heads};
pub use map_distance::{map_difference, map_distance};
pub use map_range::map_range;
pub use moments::{Moments, moments};
pub use rollout::rollout;
pub use select_rows::select_rows;
