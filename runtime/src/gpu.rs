//! The device: limits, features, memory, submits, compiled pipelines, and what went wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::adapter::{
    AdapterReport, GpuOptions, Limits, OPTIONAL_FEATURES, adapters, choose, describe, instance, no_adapter,
};
use crate::buffer::{Buffer, Meter};
use crate::cost::Speed;
use crate::error::{Error, Result};
use crate::failures::Failures;
use crate::kernel::{Kernel, Signature};

/// A device and its queue. Clones share it.
#[derive(Clone, Debug)]
pub struct Gpu {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instance: wgpu::Instance,
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    report: AdapterReport,
    limits: wgpu::Limits,
    features: wgpu::Features,
    lanes: bool,
    pipelines: Mutex<HashMap<PipelineKey, Arc<Pipeline>>>,
    failures: Arc<Failures>,
    meter: Arc<Meter>,
    /// Staging memory that no run holds; a run takes a belt and brings it back.
    belts: Mutex<Vec<wgpu::util::StagingBelt>>,
    submits: AtomicU64,
    /// Held by a run while it looks at what the ones before it left and is submitted.
    order: Mutex<()>,
    lose_after: Option<u64>,
    speed: Speed,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct PipelineKey(&'static str, &'static str, Vec<(&'static str, u64)>);

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) signature: Arc<Signature>,
}

/// Lanes of a subgroup that kernels with subgroups are written for.
const LANES: u32 = 8;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Every adapter that can run compute shaders. Honours `WGPU_BACKEND`.
    pub async fn list() -> Vec<AdapterReport> {
        adapters(&instance(), false).await.iter().enumerate().map(|(i, a)| describe(i, a)).collect()
    }

    /// Opens an adapter. Honours `WGPU_BACKEND` and, where `options` leaves it open, `WGPU_ADAPTER_NAME`,
    /// `LARA_MEMORY_LIMIT` (bytes, or with K, M or G behind) and `LARA_LOSE_DEVICE_AFTER` (submits).
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if none matches, [`Error::NoDevice`] if the driver refuses, [`Error::Setting`] for a variable
    /// that is no number.
    pub async fn open(options: &GpuOptions) -> Result<Gpu> {
        let instance = instance();
        let found = adapters(&instance, options.low_power).await;
        let wanted = options.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok());
        let named = |a: &wgpu::Adapter| format!("{} ({:?})", a.get_info().name, a.get_info().backend);
        let names: Vec<String> = found.iter().map(named).collect();
        let index = choose(&found, wanted.as_deref(), options.low_power);
        let adapter = index.and_then(|i| Some((i, found.into_iter().nth(i)?)));
        let (index, adapter) = adapter.ok_or_else(|| no_adapter(wanted, &names))?;
        Self::from_adapter(index, instance, adapter, Limits::of(options)?).await
    }

    /// Opens an adapter on native systems, waiting for it.
    ///
    /// # Errors
    /// See [`Gpu::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_blocking(options: &GpuOptions) -> Result<Gpu> {
        pollster::block_on(Self::open(options))
    }

    async fn from_adapter(
        index: usize,
        instance: wgpu::Instance,
        adapter: wgpu::Adapter,
        allowed: Limits,
    ) -> Result<Gpu> {
        let report = describe(index, &adapter);
        let features = OPTIONAL_FEATURES.iter().fold(wgpu::Features::empty(), |all, f| all | f.1) & adapter.features();
        let limits = adapter.limits();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("lara"),
                required_features: features,
                required_limits: limits.clone(),
                memory_hints: wgpu::MemoryHints::Performance,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::NoDevice { adapter: report.name.clone(), reason: e.to_string() })?;
        let info = adapter.get_info();
        let lanes = features.contains(wgpu::Features::SUBGROUP)
            && [info.subgroup_min_size, info.subgroup_max_size] == [LANES; 2];
        let speed = Speed::of_kind(&report.kind);
        let failures = Arc::new(Failures::default());
        let lost = failures.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the last handle also "loses" the device; that is no failure. In a browser nothing is dropped that
            // way, and a crashed graphics process calls its devices destroyed, too.
            if cfg!(target_arch = "wasm32") || reason != wgpu::DeviceLostReason::Destroyed {
                lost.lose(message);
            }
        });
        let uncaptured = failures.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            uncaptured.complain(e.to_string());
        }));
        Ok(Gpu {
            shared: Arc::new(Shared {
                instance,
                adapter,
                device,
                queue,
                report,
                limits,
                features,
                lanes,
                pipelines: Mutex::default(),
                failures,
                meter: Arc::new(Meter::new(allowed.memory)),
                belts: Mutex::default(),
                submits: AtomicU64::new(0),
                order: Mutex::default(),
                lose_after: allowed.submits,
                speed: allowed.speed.unwrap_or(speed),
            }),
        })
    }

    /// What was opened.
    pub fn report(&self) -> &AdapterReport {
        &self.shared.report
    }

    /// Whether the adapter computes on the CPU (lavapipe, SwiftShader, WARP).
    pub fn is_cpu(&self) -> bool {
        self.shared.report.kind == "Cpu"
    }

    /// Whether a workgroup of 8 is one subgroup, as on Mesa's lavapipe: then kernels that broadcast between 8 lanes run.
    pub fn has_lanes(&self) -> bool {
        self.shared.lanes
    }

    /// Limits of the device.
    pub(crate) fn limits(&self) -> &wgpu::Limits {
        &self.shared.limits
    }

    /// Largest tensor in bytes that can be bound at once.
    pub fn max_binding_bytes(&self) -> u64 {
        let binding = self.shared.limits.max_storage_buffer_binding_size;
        binding.min(self.shared.limits.max_buffer_size) / 256 * 256
    }

    /// Whether per-dispatch timestamps are available.
    pub fn has_timestamps(&self) -> bool {
        self.shared.features.contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// The wgpu instance, for a viewer whose surfaces come from it.
    pub fn instance(&self) -> &wgpu::Instance {
        &self.shared.instance
    }

    /// The wgpu adapter that was opened, for a viewer that shares it.
    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.shared.adapter
    }

    /// The wgpu device, for a viewer that shares it.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The wgpu queue, for a viewer that shares it.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Reports a lost device, or an error that the driver raised about a call of this thread since it asked last. What another
    /// thread did is for that one to hear.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Rejected`].
    pub fn check(&self) -> Result<()> {
        self.shared.failures.check()
    }

    /// Reports a lost device alone: what else went wrong is for whoever caused it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn refuse_if_lost(&self) -> Result<()> {
        self.shared.failures.refuse_if_lost()
    }

    /// A zeroed buffer of at least `bytes`, rounded up to 16. Whether there is room for it is asked before, by
    /// `reserve`, and told by an error scope after.
    #[expect(clippy::disallowed_methods, reason = "the one place that creates storage")]
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Buffer {
        let size = bytes.next_multiple_of(16).max(16);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        Buffer::new(buffer, self.shared.meter.clone())
    }

    /// Bytes of all buffers of the runtime that live on this device, without staging memory.
    pub fn memory_in_use(&self) -> u64 {
        self.shared.meter.in_use()
    }

    /// The most bytes that may be allocated, if a limit was set.
    pub fn memory_limit(&self) -> Option<u64> {
        self.shared.meter.limit()
    }

    /// Whether `needed` more bytes stay within the limit that was set, if one was.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] that says what for and how much is in use.
    pub(crate) fn reserve(&self, what: &str, needed: u64) -> Result<()> {
        self.shared.meter.reserve(what, needed)
    }

    /// The error for `needed` bytes that the driver did not give.
    pub(crate) fn shortage(&self, what: &str, needed: u64) -> Error {
        self.shared.meter.shortage(what, needed)
    }

    /// Staging memory for the uploads of one run; [`Gpu::submit_uploads`] takes it back.
    pub(crate) fn take_belt(&self) -> wgpu::util::StagingBelt {
        let waiting = lock(&self.shared.belts).pop();
        waiting.unwrap_or_else(|| wgpu::util::StagingBelt::new(self.device().clone(), 1 << 20))
    }

    /// Submits commands one after the other, among them such as copy from a belt, which then waits for the next run.
    pub(crate) fn submit_all(
        &self,
        full: Vec<wgpu::CommandBuffer>,
        last: wgpu::CommandEncoder,
        mut belt: Option<wgpu::util::StagingBelt>,
    ) -> wgpu::SubmissionIndex {
        if let Some(belt) = &mut belt {
            belt.finish();
        }
        for commands in full {
            self.submit_commands(commands);
        }
        let index = self.submit(last);
        if let Some(mut belt) = belt {
            belt.recall();
            lock(&self.shared.belts).push(belt);
        }
        index
    }

    /// Whoever holds it is alone in submitting runs.
    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.order)
    }

    /// What commands are written into.
    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        self.device().create_command_encoder(&Default::default())
    }

    /// What the adapter is sure to reach, for predicting times.
    pub fn speed(&self) -> Speed {
        self.shared.speed
    }

    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.submit_commands(encoder.finish())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that submits")]
    fn submit_commands(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        let index = self.queue().submit([commands]);
        let count = self.shared.submits.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shared.lose_after == Some(count) {
            self.shared.failures.lose(format!("it was given up after {count} submits, as asked"));
            self.device().destroy();
        }
        index
    }

    /// Lets finished work call back, without waiting.
    #[expect(clippy::disallowed_methods, reason = "the one place that polls")]
    pub fn poll(&self) {
        // A failing poll means a lost device, which the callback has noted for `check`.
        let _ = self.device().poll(wgpu::PollType::Poll);
    }

    /// Blocks until everything submitted is done. Native only: a browser cannot block.
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    pub fn wait_blocking(&self) {
        let _ = self.device().poll(wgpu::PollType::wait_indefinitely());
    }

    /// Blocks until one submit is done. Native only.
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    pub(crate) fn wait_for_blocking(&self, submit: wgpu::SubmissionIndex) {
        let _ = self.device().poll(wgpu::PollType::Wait { submission_index: Some(submit), timeout: None });
    }

    /// The pipeline for a kernel with these constants, compiled on first use.
    ///
    /// # Errors
    /// [`Error::Recording`] if the shader is broken.
    pub(crate) fn pipeline(&self, kernel: Kernel, constants: &BTreeMap<&'static str, f64>) -> Result<Arc<Pipeline>> {
        let constants_key = constants.iter().map(|(n, v)| (*n, v.to_bits())).collect();
        let key = PipelineKey(kernel.module.name, kernel.entry, constants_key);
        if let Some(found) = lock(&self.shared.pipelines).get(&key) {
            return Ok(found.clone());
        }
        let compiled = Arc::new(self.compile(kernel, constants)?);
        lock(&self.shared.pipelines).insert(key, compiled.clone());
        Ok(compiled)
    }

    fn compile(&self, kernel: Kernel, constants: &BTreeMap<&'static str, f64>) -> Result<Pipeline> {
        let label = kernel.label();
        if kernel.module.has_subgroups() && !self.has_lanes() {
            let what = format!("{} has no subgroups of {LANES} lanes; take another variant", self.report().name);
            return Err(Error::Recording { step: label, what });
        }
        let signature = kernel.signature().map_err(|what| Error::Recording { step: label.clone(), what })?;
        let layout = self.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &layout_entries(&signature),
        });
        let pipeline_layout = self.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = kernel.module.source();
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(source.into()) };
        #[expect(
            unsafe_code,
            reason = "our own shaders, tested against overruns; the checks cost a third of the speed"
        )]
        // SAFETY: kernels index within the tensors they are given and every loop ends; tests/kernels run each of them
        // on awkward shapes with the checks on as well (LARA_CHECKED=1).
        let module = unsafe { self.device().create_shader_module_trusted(descriptor, runtime_checks()) };
        let constants: Vec<(&str, f64)> = constants.iter().map(|(n, v)| (*n, *v)).collect();
        let pipeline = self.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Ok(Pipeline { pipeline, layout, signature })
    }
}

fn runtime_checks() -> wgpu::ShaderRuntimeChecks {
    if std::env::var_os("LARA_CHECKED").is_some() {
        wgpu::ShaderRuntimeChecks::checked()
    } else {
        wgpu::ShaderRuntimeChecks::unchecked()
    }
}

fn layout_entries(signature: &Signature) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    };
    let storage = signature
        .storage
        .iter()
        .map(|s| entry(s.binding, wgpu::BufferBindingType::Storage { read_only: !s.writes }, false));
    let params = signature.params.iter().map(|p| entry(p.binding, wgpu::BufferBindingType::Uniform, true));
    let header = signature.header.iter().map(|h| entry(*h, wgpu::BufferBindingType::Uniform, false));
    params.chain(header).chain(storage).collect()
}
