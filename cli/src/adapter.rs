//! Which adapter a command uses.

use clap::Args;
use lara_runtime::{Gpu, GpuOptions};

use crate::fail::Outcome;

/// Which adapter to use; the same everywhere.
#[derive(Args, Clone)]
pub(crate) struct AdapterOptions {
    /// Part of the adapter's name or its index in `lara devices`. WGPU_BACKEND and WGPU_ADAPTER_NAME are honoured, too.
    #[arg(long, value_name = "NAME|INDEX")]
    adapter: Option<String>,
    /// Prefer the integrated GPU to the discrete one.
    #[arg(long)]
    low_power: bool,
}

impl AdapterOptions {
    /// The same as the runtime wants it.
    pub(crate) fn options(&self) -> GpuOptions {
        GpuOptions { adapter: self.adapter.clone(), low_power: self.low_power, ..GpuOptions::default() }
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Outcome<Gpu> {
        Ok(Gpu::open_blocking(&self.options())?)
    }
}
