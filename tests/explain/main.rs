//! Tests of what needs no window: rows of implied attention, rollout, relevance, and their export.

mod blocks;
mod bundled;
mod compute;
mod export;
mod inspector;
mod rollout;
mod uniform;

use lara_runtime::Gpu;

/// The device of the tests.
fn gpu() -> &'static Gpu {
    lara_tests::adapter()
}
