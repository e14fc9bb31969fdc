//! Tests of the viewer: its window on the test adapter.

mod bundled;
mod compare;
mod look;
mod paint;
mod photo;
mod rollout;
mod sizes;
mod training;
mod window;
