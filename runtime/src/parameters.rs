//! Model parameters in flat buffers: weights, gradients, both Adam moments and the averaged weights, chunk by chunk.
//!
//! A chunk is one buffer; a parameter is a 256-byte aligned slice of it, so the optimizer is one pass over each chunk.
//! Parameters with and without weight decay, or with other learning rates, lie in different chunks, and so does state that
//! is not trained. A chunk ends where the adapter's binding limit asks.

use std::collections::HashMap;
use std::fmt;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::random::Stream;
use crate::readback;
use crate::tensor::{Dtype, Shape};

/// Slices start at multiples of this many elements (256 bytes, core WebGPU's storage offset alignment).
const ALIGN: usize = 64;

/// What parameters are stored as.
const DTYPE: Dtype = Dtype::F32;

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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Weight => "weight",
            Role::Grad => "gradient",
            Role::FirstMoment => "first moment",
            Role::SecondMoment => "second moment",
            Role::Ema => "average",
        })
    }
}

/// What training does with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// It is trained, and decayed if it is a matrix: as in timm biases and gains (one dimension) are not.
    Decayed,
    /// It is trained and never decayed.
    Plain,
    /// It is state of the model and not trained (PyTorch's buffers): no gradient, moments or average, not decayed, not
    /// clipped. It is saved with a checkpoint under its name.
    Buffer,
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
    /// Normal with this standard deviation (timm's `trunc_normal_(std=0.02)` cuts at 2, which is never reached).
    Normal(f32),
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
    /// What training does with it.
    pub keep: Keep,
    init: Init,
    pub(crate) chunk: usize,
    pub(crate) offset: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) len: usize,
    pub(crate) keep: Keep,
    pub(crate) lr_scale: f32,
}

impl Chunk {
    /// Whether it has a buffer of this role.
    fn has(&self, role: Role) -> bool {
        role == Role::Weight || self.keep != Keep::Buffer
    }

    fn bytes(&self) -> u64 {
        DTYPE.bytes(self.len)
    }
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
    chunks: Vec<Chunk>,
    chunk_limit: usize,
    lr_scales: Vec<(String, f32)>,
    /// Of every role that was allocated the buffer of each chunk that has one: state has only its values.
    buffers: HashMap<Role, Vec<Option<Buffer>>>,
}

impl Parameters {
    /// No parameters yet; chunks will fit the bindings of `gpu`.
    pub fn new(gpu: &Gpu) -> Self {
        Self::in_chunks_of((gpu.max_binding_bytes() / DTYPE.size()) as usize)
    }

    /// No parameters yet, and none that will ever lie on a device: for their names, shapes and number alone.
    pub fn unplaced() -> Self {
        Self::in_chunks_of(usize::MAX)
    }

    fn in_chunks_of(chunk_limit: usize) -> Self {
        let (entries, chunks, lr_scales) = (vec![], vec![], vec![]);
        Parameters { entries, by_name: HashMap::new(), chunks, chunk_limit, lr_scales, buffers: HashMap::new() }
    }

    /// Parameters declared from now on learn by a multiple of the learning rate: the one beside the first of `prefixes` that
    /// their name begins with, else 1.
    pub fn scale_learning_rates(&mut self, prefixes: Vec<(String, f32)>) {
        self.lr_scales = prefixes;
    }

    /// The index of parameter `name`, declared on first use.
    ///
    /// # Errors
    /// [`Error::Shape`] if it was declared with another shape, or trained here and not there; [`Error::TooLarge`] if no
    /// binding can hold it.
    pub fn declare(&mut self, name: &str, shape: Shape, init: Init, keep: Keep) -> Result<usize> {
        let keep = if keep == Keep::Decayed && shape.dims().len() < 2 { Keep::Plain } else { keep };
        if let Some(&index) = self.by_name.get(name) {
            let known = &self.entries[index];
            if known.shape != shape {
                let known = known.shape;
                return Err(Error::Shape(format!("parameter {name} was declared as {known} and now as {shape}")));
            }
            if known.keep != keep {
                let known = known.keep;
                return Err(Error::Shape(format!("parameter {name} was declared as {known:?} and now as {keep:?}")));
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
                needed: format!("{} bytes in one binding", DTYPE.bytes(len)),
                allowed: format!("{} bytes", DTYPE.bytes(self.chunk_limit)),
                lower: "the embedding dimension or the image size".into(),
            });
        }
        let scaled = self.lr_scales.iter().find(|(prefix, _)| keep != Keep::Buffer && name.starts_with(prefix));
        let lr_scale = scaled.map_or(1.0, |found| found.1);
        let fits = |c: &Chunk| c.keep == keep && c.lr_scale == lr_scale && c.len + len <= self.chunk_limit;
        let chunk = self.chunks.iter().position(fits).unwrap_or_else(|| {
            self.chunks.push(Chunk { len: 0, keep, lr_scale });
            self.chunks.len() - 1
        });
        let offset = self.chunks[chunk].len;
        self.chunks[chunk].len += len;
        let index = self.entries.len();
        self.entries.push(Entry { name: name.to_owned(), shape, keep, init, chunk, offset });
        self.by_name.insert(name.to_owned(), index);
        Ok(index)
    }

    /// The declared parameters in order, state among them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries that have values of a role, in the order of [`Parameters::read`]: all have weights, and those of state
    /// are their average, too; gradients and moments are of what is trained.
    pub fn entries_of(&self, role: Role) -> impl Iterator<Item = &Entry> {
        let has = move |entry: &&Entry| entry.is_trained() || matches!(role, Role::Weight | Role::Ema);
        self.entries.iter().filter(has)
    }

    /// Number of trainable numbers.
    pub fn count(&self) -> usize {
        self.entries.iter().filter(|e| e.is_trained()).map(|e| e.shape.len()).sum()
    }

    /// The chunks that are trained, each with its index.
    pub(crate) fn trained_chunks(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.keep != Keep::Buffer)
    }

    /// Whether a role was allocated.
    pub fn has(&self, role: Role) -> bool {
        self.buffers.contains_key(&role)
    }

    /// Bytes of all buffers of a role that was allocated.
    pub fn bytes(&self, role: Role) -> u64 {
        self.buffers.get(&role).map_or(0, |b| b.iter().flatten().map(|buffer| buffer.size()).sum())
    }

    /// Bytes that the buffers of a role take, whether they are there or not.
    pub(crate) fn needed(&self, role: Role) -> u64 {
        self.chunks.iter().filter(|chunk| chunk.has(role)).map(Chunk::bytes).sum()
    }

    /// Creates the buffers of these roles, zeroed, if they are not there yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; then none of them is there.
    pub async fn allocate(&mut self, gpu: &Gpu, roles: &[Role]) -> Result<()> {
        use wgpu::BufferUsages as U;
        let wanted: Vec<Role> = roles.iter().copied().filter(|&role| !self.has(role)).collect();
        let bytes = wanted.iter().map(|role| self.needed(*role)).sum::<u64>();
        let what = format!("the parameters of a model ({} numbers, {wanted:?})", self.count());
        gpu.refuse_if_lost()?;
        gpu.reserve(&what, bytes)?;
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = U::STORAGE | U::COPY_SRC | U::COPY_DST;
        for &role in &wanted {
            let label = format!("{role:?}");
            let buffer = |chunk: &Chunk| chunk.has(role).then(|| gpu.buffer(&label, chunk.bytes(), usage));
            self.buffers.insert(role, self.chunks.iter().map(buffer).collect());
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
    ///
    /// # Errors
    /// [`Error::Shape`] if no weights were allocated.
    pub fn initialize(&self, gpu: &Gpu, seed: u64) -> Result<()> {
        let write = |(index, entry): (usize, &Entry)| self.write(gpu, Role::Weight, index, &entry.initial(seed));
        self.entries.iter().enumerate().try_for_each(write)
    }

    /// Uploads the values of one parameter, by its index among [`Parameters::entries`].
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more or fewer values than it has, if its role was not allocated, and for the gradient,
    /// moment or average of state, which has none.
    pub fn write(&self, gpu: &Gpu, role: Role, index: usize, values: &[f32]) -> Result<()> {
        let Some(entry) = self.entries.get(index) else {
            let count = self.entries.len();
            return Err(Error::Shape(format!("there is no parameter number {index}; the model has {count}")));
        };
        let (name, shape) = (&entry.name, entry.shape);
        if values.len() != shape.len() {
            let (given, wanted) = (values.len(), shape.len());
            return Err(Error::Shape(format!("parameter {name} {shape} takes {wanted} values, not {given}")));
        }
        if role != Role::Weight && !entry.is_trained() {
            return Err(Error::Shape(format!("{name} is not trained: it has no {role}")));
        }
        let Some(buffer) = self.buffer(role, entry.chunk) else {
            return Err(Error::Shape(format!("parameter {name} has no {role} on the GPU; {}", not_allocated(role))));
        };
        gpu.queue().write_buffer(buffer, entry.byte_offset(), bytemuck::cast_slice(values));
        Ok(())
    }

    /// Copies the values of every trained parameter in role `from` over those in role `to`, for instance the weights into
    /// the first average.
    ///
    /// # Errors
    /// [`Error::Shape`] if one of the two was not allocated.
    pub fn copy(&self, gpu: &Gpu, from: Role, to: Role) -> Result<()> {
        let [from, to] = [self.allocated(from)?, self.allocated(to)?];
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for (index, _) in self.trained_chunks() {
            if let (Some(from), Some(to)) = (&from[index], &to[index]) {
                encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
            }
        }
        gpu.submit(encoder);
        Ok(())
    }

    /// The averaged weights as the weights of a model of its own: a forward plan over the result computes with the average
    /// as it is then, and with the state of this model. Shares the buffers, like a clone; where no average was allocated it
    /// is a plain clone.
    #[must_use]
    pub fn averaged(&self) -> Self {
        let mut averaged = self.clone();
        if self.has(Role::Ema) {
            let weights = (0..self.chunks.len()).map(|chunk| self.buffer(Role::Ema, chunk).cloned()).collect();
            averaged.buffers = HashMap::from([(Role::Weight, weights)]);
        }
        averaged
    }

    /// Downloads every parameter of a role, in the order of [`Parameters::entries_of`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the role was not allocated, [`Error::DeviceLost`].
    pub async fn read(&self, gpu: &Gpu, role: Role) -> Result<Vec<Vec<f32>>> {
        self.allocated(role)?;
        let mut chunks = Vec::new();
        for index in 0..self.chunks.len() {
            chunks.push(match self.buffer(role, index) {
                Some(buffer) => readback::read(gpu, buffer, 0, buffer.size()).await?,
                None => Vec::new(),
            });
        }
        let slice = |e: &Entry| chunks[e.chunk][e.offset..e.offset + e.shape.len()].to_vec();
        Ok(self.entries_of(role).map(slice).collect())
    }

    /// The buffers of a role.
    ///
    /// # Errors
    /// [`Error::Shape`] if it was not allocated.
    pub(crate) fn allocated(&self, role: Role) -> Result<&[Option<Buffer>]> {
        let buffers = self.buffers.get(&role).map(Vec::as_slice);
        buffers
            .ok_or_else(|| Error::Shape(format!("the parameters have no {role} on the GPU; {}", not_allocated(role))))
    }

    /// The buffer of a chunk in a role, if the role was allocated and the chunk has one. State is not averaged: it is its
    /// own average.
    pub(crate) fn buffer(&self, role: Role, chunk: usize) -> Option<&Buffer> {
        let buffers = self.buffers.get(&role)?;
        match buffers.get(chunk)? {
            None if role == Role::Ema => self.buffers.get(&Role::Weight)?.get(chunk)?.as_ref(),
            buffer => buffer.as_ref(),
        }
    }

    /// A handle on every buffer.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Buffer> {
        self.buffers.values().flatten().flatten().cloned()
    }
}

fn not_allocated(role: Role) -> String {
    format!("allocate Role::{role:?} before")
}

impl Entry {
    /// Whether it is trained, and not state.
    pub fn is_trained(&self) -> bool {
        self.keep != Keep::Buffer
    }

    /// Where it begins in its chunk.
    pub(crate) fn byte_offset(&self) -> u64 {
        DTYPE.bytes(self.offset)
    }

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
            Init::Normal(std) => {
                let mut stream = Stream::new(seed, &self.name);
                (0..len).map(|_| stream.normal() * std).collect()
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
