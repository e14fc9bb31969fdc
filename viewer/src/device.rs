//! One device for the window and for what it shows.

use eframe::egui_wgpu::{WgpuSetup, WgpuSetupExisting};
use lara_runtime::Gpu;

/// The runtime's device as a window's own: what is drawn needs no copy.
pub fn wgpu_setup(gpu: &Gpu) -> WgpuSetup {
    WgpuSetup::Existing(WgpuSetupExisting {
        instance: gpu.instance().clone(),
        adapter: gpu.adapter().clone(),
        device: gpu.device().clone(),
        queue: gpu.queue().clone(),
    })
}
