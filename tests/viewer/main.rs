//! Tests of the viewer: what it computes and exports, and its window on the test adapter.

mod compare;
mod compute;
mod export;
mod inspector;
mod look;
mod paint;
mod rollout;
mod sizes;
mod training;
mod window;
