//! Which adapters there are, what a person wants to know of each, and which one is opened.

use std::collections::BTreeMap;

use crate::cost::Speed;
use crate::error::{Error, Result};

/// How to choose an adapter.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Part of the adapter's name (any case) or its index in `lara devices`.
    pub adapter: Option<String>,
    /// Prefer the integrated GPU to the discrete one.
    pub low_power: bool,
    /// Most bytes that the runtime may allocate on the device; beyond them it is out of memory.
    pub memory_limit: Option<u64>,
    /// Loses the device with this submit (the first is 1): for tests of what happens then.
    pub lose_after: Option<u64>,
    /// What the device is thought to reach, instead of what others of its kind do: decides into how many submits a run is cut.
    pub speed: Option<Speed>,
}

/// What a person wants to know about an adapter.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterReport {
    /// Index for `--adapter`.
    pub index: usize,
    /// Name, for instance `AMD Radeon RX 7900 XTX`.
    pub name: String,
    /// Vulkan, Metal, Dx12, Gl or BrowserWebGpu.
    pub backend: String,
    /// DiscreteGpu, IntegratedGpu, VirtualGpu, Cpu or Other.
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// Limits that matter here.
    pub limits: BTreeMap<&'static str, u64>,
    /// Features that the runtime uses when present, and whether they are.
    pub features: BTreeMap<&'static str, bool>,
    /// What the runtime will do without, in words.
    pub without: Vec<String>,
}

pub(crate) const OPTIONAL_FEATURES: [(&str, wgpu::Features, &str); 3] = [
    ("shader-f16", wgpu::Features::SHADER_F16, "half-precision storage"),
    ("subgroups", wgpu::Features::SUBGROUP, "broadcasts between lanes (matmul on lavapipe)"),
    ("timestamp-query", wgpu::Features::TIMESTAMP_QUERY, "per-dispatch GPU times (--profile)"),
];

pub(crate) fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// A browser offers one adapter, and chooses it itself.
#[cfg(target_arch = "wasm32")]
pub(crate) async fn adapters(instance: &wgpu::Instance, low_power: bool) -> Vec<wgpu::Adapter> {
    let power_preference =
        if low_power { wgpu::PowerPreference::LowPower } else { wgpu::PowerPreference::HighPerformance };
    let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    instance.request_adapter(&options).await.into_iter().collect()
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) async fn adapters(instance: &wgpu::Instance, _low_power: bool) -> Vec<wgpu::Adapter> {
    let backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all());
    let all = instance.enumerate_adapters(backends).await;
    all.into_iter()
        .filter(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
        .collect()
}

pub(crate) fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let without = OPTIONAL_FEATURES.iter().filter(|f| !features.contains(f.1));
    AdapterReport {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        limits: BTreeMap::from([
            ("max_buffer_size", limits.max_buffer_size),
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
            ("min_uniform_buffer_offset_alignment", limits.min_uniform_buffer_offset_alignment.into()),
            ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        ]),
        features: OPTIONAL_FEATURES.iter().map(|f| (f.0, features.contains(f.1))).collect(),
        without: without.map(|f| f.2.to_owned()).collect(),
    }
}

/// What a test allows of a device.
pub(crate) struct Limits {
    pub(crate) memory: Option<u64>,
    pub(crate) submits: Option<u64>,
    pub(crate) speed: Option<Speed>,
}

impl Limits {
    /// As `options` say, else as the environment does.
    pub(crate) fn of(options: &GpuOptions) -> Result<Self> {
        let or_from =
            |given: Option<u64>, variable| given.map_or_else(|| number_from(variable), |given| Ok(Some(given)));
        Ok(Limits {
            memory: or_from(options.memory_limit, "LARA_MEMORY_LIMIT")?,
            submits: or_from(options.lose_after, "LARA_LOSE_DEVICE_AFTER")?,
            speed: options.speed,
        })
    }
}

/// The number in an environment variable, if it is set.
fn number_from(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    bytes_from(&text).map(Some).map_err(|why| Error::Setting(format!("{variable} is \"{text}\"; {why}")))
}

/// A number of bytes as people write it: `8G`, `512M`, `65536`.
///
/// # Errors
/// What to give instead.
pub fn bytes_from(text: &str) -> std::result::Result<u64, &'static str> {
    let text = text.trim();
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.into_iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]));
    let digits = unit.map_or(text, |_| &text[..text.len() - 1]);
    let number = digits.trim().parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << unit.map_or(0, |(_, shift)| shift)))
        .ok_or("give a whole number, with K, M or G behind it for powers of 1024")
}

pub(crate) fn choose(found: &[wgpu::Adapter], wanted: Option<&str>, low_power: bool) -> Option<usize> {
    if let Some(wanted) = wanted {
        let names: Vec<String> = found.iter().map(|adapter| adapter.get_info().name).collect();
        return named(&names, wanted);
    }
    let rank = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 2 * u32::from(low_power),
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 3,
            wgpu::DeviceType::Other => 4,
            wgpu::DeviceType::Cpu => 5,
        };
        // The native interface of a system before OpenGL.
        (kind, u32::from(info.backend == wgpu::Backend::Gl))
    };
    (0..found.len()).min_by_key(|&i| rank(&found[i]))
}

/// The adapter of this index, or, since cards have numbers in their names, the first whose name holds `wanted`.
fn named(names: &[String], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim().to_lowercase();
    let index = wanted.parse().ok().filter(|&index: &usize| index < names.len());
    index.or_else(|| names.iter().position(|name| name.to_lowercase().contains(&wanted)))
}

pub(crate) fn no_adapter(wanted: Option<String>, names: &[String]) -> Error {
    let wanted = wanted.map_or_else(|| "was found".to_owned(), |w| format!("is called or numbered \"{w}\""));
    let advice = if names.is_empty() && cfg!(target_arch = "wasm32") {
        "This browser has no WebGPU, or has it switched off for this graphics card. Use a current Chrome, Edge, Firefox \
         or Safari, and open the page over https or from localhost"
            .to_owned()
    } else if names.is_empty() {
        "Install a Vulkan driver (on Debian `cargo xtask setup` installs Mesa's software driver), or unset WGPU_BACKEND"
            .to_owned()
    } else {
        let listed: Vec<String> = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect();
        format!("There are {}", listed.join("; "))
    };
    Error::NoAdapter { wanted, advice }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_number_is_an_index_where_there_is_one_and_else_part_of_a_name() {
        let names = ["llvmpipe (LLVM 15.0.6)", "AMD Radeon RX 7900 XTX", "NVIDIA GeForce RTX 4090"].map(String::from);
        let found = ["1", "7900", "4090", "radeon", " RTX ", "15", "3", "intel"].map(|wanted| named(&names, wanted));
        assert_eq!(found, [Some(1), Some(1), Some(2), Some(1), Some(2), Some(0), None, None]);
    }
}
