//! What attention looks like: the interactive viewer of lara, on the desktop and in a browser.
//!
//! The window shares the runtime's device: maps are drawn from the tensors' own buffers, and what is read back are numbers
//! for labels. What is worked out without a window, rows of attention above all, is in the crate `lara_explain`.

pub mod app;
mod canvas;
mod context;
mod device;
#[cfg(target_arch = "wasm32")]
mod download;
pub mod error;
mod incoming;
pub mod job;
mod keys;
mod looking;
pub mod messages;
#[cfg(not(target_arch = "wasm32"))]
mod native;
pub mod paint;
pub mod panes;
pub mod pictures;
pub mod settings;
pub mod training;
pub mod web;

pub use app::{App, Launch, Status};
pub use device::wgpu_setup;
pub use error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{View, view, view_training};
pub use wgpu::TextureFormat;
