//! What attention looks like, without a window: the row of attention that any mechanism implies for a query, rollout and
//! relevance, comparison with exact softmax, and all of it as files.
//!
//! [`Inspector`] works rows out without an N x N matrix and leaves them on the device, where a window paints them
//! ([`MapSource`]) and from where [`export`] reads them back.

mod bundled;
mod colormap;
mod comparison;
mod error;
pub mod export;
mod inspector;
mod map;
mod matrices;
mod relevance;
mod rolling;
mod sizes;
mod source;

pub use bundled::{DRAWINGS, Drawing, bundled, bundled_digits};
pub use colormap::{Colormap, LEVELS};
pub use comparison::{Comparison, Distances, attention_for, with_attention};
pub use error::{Error, Result};
pub use inspector::{Inspector, NOT_SQUARE, News};
pub use map::{Kind, Map, Query};
pub use matrices::{Factor, MOST_TOKENS, Matrices};
pub use relevance::Relevance;
pub use sizes::{Head, SLOTS, Sizes, carry};
pub use source::{MapSource, ScaleEnd};
