//! Tests of the viewer: what it computes, and its window on the test adapter.

mod compare;
mod inspector;
mod look;
mod training;
mod window;
//! Tests of the viewer.

mod compute;
mod export;
