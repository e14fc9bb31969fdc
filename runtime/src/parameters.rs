//! Model parameters in flat buffers: weights, gradients, both Adam moments and the averaged weights, chunk by chunk.
//!
//! A chunk is one buffer; a parameter is a 256-byte aligned slice of it, so the optimizer is one pass over each chunk.
//! Parameters with and without weight decay, or with other learning rates, lie in different chunks. A chunk ends where the adapter's binding limit asks.

use std::collections::HashMap;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::random::Stream;
use crate::readback;
use crate::tensor::Shape;

/// Slices start at multiples of this many elements (256 bytes, core WebGPU's storage offset alignment).
const ALIGN: usize = 64;

/// Which of the parallel buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The parameters themselves.
    Weight,
    /// Gradients of the loss.
    Grad,
    /// Adam's first moment.
    FirstMoment,
    /// Adam's second moment.
    SecondMoment,
    /// Exponential moving average of the weights.
    Ema,
}

/// Initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same.
    Constant(f32),
    /// Normal with this standard deviation, redrawn beyond two of them (timm's `trunc_normal_`).
    TruncNormal(f32),
    /// Uniform in +-1 / sqrt(fan in), PyTorch's default for convolutions, which timm keeps for the patch embedding.
    FanIn(usize),
    /// Uniform in +-sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010), for a matrix [fan out, fan in].
    XavierUniform,
    /// Rows of the last dimension, under every index of the first in blocks of their length orthogonal, each distributed
    /// as a standard normal vector: random features (Choromanski et al. 2021), [heads, features, head dim].
    OrthogonalRows,
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in checkpoints, timm's.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    init: Init,
    pub(crate) chunk: usize,
    pub(crate) offset: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) len: usize,
    pub(crate) decay: bool,
    pub(crate) lr_scale: f32,
}

/// The parameters of a model.
///
/// A clone shares the buffers on the device: a forward plan over a clone of a session's parameters sees every step's
/// new weights, and what is written through one is seen by all. It shares what was allocated when it was made; roles
/// allocated later are its own. A clone made before the weights were allocated shares nothing.
#[derive(Clone, Debug)]
pub struct Parameters {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    pub(crate) chunks: Vec<Chunk>,
    chunk_limit: usize,
    lr_scales: Vec<(String, f32)>,
    buffers: HashMap<Role, Vec<Buffer>>,
}

impl Parameters {
    /// No parameters yet; chunks will fit the bindings of `gpu`.
    pub fn new(gpu: &Gpu) -> Self {
        let chunk_limit = (gpu.max_binding_bytes() / 4) as usize;
        let (entries, chunks, lr_scales) = (vec![], vec![], vec![]);
        Parameters { entries, by_name: HashMap::new(), chunks, chunk_limit, lr_scales, buffers: HashMap::new() }
    }

    /// Parameters declared from now on learn by a multiple of the learning rate: the one beside the first of `prefixes` that
    /// their name begins with, else 1.
    pub fn scale_learning_rates(&mut self, prefixes: Vec<(String, f32)>) {
        self.lr_scales = prefixes;
    }

    /// The index of parameter `name`, declared on first use. Weight decay applies to matrices, as in timm: not to
    /// biases, norms (one dimension), nor to what `decay` excludes.
    ///
    /// # Errors
    /// [`Error::Shape`] if it was declared with another shape, [`Error::TooLarge`] if no binding can hold it.
    pub fn declare(&mut self, name: &str, shape: Shape, init: Init, decay: bool) -> Result<usize> {
        if let Some(&index) = self.by_name.get(name) {
            let known = self.entries[index].shape;
            if known != shape {
                return Err(Error::Shape(format!("parameter {name} was declared as {known} and now as {shape}")));
            }
            return Ok(index);
        }
        if !self.buffers.is_empty() {
            return Err(Error::Shape(format!(
                "parameter {name} is new to a model whose weights are already on the GPU"
            )));
        }
        let len = shape.len().next_multiple_of(ALIGN);
        if len > self.chunk_limit {
            return Err(Error::TooLarge {
                what: format!("parameter {name} {shape}"),
                needed: format!("{} bytes in one binding", len * 4),
                allowed: format!("{} bytes", self.chunk_limit * 4),
                lower: "the embedding dimension or the image size".into(),
            });
        }
        let decay = decay && shape.dims().len() > 1;
        let lr_scale = self.lr_scales.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(1.0, |found| found.1);
        let fits = |c: &Chunk| c.decay == decay && c.lr_scale == lr_scale && c.len + len <= self.chunk_limit;
        let chunk = self.chunks.iter().position(fits).unwrap_or_else(|| {
            self.chunks.push(Chunk { len: 0, decay, lr_scale });
            self.chunks.len() - 1
        });
        let offset = self.chunks[chunk].len;
        self.chunks[chunk].len += len;
        let index = self.entries.len();
        self.entries.push(Entry { name: name.to_owned(), shape, init, chunk, offset });
        self.by_name.insert(name.to_owned(), index);
        Ok(index)
    }

    /// The declared parameters in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of trainable numbers.
    pub fn count(&self) -> usize {
        self.entries.iter().map(|e| e.shape.len()).sum()
    }

    pub(crate) fn chunk_lens(&self) -> impl Iterator<Item = usize> {
        self.chunks.iter().map(|c| c.len)
    }

    pub(crate) fn chunk_decays(&self) -> impl Iterator<Item = bool> {
        self.chunks.iter().map(|c| c.decay)
    }

    pub(crate) fn chunk_lr_scale(&self, index: usize) -> f32 {
        self.chunks[index].lr_scale
    }

    /// Bytes of all buffers of a role that was allocated.
    pub fn bytes(&self, role: Role) -> u64 {
        self.buffers.get(&role).map_or(0, |b| b.iter().map(|buffer| buffer.size()).sum())
    }

    /// Creates the buffers of these roles, zeroed, if they are not there yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; then none of them is there.
    pub async fn allocate(&mut self, gpu: &Gpu, roles: &[Role]) -> Result<()> {
        use wgpu::BufferUsages as U;
        let wanted: Vec<Role> = roles.iter().copied().filter(|role| !self.buffers.contains_key(role)).collect();
        let bytes = self.chunks.iter().map(|chunk| chunk.len as u64 * 4).sum::<u64>() * wanted.len() as u64;
        let what = format!("the parameters of a model ({} numbers, {wanted:?})", self.count());
        gpu.refuse_if_lost()?;
        gpu.reserve(&what, bytes)?;
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = U::STORAGE | U::COPY_SRC | U::COPY_DST;
        for &role in &wanted {
            let label = format!("{role:?}");
            let buffers = self.chunks.iter().map(|chunk| gpu.buffer(&label, chunk.len as u64 * 4, usage)).collect();
            self.buffers.insert(role, buffers);
        }
        if scope.pop().await.is_some() {
            wanted.iter().for_each(|role| drop(self.buffers.remove(role)));
            return Err(gpu.shortage(&what, bytes));
        }
        Ok(())
    }

    /// [`Parameters::allocate`] on native systems.
    ///
    /// # Errors
    /// See [`Parameters::allocate`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn allocate_blocking(&mut self, gpu: &Gpu, roles: &[Role]) -> Result<()> {
        pollster::block_on(self.allocate(gpu, roles))
    }

    /// Draws initial weights, each parameter from its own random stream, and uploads them.
    pub fn initialize(&self, gpu: &Gpu, seed: u64) {
        for (index, entry) in self.entries.iter().enumerate() {
            self.write(gpu, Role::Weight, index, &entry.initial(seed));
        }
    }

    /// Uploads the values of one parameter. Shorter data writes its beginning.
    pub fn write(&self, gpu: &Gpu, role: Role, index: usize, values: &[f32]) {
        let entry = &self.entries[index];
        let values = &values[..values.len().min(entry.shape.len())];
        if let Some(buffers) = self.buffers.get(&role) {
            gpu.queue().write_buffer(&buffers[entry.chunk], entry.offset as u64 * 4, bytemuck::cast_slice(values));
        }
    }

    /// Copies all buffers of `from` over those of `to`, for instance the weights into the first average.
    pub fn copy(&self, gpu: &Gpu, from: Role, to: Role) {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        if let (Some(from), Some(to)) = (self.buffers.get(&from), self.buffers.get(&to)) {
            for (from, to) in from.iter().zip(to) {
                encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
            }
        }
        gpu.submit(encoder);
    }

    /// The averaged weights as the weights of a model of its own: a forward plan over the result computes with the average
    /// as it is then. Shares the buffers, like a clone; where no average was allocated it is a plain clone.
    #[must_use]
    pub fn averaged(&self) -> Self {
        let mut averaged = self.clone();
        if let Some(buffers) = self.buffers.get(&Role::Ema) {
            averaged.buffers = HashMap::from([(Role::Weight, buffers.clone())]);
        }
        averaged
    }

    /// Downloads every parameter of a role, in order of declaration.
    ///
    /// # Errors
    /// If the device was lost.
    pub async fn read(&self, gpu: &Gpu, role: Role) -> Result<Vec<Vec<f32>>> {
        let mut chunks = Vec::new();
        for buffer in self.buffers.get(&role).into_iter().flatten() {
            chunks.push(readback::read(gpu, buffer, 0, buffer.size()).await?);
        }
        let slice = |e: &Entry| chunks.get(e.chunk).map(|c: &Vec<f32>| c[e.offset..e.offset + e.shape.len()].to_vec());
        Ok(self.entries.iter().filter_map(slice).collect())
    }

    pub(crate) fn buffer(&self, role: Role, chunk: usize) -> Option<&Buffer> {
        self.buffers.get(&role).and_then(|b| b.get(chunk))
    }

    /// A handle on every buffer.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Buffer> {
        self.buffers.values().flatten().cloned()
    }
}

impl Entry {
    fn uniform(&self, seed: u64, bound: f32) -> Vec<f32> {
        let mut stream = Stream::new(seed, &self.name);
        (0..self.shape.len()).map(|_| bound * (2.0 * stream.uniform() - 1.0)).collect()
    }

    /// The initial values for a seed.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let len = self.shape.len();
        match self.init {
            Init::Zeros => vec![0.0; len],
            Init::Ones => vec![1.0; len],
            Init::Constant(value) => vec![value; len],
            Init::FanIn(inputs) => self.uniform(seed, 1.0 / (inputs.max(1) as f32).sqrt()),
            Init::XavierUniform => {
                let fans = self.shape.rows() + self.shape.last();
                self.uniform(seed, (6.0 / fans as f32).sqrt())
            }
            Init::OrthogonalRows => {
                let (mut stream, dim) = (Stream::new(seed, &self.name), self.shape.last());
                let heads = self.shape.dims()[0];
                (0..heads).flat_map(|_| stream.orthogonal_rows(self.shape.rows() / heads, dim)).collect()
            }
            Init::TruncNormal(std) => {
                let mut stream = Stream::new(seed, &self.name);
                let mut draw = || loop {
                    let x = stream.normal();
                    if x.abs() <= 2.0 {
                        return x * std;
                    }
                };
                (0..len).map(|_| draw()).collect()
            }
        }
    }
}
