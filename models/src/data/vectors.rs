//! Loops for the vectors that the processor at hand has, where they are wider than what every processor has.

use std::sync::LazyLock;

use fearless_simd::{Level, dispatch};

static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

/// The widest vectors here, for [`dispatch`].
pub(crate) fn level() -> Level {
    *LEVEL
}

/// Does `work` in code that is compiled for the widest vectors here. Mark the closure and what it calls
/// `#[inline(always)]`: what is not inlined is compiled for all processors. The numbers are the same: nothing is fused and
/// nothing is added in another order.
#[inline(always)]
pub(crate) fn widest<T>(work: impl FnOnce() -> T) -> T {
    dispatch!(level(), _ => work())
}
