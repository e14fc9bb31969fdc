//! What a viewer shows of attention: rows of the implied matrix, ranges, distances, moments, rollout, relevance. Nothing
//! here has a gradient; every file shares its basename with its shader and its test.
//!
//! The output of every mechanism is linear in the values, out = A v with the implied attention matrix A. So rows of A come
//! out of the gradient that the mechanism has anyway, in its own (linear) time and without a matrix of N x M numbers:
//! [`select_rows`] makes the gradient of the output, the tape's backward pass that of the values, and [`collect_rows`]
//! reads the rows out of it.
//!
//! One setting is not linear: LARA's `pool-vmixed` places its landmarks by the norms of the values, so what comes back
//! through the landmarks is added to the rows. Its matrix is shown by [`crate::attention::Attention::weights`] only.

mod collect_rows;
mod discard;
mod fuse_heads;
mod map_distance;
mod map_range;
mod moments;
mod relevance;
mod roll_on;
mod rollout;
mod select_rows;
mod weigh;

pub use collect_rows::collect_rows;
pub use discard::discard;
pub use fuse_heads::{Fusion, fuse_heads};
pub use map_distance::{map_difference, map_distance};
pub use map_range::map_range;
pub use moments::{Moments, moments};
pub use relevance::relevance;
pub use roll_on::roll_on;
pub use rollout::rollout;
pub use select_rows::select_rows;
pub use weigh::weigh;
