//! A recording is data: which kernel reads and writes which tensors, in which order. Nothing here knows the device.

use std::collections::BTreeMap;
use std::ops::Range;

use lara_shaders::Module;

use crate::cost::Speed;
use crate::error::{Error, Result, human_bytes};
use crate::header::Redraw;
use crate::kernel::{Kernel, Signature};
use crate::parameters::Role;
use crate::pieces::{FIRST, Piece, pieces};
use crate::tensor::{Dtype, MOST_ELEMENTS, Shape, Tensor};
use crate::tune::Tune;
use crate::variant::Variant;

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a pooled buffer from the first to the last step that binds it.
    Scratch,
    /// In a buffer of its own for the plan's whole life: inputs, outputs, state.
    Pinned,
    /// A slice of the flat parameter buffers.
    Parameter {
        /// Index in [`crate::Parameters`].
        index: usize,
        /// Weights, gradients or optimizer state.
        role: Role,
    },
    /// One whole chunk of the flat parameter buffers.
    Chunk {
        /// Index of the chunk.
        index: usize,
        /// Weights, gradients or optimizer state.
        role: Role,
    },
}

/// A tensor as the recorder keeps it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Path such as `block3.attn/softmax.out`.
    pub label: String,
    /// Shape at creation.
    pub shape: Shape,
    /// What its elements are.
    pub dtype: Dtype,
    /// Where it lives.
    pub place: Place,
}

impl TensorInfo {
    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.shape.bytes(self.dtype)
    }
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Step {
    /// Path such as `block3.attn/matmul.nt_rows`.
    pub label: String,
    /// The kernel.
    pub kernel: Kernel,
    /// Values of overrides.
    pub constants: BTreeMap<&'static str, f64>,
    /// Bytes of the `params` uniform.
    pub params: Vec<u8>,
    /// Tensor of each storage binding, in the order of the kernel's signature.
    pub binds: Vec<Tensor>,
    /// Workgroups in x, y and z.
    pub groups: [u32; 3],
    /// Floating-point operations, where the operation counted them: what is not bound by memory.
    pub flops: f64,
}

impl Step {
    /// Bytes of the tensors that it binds, each counted once.
    pub fn bytes(&self) -> u64 {
        let first = |at: usize| self.binds[..at].iter().all(|earlier| earlier.id != self.binds[at].id);
        (0..self.binds.len()).filter(|&at| first(at)).map(|at| self.binds[at].bytes()).sum()
    }

    /// Predicted seconds.
    pub(crate) fn seconds(&self, speed: Speed) -> f64 {
        speed.seconds(self.flops, self.bytes() as f64)
    }
}

/// Steps that an ordinary run leaves out and that can be run by themselves afterwards, as often as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aside(pub(crate) usize);

/// Steps that compute what stays: see [`Recorder::once`].
#[derive(Clone, Debug)]
pub(crate) struct Once {
    pub(crate) steps: Range<usize>,
    pub(crate) redraw: Redraw,
}

/// Appends steps. Mistakes are kept and reported by [`Recorder::finish`], so that operations need no error paths.
#[derive(Debug, Default)]
pub struct Recorder {
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) steps: Vec<Step>,
    pub(crate) asides: Vec<Range<usize>>,
    pub(crate) once: Vec<Once>,
    /// What stands for tensors that are not there.
    pub(crate) absent: Option<Tensor>,
    scopes: Vec<String>,
    names: BTreeMap<String, Tensor>,
    streams: u32,
    error: Option<Error>,
    tune: Tune,
}

impl Recorder {
    /// An empty recording whose operations choose their variants through `tune`.
    pub fn new(tune: Tune) -> Self {
        Recorder { tune, ..Recorder::default() }
    }

    /// The variant of an operation that is best here; see [`Tune::choose`].
    pub fn choose(&self, key: &str, candidates: &[Variant], record: &dyn Fn(&mut Recorder, Variant)) -> Variant {
        match (&self.error, candidates.first()) {
            // A recording that will be refused is not worth a measurement.
            (Some(_), Some(&first)) => first,
            _ => self.tune.choose(key, candidates, record),
        }
    }

    /// Whether variants that broadcast between 8 lanes may be chosen; see [`Tune::allows_lanes`].
    pub(crate) fn allows_lanes(&self) -> bool {
        self.tune.allows_lanes()
    }

    /// The gradient of a tensor with this (full) label.
    pub(crate) fn gradient(&mut self, label: &str, shape: Shape, place: Place) -> Tensor {
        let (path, name) = label.rsplit_once('/').map_or(("", label), |(path, name)| (path, name));
        self.add(if path.is_empty() { format!("d{name}") } else { format!("{path}/d{name}") }, shape, place)
    }

    /// A tensor under its full label. One that kernels cannot count through is refused, with its shape.
    fn add(&mut self, label: String, shape: Shape, place: Place) -> Tensor {
        let (id, dtype) = (self.tensors.len(), Dtype::F32);
        if shape.len() > MOST_ELEMENTS {
            self.fail(Error::TooLarge {
                what: format!("{label} {shape}"),
                needed: human_bytes(shape.bytes(dtype)),
                allowed: format!("{} in one buffer", human_bytes(MOST_ELEMENTS as u64 * dtype.size())),
                lower: "the batch size, the image size or the number of tokens".into(),
            });
        }
        self.tensors.push(TensorInfo { label, shape, dtype, place });
        Tensor { id, shape, dtype }
    }

    /// A pooled tensor that lives from its first to its last step.
    pub fn scratch(&mut self, label: &str, shape: impl Into<Shape>) -> Tensor {
        self.tensor(label, shape.into(), Place::Scratch)
    }

    /// A tensor with a buffer of its own, for values that enter or leave a plan.
    pub fn pinned(&mut self, label: &str, shape: impl Into<Shape>) -> Tensor {
        self.tensor(label, shape.into(), Place::Pinned)
    }

    pub(crate) fn tensor(&mut self, label: &str, shape: Shape, place: Place) -> Tensor {
        self.add(self.path(label), shape, place)
    }

    /// What is bound where a kernel's binding has no tensor: one vec4 that nobody reads.
    fn absent(&mut self) -> Tensor {
        if let Some(absent) = self.absent {
            return absent;
        }
        let absent = self.add("absent".into(), Shape::from([4]), Place::Scratch);
        *self.absent.insert(absent)
    }

    /// Gives a tensor a buffer of its own, so that it can be read after a run.
    pub fn pin(&mut self, tensor: Tensor) {
        let place = &mut self.tensors[tensor.id].place;
        if *place == Place::Scratch {
            *place = Place::Pinned;
        }
    }

    /// Gives a tensor a name within the current scope (`blocks.0.attn` + `q`), under which it can be found: what somebody may
    /// want to read of a model. A name that comes again is the last one's.
    pub fn name(&mut self, name: &str, tensor: Tensor) {
        let path: Vec<&str> = self.scopes.iter().map(String::as_str).chain([name]).collect();
        self.names.insert(path.join("."), tensor);
    }

    /// What was given a name.
    pub fn named(&self) -> &BTreeMap<String, Tensor> {
        &self.names
    }

    /// Number of a random stream, one for each operation that draws; the same model gives the same numbers.
    pub fn next_stream(&mut self) -> u32 {
        self.streams += 1;
        self.streams
    }

    /// Enters a scope; labels made inside start with its name.
    pub fn enter(&mut self, scope: &str) {
        self.scopes.push(scope.to_owned());
    }

    /// Leaves the innermost scope.
    pub fn leave(&mut self) {
        self.scopes.pop();
    }

    fn path(&self, name: &str) -> String {
        if self.scopes.is_empty() { name.to_owned() } else { format!("{}/{name}", self.scopes.join(".")) }
    }

    /// Starts a step of the kernel `entry` in `module`.
    pub fn step(&mut self, module: &'static Module, entry: &'static str) -> StepBuilder<'_> {
        let kernel = Kernel::new(module, entry);
        let label = self.path(&kernel.label());
        StepBuilder {
            label,
            kernel,
            constants: BTreeMap::new(),
            params: Vec::new(),
            binds: Vec::new(),
            flops: 0.0,
            rec: self,
        }
    }

    /// Keeps the first mistake for [`Recorder::finish`].
    pub fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// The first mistake of the recording, if there was one.
    ///
    /// # Errors
    /// Whatever [`Recorder::fail`] was given first.
    pub fn finish(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Recorded steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Label of a tensor.
    pub fn label(&self, tensor: Tensor) -> &str {
        &self.tensors[tensor.id].label
    }
}

/// A step under construction; [`StepBuilder::dispatch`] checks and appends it.
pub struct StepBuilder<'r> {
    rec: &'r mut Recorder,
    label: String,
    kernel: Kernel,
    constants: BTreeMap<&'static str, f64>,
    params: Vec<(&'static str, u32, bool)>,
    binds: Vec<(&'static str, Tensor)>,
    flops: f64,
}

impl StepBuilder<'_> {
    /// Binds a tensor to the storage buffer `name`.
    pub fn bind(mut self, name: &'static str, tensor: Tensor) -> Self {
        self.binds.push((name, tensor));
        self
    }

    /// Binds a tensor to the storage buffer `name`, which the kernel does not read where there is none.
    pub fn bind_or_absent(self, name: &'static str, tensor: Option<Tensor>) -> Self {
        let tensor = tensor.unwrap_or_else(|| self.rec.absent());
        self.bind(name, tensor)
    }

    /// Sets the u32 or i32 member `name` of `params`.
    pub fn uint(mut self, name: &'static str, value: usize) -> Self {
        match u32::try_from(value) {
            Ok(value) => self.params.push((name, value, false)),
            Err(_) => self.rec.fail(Error::TooLarge {
                what: format!("{}: `{name}`", self.label),
                needed: value.to_string(),
                allowed: u32::MAX.to_string(),
                lower: "the batch size or the sequence length".into(),
            }),
        }
        self
    }

    /// Sets the f32 member `name` of `params`.
    pub fn float(mut self, name: &'static str, value: f32) -> Self {
        self.params.push((name, value.to_bits(), true));
        self
    }

    /// Sets the u32 member `name` of `params` to 0 or 1.
    pub fn flag(self, name: &'static str, value: bool) -> Self {
        self.uint(name, usize::from(value))
    }

    /// Sets a pipeline-overridable constant.
    pub fn constant(mut self, name: &'static str, value: f64) -> Self {
        self.constants.insert(name, value);
        self
    }

    /// Says how many floating-point operations the step takes (a multiply-add is two), so that its time can be predicted.
    /// Steps that are bound by memory need not.
    pub fn flops(mut self, count: f64) -> Self {
        self.flops = count;
        self
    }

    /// Invocations of the kernel's workgroup. One that the shader does not declare is told when the step is appended.
    fn workgroup_size(&self) -> usize {
        self.kernel.signature().map_or(1, |signature| signature.workgroup_size)
    }

    /// Appends the step with an invocation for each of `items`.
    pub fn dispatch_items(self, items: usize) {
        let size = self.workgroup_size();
        self.dispatch_groups(items.div_ceil(size));
    }

    /// Appends the step with `groups` workgroups, spread over x and y (a dimension holds 65,535).
    pub fn dispatch_groups(self, groups: usize) {
        let groups = groups.max(1);
        let x = groups.min(65_535);
        self.dispatch([x, groups.div_ceil(x), 1]);
    }

    /// Appends the step of a kernel that goes through rows: an invocation a row where the entry point's name ends in
    /// `_rows`, else a workgroup a row.
    pub fn dispatch_rows(self, rows: usize) {
        if self.kernel.entry.ends_with("_rows") { self.dispatch_items(rows) } else { self.dispatch_groups(rows) }
    }

    /// Appends the step with an invocation in x for each of `items`, and these workgroups in y and z.
    pub fn dispatch_grid(self, items: usize, [y, z]: [usize; 2]) {
        let x = items.div_ceil(self.workgroup_size());
        self.dispatch([x, y, z]);
    }

    /// Checks names and types against the WGSL and appends the step: several, if it is too long for one and can be cut.
    pub fn dispatch(self, groups: [usize; 3]) {
        let steps = match self.kernel.signature() {
            Ok(signature) => self.resolve(&signature, groups).map(|step| self.cut(&signature, &step, groups)),
            Err(what) => Err(what),
        };
        match steps {
            Ok(steps) => self.rec.steps.extend(steps),
            Err(what) => self.rec.fail(Error::Recording { step: self.label, what }),
        }
    }

    fn cut(&self, signature: &Signature, step: &Step, groups: [usize; 3]) -> Vec<Step> {
        let pieces = pieces(signature, groups, self.flops, self.rec.tune.most_flops());
        let all = groups.iter().product::<usize>() as f64;
        let part = |piece: &Piece| {
            let mut part = step.clone();
            part.groups = piece.groups.map(|g| u32::try_from(g).unwrap_or(u32::MAX));
            part.flops *= piece.groups.iter().product::<usize>() as f64 / all;
            for (name, first) in FIRST.iter().zip(piece.first) {
                let fields = signature.params.iter().flat_map(|params| &params.fields);
                for field in fields.filter(|field| field.name == *name) {
                    part.params[field.offset..field.offset + 4].copy_from_slice(&(first as u32).to_le_bytes());
                }
            }
            part
        };
        pieces.iter().map(part).collect()
    }

    fn resolve(&self, signature: &Signature, groups: [usize; 3]) -> Result<Step, String> {
        if let Some(name) = self.constants.keys().find(|c| !signature.overrides.iter().any(|o| o == *c)) {
            let declared = if signature.overrides.is_empty() { "none".into() } else { signature.overrides.join(", ") };
            return Err(format!("sets the constant `{name}`; the shader declares {declared}"));
        }
        let groups = groups.map(|g| u32::try_from(g).unwrap_or(u32::MAX));
        if groups.contains(&0) {
            return Err(format!("dispatches {groups:?} workgroups; every dimension must be at least 1"));
        }
        Ok(Step {
            label: self.label.clone(),
            kernel: self.kernel,
            constants: self.constants.clone(),
            params: self.resolve_params(signature)?,
            binds: self.resolve_binds(signature)?,
            groups,
            flops: self.flops,
        })
    }

    fn resolve_binds(&self, signature: &Signature) -> Result<Vec<Tensor>, String> {
        let declared = || signature.storage.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        self.refuse_aliases(signature)?;
        if let Some((name, _)) = self.binds.iter().find(|(n, _)| !signature.storage.iter().any(|s| s.name == *n)) {
            return Err(format!("binds `{name}`; the shader declares {}", declared()));
        }
        signature
            .storage
            .iter()
            .map(|s| {
                let mut bound = self.binds.iter().filter(|(n, _)| *n == s.name);
                match (bound.next(), bound.next()) {
                    (Some((_, tensor)), None) => Ok(*tensor),
                    (None, _) => Err(format!("does not bind `{}`; the shader declares {}", s.name, declared())),
                    _ => Err(format!("binds `{}` twice", s.name)),
                }
            })
            .collect()
    }

    /// One buffer cannot be read and written through two bindings of a dispatch.
    fn refuse_aliases(&self, signature: &Signature) -> Result<(), String> {
        for written in signature.storage.iter().filter(|s| s.writes) {
            let Some((_, target)) = self.binds.iter().find(|(n, _)| *n == written.name) else { continue };
            if let Some((other, _)) = self.binds.iter().find(|(n, t)| *n != written.name && t.id == target.id) {
                return Err(format!("binds one tensor to `{}`, which is written, and to `{other}`", written.name));
            }
        }
        Ok(())
    }

    fn resolve_params(&self, signature: &Signature) -> Result<Vec<u8>, String> {
        let Some(params) = &signature.params else {
            return if self.params.is_empty() { Ok(Vec::new()) } else { Err("the shader has no `params`".into()) };
        };
        let declared = || params.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut bytes = vec![0; params.size];
        for (name, bits, float) in &self.params {
            let field = params.fields.iter().find(|f| f.name == *name);
            let field = field.ok_or_else(|| format!("sets `params.{name}`; the shader declares {}", declared()))?;
            if field.float != *float {
                let ty = if field.float { "f32" } else { "an integer" };
                return Err(format!("`params.{name}` is {ty} in the shader"));
            }
            bytes[field.offset..field.offset + 4].copy_from_slice(&bits.to_le_bytes());
        }
        let is_set = |name: &str| FIRST.contains(&name) || self.params.iter().any(|(n, ..)| *n == name);
        match params.fields.iter().find(|f| !is_set(&f.name)) {
            Some(missing) => Err(format!("does not set `params.{}`; the shader declares {}", missing.name, declared())),
            None => Ok(bytes),
        }
    }
}
