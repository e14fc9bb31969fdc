//! A recording made ready: pipelines, bind groups and buffers, once; then one command buffer and one submit a run.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffer::Buffer;
use crate::error::{Error, Result, human_bytes};
use crate::gpu::{Gpu, Pipeline};
use crate::header::Header;
use crate::parameters::{Parameters, Role};
use crate::pool;
use crate::readback;
use crate::recorder::{Aside, Once, Place, Recorder, Step, TensorInfo};
use crate::tensor::{Dtype, Tensor};

/// Bytes on the device by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Model weights (and their average, if kept).
    pub weights: u64,
    /// Gradients of the weights.
    pub gradients: u64,
    /// Optimizer moments.
    pub optimizer: u64,
    /// Pooled activations, saved values and their gradients.
    pub activations: u64,
    /// Inputs, outputs and other buffers of their own.
    pub pinned: u64,
    /// What the activations would take if no two shared a buffer.
    pub activations_unshared: u64,
}

impl Memory {
    /// What a recording takes once it is compiled over parameters with buffers for `roles`. Nothing is allocated.
    pub fn of(mut rec: Recorder, parameters: &Parameters, roles: &[Role]) -> Result<Self> {
        rec.pin_what_parts_share()?;
        let layout = pool::assign(&rec);
        let all = |wanted: &[Role]| -> u64 {
            roles.iter().filter(|role| wanted.contains(role)).map(|role| parameters.needed(*role)).sum()
        };
        let pinned = rec.tensors.iter().filter(|tensor| tensor.place == Place::Pinned);
        Ok(Memory {
            weights: all(&[Role::Weight, Role::Ema]),
            gradients: all(&[Role::Grad]),
            optimizer: all(&[Role::FirstMoment, Role::SecondMoment]),
            activations: layout.slots.iter().sum(),
            pinned: pinned.map(|tensor| tensor.bytes().next_multiple_of(16)).sum(),
            activations_unshared: layout.unshared,
        })
    }

    /// Peak bytes: everything that exists at once.
    pub fn peak(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.pinned
    }
}

/// A compiled recording.
pub struct Plan {
    gpu: Gpu,
    steps: Vec<Ready>,
    /// What an ordinary run encodes.
    main: Vec<usize>,
    asides: Vec<Range<usize>>,
    once: Vec<Once>,
    kept: Mutex<Kept>,
    pub(crate) listing: Vec<Step>,
    pub(crate) tensors: Vec<TensorInfo>,
    buffers: Vec<Option<Buffer>>,
    owned: Vec<Buffer>,
    pub(crate) header: Buffer,
    /// Bound by every step, and by those that reach parameters: they live as long as the bind groups.
    _bound: Vec<Buffer>,
    pub(crate) memory: Memory,
}

/// What the runs that were submitted left behind.
#[derive(Default)]
pub(crate) struct Kept {
    /// The key for which each part that is computed once was computed.
    pub(crate) keys: Vec<Option<[u32; 3]>>,
    /// The header.
    pub(crate) header: Header,
}

struct Ready {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    offset: Option<u32>,
    groups: [u32; 3],
}

impl Plan {
    /// Compiles a recording. Parameter buffers must have been allocated for every role the recording uses.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is allocated if a tensor or dispatch exceeds the adapter's limits,
    /// [`Error::OutOfMemory`], or a bug in an operation ([`Error::Recording`], [`Error::Rejected`]).
    pub async fn compile(gpu: &Gpu, mut rec: Recorder, parameters: &Parameters) -> Result<Plan> {
        rec.finish()?;
        gpu.refuse_if_lost()?;
        rec.pin_what_parts_share()?;
        check_limits(gpu, &rec)?;
        let memory_scope = gpu.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation_scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let plan = Self::build(gpu, rec, parameters);
        // Both scopes are closed before the first wait: in a browser other tasks of the page run meanwhile, and scopes
        // must close in reverse order.
        let (invalid, exhausted) = (validation_scope.pop(), memory_scope.pop());
        if let Some(error) = invalid.await {
            gpu.refuse_if_lost()?;
            return Err(Error::Rejected { what: "a compiled plan".into(), reason: error.to_string() });
        }
        if exhausted.await.is_some() {
            let bytes = plan.map(|p| p.memory.activations + p.memory.pinned).unwrap_or_default();
            return Err(gpu.shortage("what a plan computes", bytes));
        }
        plan
    }

    /// [`Plan::compile`] on native systems.
    ///
    /// # Errors
    /// See [`Plan::compile`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn compile_blocking(gpu: &Gpu, rec: Recorder, parameters: &Parameters) -> Result<Plan> {
        pollster::block_on(Self::compile(gpu, rec, parameters))
    }

    fn build(gpu: &Gpu, rec: Recorder, parameters: &Parameters) -> Result<Plan> {
        let (owned, buffers, memory) = allocate(gpu, &rec, parameters)?;
        let header = gpu.buffer("header", 32, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let (uniforms, stride) = params_buffer(gpu, &rec);
        let resolve = |t: &Tensor| bind_range(&rec, parameters, &buffers, *t);
        let mut steps = Vec::with_capacity(rec.steps.len());
        for (index, step) in rec.steps.iter().enumerate() {
            let pipeline = gpu.pipeline(step.kernel, &step.constants)?;
            let mut entries = Vec::new();
            if let Some(params) = &pipeline.signature.params {
                let size = NonZeroU64::new(params.size as u64);
                entries.push(bind_entry(params.binding, &uniforms, 0, size));
            }
            entries.extend(pipeline.signature.header.map(|b| bind_entry(b, &header, 0, None)));
            for (storage, tensor) in pipeline.signature.storage.iter().zip(&step.binds) {
                let (buffer, offset, size) = resolve(tensor).ok_or_else(|| Error::Recording {
                    step: step.label.clone(),
                    what: format!("`{}` has no buffer; its role was not allocated", rec.tensors[tensor.id].label),
                })?;
                entries.push(bind_entry(storage.binding, buffer, offset, NonZeroU64::new(size)));
            }
            let bind_group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&step.label),
                layout: &pipeline.layout,
                entries: &entries,
            });
            let offset = pipeline.signature.params.as_ref().map(|_| (index as u64 * stride) as u32);
            steps.push(Ready { pipeline, bind_group, offset, groups: step.groups });
        }
        let _bound = parameters.handles().chain([uniforms]).collect();
        let Recorder { tensors, steps: listing, asides, once, .. } = rec;
        let is_main = |index: &usize| !asides.iter().any(|aside| aside.contains(index));
        let main = (0..steps.len()).filter(is_main).collect();
        let kept = Mutex::new(Kept { keys: vec![None; once.len()], header: Header::default() });
        let gpu = gpu.clone();
        Ok(Plan { gpu, steps, main, asides, once, kept, listing, tensors, buffers, owned, header, _bound, memory })
    }

    /// Uploads values into a tensor that has a buffer of its own, outside a run. Fewer values than it has elements write its
    /// beginning.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor is not in this plan or shorter than the values.
    pub fn write(&self, tensor: Tensor, values: &[f32]) -> Result<()> {
        let buffer = self.buffer_for(tensor, values.len())?;
        self.gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(values));
        Ok(())
    }

    /// The buffer of a tensor, in which there is room for so many values.
    pub(crate) fn buffer_for(&self, tensor: Tensor, values: usize) -> Result<&Buffer> {
        if values > tensor.len() {
            return Err(Error::Shape(format!("{values} values do not fit a tensor {}", tensor.shape())));
        }
        let missing = || Error::Shape(format!("{tensor:?} has no buffer in this plan; pin it before compiling"));
        self.buffer(tensor).ok_or_else(missing)
    }

    /// Downloads a pinned tensor.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Shape`] if the tensor is not in this plan.
    pub async fn read(&self, tensor: Tensor) -> Result<Vec<f32>> {
        let buffer = self.buffer_for(tensor, tensor.len())?;
        readback::read(&self.gpu, buffer, 0, tensor.bytes()).await
    }

    /// [`Plan::read`] on native systems, waiting for the device.
    ///
    /// # Errors
    /// See [`Plan::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self, tensor: Tensor) -> Result<Vec<f32>> {
        pollster::block_on(self.read(tensor))
    }

    /// The buffer of a tensor, for a viewer that draws it where it lies. Parameters are not found here.
    pub fn buffer(&self, tensor: Tensor) -> Option<&Buffer> {
        self.buffers.get(tensor.id).and_then(Option::as_ref)
    }

    /// Fills every buffer the plan owns with NaN, so that a test sees whatever relies on old or zeroed contents.
    pub fn poison(&self) {
        for buffer in &self.owned {
            let nan = vec![f32::NAN; (buffer.size() / Dtype::F32.size()) as usize];
            self.gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(&nan));
        }
        self.kept().keys.fill(None);
    }

    /// Bytes by purpose.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Bytes of the largest buffer that the plan owns.
    pub fn largest_buffer(&self) -> u64 {
        self.owned.iter().map(|buffer| buffer.size()).max().unwrap_or_default()
    }

    /// The recorded steps.
    pub fn steps(&self) -> &[Step] {
        &self.listing
    }

    /// The device the plan was compiled for.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether an ordinary run leaves this step out.
    pub fn is_aside(&self, index: usize) -> bool {
        self.asides.iter().any(|aside| aside.contains(&index))
    }

    /// The steps of an ordinary run.
    pub(crate) fn main_steps(&self) -> &[usize] {
        &self.main
    }

    /// The steps of an aside.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is one of another recording.
    pub(crate) fn aside_steps(&self, aside: Aside) -> Result<Vec<usize>> {
        let (number, count) = (aside.0, self.asides.len());
        let missing = || Error::Shape(format!("there is no aside number {number} in this plan, which has {count}"));
        Ok(self.asides.get(number).cloned().ok_or_else(missing)?.collect())
    }

    /// What is computed once, and when anew.
    pub(crate) fn once(&self) -> &[Once] {
        &self.once
    }

    /// What the runs that were submitted left behind.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes what is computed once under the first of two headers, and leaves the second.
    pub(crate) fn encode_once(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        belt: &mut wgpu::util::StagingBelt,
        once: usize,
        headers: &[Header; 2],
    ) {
        let mut set = |encoder: &mut wgpu::CommandEncoder, header: &Header| {
            let bytes = bytemuck::bytes_of(header);
            if let Some(size) = NonZeroU64::new(bytes.len() as u64) {
                belt.write_buffer(encoder, &self.header, 0, size).copy_from_slice(bytes);
            }
        };
        set(encoder, &headers[0]);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.once[once].steps.clone().for_each(|step| self.encode_step(&mut pass, step));
        drop(pass);
        set(encoder, &headers[1]);
    }

    pub(crate) fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        let step = &self.steps[index];
        pass.set_pipeline(&step.pipeline.pipeline);
        pass.set_bind_group(0, &step.bind_group, step.offset.as_slice());
        pass.dispatch_workgroups(step.groups[0], step.groups[1], step.groups[2]);
    }
}

type Allocation = (Vec<Buffer>, Vec<Option<Buffer>>, Memory);

fn allocate(gpu: &Gpu, rec: &Recorder, parameters: &Parameters) -> Result<Allocation> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let layout = pool::assign(rec);
    let pinned = rec.tensors.iter().filter(|tensor| tensor.place == Place::Pinned);
    let pinned: u64 = pinned.map(|tensor| tensor.bytes()).sum();
    gpu.reserve("what a plan computes", layout.slots.iter().sum::<u64>().saturating_add(pinned))?;
    let mut owned: Vec<Buffer> = layout.slots.iter().map(|&bytes| gpu.buffer("pool", bytes, usage)).collect();
    let mut buffers: Vec<Option<Buffer>> = layout.slot_of.iter().map(|slot| slot.map(|s| owned[s].clone())).collect();
    let mut memory = Memory {
        weights: parameters.bytes(Role::Weight) + parameters.bytes(Role::Ema),
        gradients: parameters.bytes(Role::Grad),
        optimizer: parameters.bytes(Role::FirstMoment) + parameters.bytes(Role::SecondMoment),
        activations: layout.slots.iter().sum(),
        activations_unshared: layout.unshared,
        pinned: 0,
    };
    for (id, tensor) in rec.tensors.iter().enumerate().filter(|(_, t)| t.place == Place::Pinned) {
        let buffer = gpu.buffer(&tensor.label, tensor.bytes(), usage);
        memory.pinned += buffer.size();
        owned.push(buffer.clone());
        buffers[id] = Some(buffer);
    }
    Ok((owned, buffers, memory))
}

/// One uniform buffer with the `params` of every step at multiples of the stride.
fn params_buffer(gpu: &Gpu, rec: &Recorder) -> (Buffer, u64) {
    let largest = rec.steps.iter().map(|s| s.params.len() as u64).max().unwrap_or(16).max(16);
    let stride = largest.next_multiple_of(u64::from(gpu.limits().min_uniform_buffer_offset_alignment));
    let mut bytes = vec![0; (rec.steps.len() as u64 * stride).max(16) as usize];
    for (index, step) in rec.steps.iter().enumerate() {
        let at = (index as u64 * stride) as usize;
        bytes[at..at + step.params.len()].copy_from_slice(&step.params);
    }
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = gpu.buffer("params", bytes.len() as u64, usage);
    gpu.queue().write_buffer(&buffer, 0, &bytes);
    (buffer, stride)
}

fn bind_entry(binding: u32, buffer: &wgpu::Buffer, offset: u64, size: Option<NonZeroU64>) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size }),
    }
}

fn bind_range<'a>(
    rec: &Recorder,
    parameters: &'a Parameters,
    buffers: &'a [Option<Buffer>],
    tensor: Tensor,
) -> Option<(&'a Buffer, u64, u64)> {
    // Whole 16-byte units, so that the last vec4 of a vectorised view is inside; slices are padded to 256 bytes.
    let bytes = tensor.bytes().next_multiple_of(16);
    match rec.tensors[tensor.id].place {
        Place::Scratch | Place::Pinned => buffers[tensor.id].as_ref().map(|b| (b, 0, bytes)),
        Place::Parameter { index, role } => {
            let entry = &parameters.entries()[index];
            parameters.buffer(role, entry.chunk).map(|b| (b, entry.byte_offset(), bytes))
        }
        Place::Chunk { index, role } => parameters.buffer(role, index).map(|b| (b, 0, bytes)),
    }
}

fn check_limits(gpu: &Gpu, rec: &Recorder) -> Result<()> {
    let limits = gpu.limits();
    let mut sizes: HashMap<usize, u64> = HashMap::new();
    for step in &rec.steps {
        if step.groups.iter().any(|&g| g > limits.max_compute_workgroups_per_dimension) {
            return Err(Error::TooLarge {
                what: format!(
                    "{} on {}",
                    step.label,
                    step.binds.iter().map(|t| t.shape.to_string()).collect::<Vec<_>>().join(" ")
                ),
                needed: format!("{:?} workgroups", step.groups),
                allowed: format!("{} a dimension", limits.max_compute_workgroups_per_dimension),
                lower: "the batch size or the number of tokens".into(),
            });
        }
        sizes.extend(step.binds.iter().map(|t| (t.id, t.bytes())));
    }
    match sizes.iter().max_by_key(|s| s.1) {
        Some((&id, &bytes)) if bytes > gpu.max_binding_bytes() => Err(Error::TooLarge {
            what: format!("{} {}", rec.tensors[id].label, rec.tensors[id].shape),
            needed: human_bytes(bytes),
            allowed: format!("{} in one buffer", human_bytes(gpu.max_binding_bytes())),
            lower: "the batch size, the image size or the number of tokens".into(),
        }),
        _ => Ok(()),
    }
}
