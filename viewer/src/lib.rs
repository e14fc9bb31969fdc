//! What attention looks like: the interactive viewer of lara, on the desktop and in a browser.
//!
//! The window shares the runtime's device: maps are drawn from the tensors' own buffers, and what is read back are numbers
//! for labels. [`inspect::Inspector`] works out the row of attention that any mechanism implies for a query, without an
//! N x N matrix.

pub mod app;
pub mod colormap;
pub mod error;
pub mod export;
pub mod inspect;
pub mod job;
pub mod maps;
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
pub use colormap::Colormap;
pub use error::{Error, Result};
pub use maps::{Map, Query};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{View, view, view_training};
pub use panes::crop_pct;
pub use wgpu::TextureFormat;

/// The runtime's device as a window's own: what is drawn needs no copy.
pub fn wgpu_setup(gpu: &lara_runtime::Gpu) -> eframe::egui_wgpu::WgpuSetup {
    eframe::egui_wgpu::WgpuSetup::Existing(eframe::egui_wgpu::WgpuSetupExisting {
        instance: gpu.instance().clone(),
        adapter: gpu.adapter().clone(),
        device: gpu.device().clone(),
        queue: gpu.queue().clone(),
    })
}
