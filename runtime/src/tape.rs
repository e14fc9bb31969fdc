//! Model code is forward only and written against a tape, which walks its nodes once in reverse to record the backward.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::error::Result;
use crate::ops::pass_on;
use crate::parameters::{Init, Keep, Parameters, Role};
use crate::recorder::{Aside, Place, Recorder};
use crate::tensor::{Shape, Tensor};
use crate::tune::Tune;

/// A differentiable primitive. Both directions only append steps.
pub trait Op {
    /// The operation's name, which is also its shader's and its test's.
    fn name(&self) -> &'static str;
    /// Records the forward pass.
    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward;
    /// Records the backward pass: every `Some` slot of `pass.dx` must be written, in full, exactly once.
    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>);
    /// Whether the gradient of input `input` is that of the (only) output, number by number. The tape then takes the one for
    /// the other where it can, instead of asking for a copy.
    fn passes_on(&self, _x: &[Tensor], _input: usize) -> bool {
        false
    }
}

/// Results of a forward pass.
pub struct Forward {
    /// The outputs, each of which may receive a gradient.
    pub y: Vec<Tensor>,
    /// What the backward pass needs besides inputs and outputs.
    pub saved: Vec<Tensor>,
}

impl Forward {
    /// One output, nothing saved.
    pub fn one(y: Tensor) -> Self {
        Forward { y: vec![y], saved: vec![] }
    }
}

/// Where the gradient of an input goes.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The gradient, of the input's shape.
    pub grad: Tensor,
    /// `false` for the first writer, which stores; `true` for later ones, which add.
    pub accumulate: bool,
}

/// What a backward pass sees.
pub struct Backward<'a> {
    /// Inputs of the forward pass.
    pub x: &'a [Tensor],
    /// Outputs of the forward pass.
    pub y: &'a [Tensor],
    /// What the forward pass saved.
    pub saved: &'a [Tensor],
    /// Gradients of the outputs; `None` where nothing depends on an output. At least one is there.
    pub dy: &'a [Option<Tensor>],
    /// Where to put the gradients of the inputs; `None` where none is wanted.
    pub dx: &'a [Option<Slot>],
}

struct Node {
    op: Box<dyn Op>,
    scope: Vec<String>,
    x: Vec<Tensor>,
    y: Vec<Tensor>,
    saved: Vec<Tensor>,
}

/// What a recording is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward only; dropout, drop-path and proposal noise are off.
    Eval,
    /// Forward with gradients and with the random parts of training.
    Train {
        /// Parameter gradients add to what is there instead of replacing it (gradient accumulation).
        accumulate: bool,
    },
    /// Forward with gradients but without the random parts: tests.
    Differentiate,
    /// Forward, with gradients only of what is watched ([`Tape::watch`]) and not of the weights: for looking inside.
    Inspect {
        /// Whether proposals get the noise of training.
        noise: bool,
    },
}

/// Records a model and its gradient.
pub struct Tape<'p> {
    /// The recording so far, for operations that have no gradient.
    pub rec: Recorder,
    parameters: &'p mut Parameters,
    mode: Mode,
    scope: Vec<String>,
    nodes: Vec<Node>,
    /// Nodes that are recomputed before their backward pass, in order.
    segments: Vec<Range<usize>>,
    recomputes: bool,
    known: HashMap<usize, Tensor>,
    wants: HashSet<usize>,
    /// Gradients by the tensor that they belong to; several tensors may have one in common.
    grads: HashMap<usize, Tensor>,
    /// Gradients that are not added to: the caller's.
    given: HashSet<usize>,
    /// Tensors whose gradients the caller may ask for.
    watched: HashSet<usize>,
}

impl<'p> Tape<'p> {
    /// An empty tape for a model with these parameters.
    pub fn new(parameters: &'p mut Parameters, tune: &Tune, mode: Mode) -> Self {
        Tape {
            rec: Recorder::new(tune.clone()),
            parameters,
            mode,
            scope: Vec::new(),
            nodes: Vec::new(),
            segments: Vec::new(),
            recomputes: false,
            known: HashMap::new(),
            wants: HashSet::new(),
            grads: HashMap::new(),
            given: HashSet::new(),
            watched: HashSet::new(),
        }
    }

    /// Whether dropout, drop-path and proposal noise are on.
    pub fn is_training(&self) -> bool {
        matches!(self.mode, Mode::Train { .. })
    }

    /// Whether proposals get noise: while training, and where an inspection asks for it.
    pub fn draws_noise(&self) -> bool {
        self.is_training() || self.mode == Mode::Inspect { noise: true }
    }

    /// An input of the plan, without gradient.
    pub fn input(&mut self, label: &str, shape: impl Into<Shape>) -> Tensor {
        self.rec.pinned(label, shape)
    }

    /// An input of the plan whose gradient is wanted.
    pub fn variable(&mut self, label: &str, shape: impl Into<Shape>) -> Tensor {
        let tensor = self.rec.pinned(label, shape);
        self.wants.insert(tensor.id);
        tensor
    }

    /// From here on, what is computed from this tensor is differentiated with respect to it.
    pub fn watch(&mut self, tensor: Tensor) {
        self.wants.insert(tensor.id);
        self.watched.insert(tensor.id);
    }

    /// What is computed from this tensor from here on counts as constant.
    pub fn unwatch(&mut self, tensor: Tensor) {
        self.wants.remove(&tensor.id);
    }

    /// Whether this is an inspection, in which attention is differentiated with respect to the values alone.
    pub fn inspects(&self) -> bool {
        matches!(self.mode, Mode::Inspect { .. })
    }

    /// Records `body`, in which `tensor` counts as constant if this is an inspection: what decides on weights is not part
    /// of the weighted sum.
    pub fn constant_when_inspecting<T>(&mut self, tensor: Tensor, body: impl FnOnce(&mut Self) -> T) -> T {
        let watched = self.inspects() && self.wants.remove(&tensor.id);
        let result = body(self);
        if watched {
            self.wants.insert(tensor.id);
        }
        result
    }

    /// Records steps that an ordinary run leaves out; see [`crate::Run::aside`].
    pub fn aside(&mut self, body: impl FnOnce(&mut Self)) -> Aside {
        let first = self.rec.steps.len();
        body(self);
        self.rec.end_aside(first)
    }

    /// The parameter `name` in the current scope (`blocks.0.attn.` + `qkv.weight`), with weight decay for matrices.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor {
        self.declare(name, shape.into(), init, Keep::Decayed)
    }

    /// As [`Tape::parameter`], never decayed (position tables and class tokens).
    pub fn parameter_without_decay(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor {
        self.declare(name, shape.into(), init, Keep::Plain)
    }

    /// State of the model that is not trained and is saved with it, as PyTorch's buffers: running means, caches of decoding.
    /// It counts as constant, and steps may write it.
    pub fn buffer(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor {
        self.declare(name, shape.into(), init, Keep::Buffer)
    }

    fn declare(&mut self, name: &str, shape: Shape, init: Init, keep: Keep) -> Tensor {
        let mut path = self.scope.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        let index = match self.parameters.declare(&path, shape, init, keep) {
            Ok(index) => index,
            Err(error) => {
                self.rec.fail(error);
                return self.rec.scratch(name, shape);
            }
        };
        if let Some(&known) = self.known.get(&index) {
            return known;
        }
        let tensor = self.rec.tensor(name, shape, Place::Parameter { index, role: Role::Weight });
        self.known.insert(index, tensor);
        if keep != Keep::Buffer && !self.inspects() {
            self.wants.insert(tensor.id);
        }
        tensor
    }

    /// Runs `body` inside a named scope, which prefixes parameter names and labels.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.to_owned());
        self.rec.enter(name);
        let result = body(self);
        self.rec.leave();
        self.scope.pop();
        result
    }

    /// Whether what [`Tape::checkpoint`] marks from here on is recomputed.
    pub fn recompute(&mut self, on: bool) {
        self.recomputes = on;
    }

    /// Records `body`, a part of the model whose insides need not be kept: where [`Tape::recompute`] was asked for, only what
    /// goes into it stays until the backward pass, which then computes the rest again, bit for bit (Chen et al. 2016,
    /// "Training Deep Nets with Sublinear Memory Cost"). A part within a part belongs to the outer one.
    pub fn checkpoint<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let (first, marks) = (self.nodes.len(), std::mem::take(&mut self.recomputes));
        let result = body(self);
        self.recomputes = marks;
        if marks && self.nodes.len() > first {
            self.segments.push(first..self.nodes.len());
        }
        result
    }

    /// Number of a random stream that belongs to the current scope: the same however much else draws, and so the same in
    /// training and at evaluation ([`Recorder::next_stream`] counts the operations of one recording).
    pub fn scope_stream(&self) -> u32 {
        crate::random::hash(&self.scope.join("."))
    }

    /// Applies an operation with one output.
    pub fn apply(&mut self, op: impl Op + 'static, x: &[Tensor]) -> Tensor {
        self.apply_all(op, x)[0]
    }

    /// Applies an operation and returns all its outputs.
    pub fn apply_all(&mut self, op: impl Op + 'static, x: &[Tensor]) -> Vec<Tensor> {
        let Forward { y, saved } = op.forward(&mut self.rec, x);
        if self.mode != Mode::Eval && x.iter().any(|t| self.wants.contains(&t.id)) {
            self.wants.extend(y.iter().map(|t| t.id));
            let node = Node { op: Box::new(op), scope: self.scope.clone(), x: x.to_vec(), y: y.clone(), saved };
            self.nodes.push(node);
        }
        y
    }

    /// Records the gradient with respect to everything that wants one, given the gradients of some outputs
    /// (output, its gradient). The nodes recorded so far are walked once and forgotten.
    pub fn backward(&mut self, outputs: &[(Tensor, Tensor)]) {
        for (y, dy) in outputs {
            self.grads.insert(y.id, *dy);
            self.given.insert(dy.id);
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut segments = std::mem::take(&mut self.segments);
        let mut made_by: HashMap<usize, usize> =
            nodes.iter().enumerate().flat_map(|(at, node)| node.y.iter().map(move |y| (y.id, at))).collect();
        while let Some(at) = nodes.len().checked_sub(1) {
            if let Some(segment) = segments.pop_if(|segment| segment.end == nodes.len()) {
                self.compute_again(&mut nodes, segment, &mut made_by);
            }
            let Some(node) = nodes.pop() else { break };
            let dy: Vec<Option<Tensor>> =
                node.y.iter().map(|t| self.grads.get(&t.id).map(|g| g.reshape(t.shape))).collect();
            if dy.iter().all(Option::is_none) {
                continue;
            }
            for scope in &node.scope {
                self.rec.enter(scope);
            }
            // Nodes are walked from the last to the first: what they have made is read when their turn comes.
            let is_read = |id: usize| made_by.get(&id).is_some_and(|&node| node <= at);
            let slots = self.slots(&node, &dy, &is_read);
            let dx: Vec<Option<Slot>> = slots.iter().map(|slot| slot.map(|(slot, _)| slot)).collect();
            let pass = Backward { x: &node.x, y: &node.y, saved: &node.saved, dy: &dy, dx: &dx };
            node.op.backward(&mut self.rec, &pass);
            for (own, shared) in slots.into_iter().flatten().filter_map(|(own, shared)| Some((own, shared?))) {
                pass_on(&mut self.rec, own.grad, Slot { grad: shared, accumulate: true });
            }
            for _ in &node.scope {
                self.rec.leave();
            }
        }
    }

    /// Records the forward pass of these nodes once more; their tensors become the new ones, and gradients that were recorded
    /// for the old ones belong to these.
    fn compute_again(&mut self, nodes: &mut [Node], segment: Range<usize>, made_by: &mut HashMap<usize, usize>) {
        let mut again: HashMap<usize, Tensor> = HashMap::new();
        for at in segment.clone() {
            let (node, later) = nodes[at..segment.end].split_first_mut().expect("it is within the segment");
            node.x = node.x.iter().map(|x| again.get(&x.id).map_or(*x, |new| new.reshape(x.shape))).collect();
            let is_unread = |y: &Tensor| later.iter().all(|node| node.x.iter().all(|x| x.id != y.id));
            // What only passes gradients on needs no result of its own for that.
            if node.y.iter().all(is_unread) && (0..node.x.len()).all(|input| node.op.passes_on(&node.x, input)) {
                continue;
            }
            node.scope.iter().for_each(|scope| self.rec.enter(scope));
            let Forward { y, saved } = node.op.forward(&mut self.rec, &node.x);
            node.scope.iter().for_each(|_| self.rec.leave());
            for (old, new) in node.y.iter().zip(&y) {
                again.insert(old.id, *new);
                made_by.insert(new.id, at);
                self.wants.insert(new.id);
                if let Some(grad) = self.grads.remove(&old.id) {
                    self.grads.insert(new.id, grad);
                }
            }
            (node.y, node.saved) = (y, saved);
        }
    }

    /// Slots of a node's inputs. An operation that got a tensor twice writes the second gradient into a tensor of its own,
    /// for one dispatch cannot write one buffer through two bindings; the gradient to add that to comes with it.
    fn slots(
        &mut self,
        node: &Node,
        dy: &[Option<Tensor>],
        is_read: &dyn Fn(usize) -> bool,
    ) -> Vec<Option<(Slot, Option<Tensor>)>> {
        let slot = |(at, tensor): (usize, &Tensor)| {
            if self.take_over(node, at, dy) {
                return None;
            }
            let slot = self.slot(*tensor, is_read)?;
            if node.x[..at].iter().all(|earlier| earlier.id != tensor.id) {
                return Some((slot, None));
            }
            let label = self.rec.label(*tensor).to_owned();
            let grad = self.rec.gradient(&label, tensor.shape(), Place::Scratch);
            Some((Slot { grad, accumulate: false }, Some(slot.grad)))
        };
        node.x.iter().enumerate().map(slot).collect()
    }

    /// Makes the output's gradient that of an input, where it is the same and the input has none yet. Not where a buffer of
    /// its own is asked for: by who gave the tensor, watches it, or keeps the parameters.
    fn take_over(&mut self, node: &Node, input: usize, dy: &[Option<Tensor>]) -> bool {
        let (x, &[Some(dy)]) = (node.x[input], dy) else { return false };
        let is_free = self.wants.contains(&x.id)
            && !self.watched.contains(&x.id)
            && !self.grads.contains_key(&x.id)
            && self.rec.tensors[x.id].place == Place::Scratch
            && node.x.iter().filter(|other| other.id == x.id).count() == 1;
        let takes = is_free && node.op.passes_on(&node.x, input);
        if takes {
            self.grads.insert(x.id, dy.reshape(x.shape));
        }
        takes
    }

    /// The first writer stores, later writers add: no zero fill, no atomics.
    fn slot(&mut self, tensor: Tensor, is_read: &dyn Fn(usize) -> bool) -> Option<Slot> {
        if !self.wants.contains(&tensor.id) {
            return None;
        }
        let info = self.rec.tensors[tensor.id].clone();
        let first = !self.grads.contains_key(&tensor.id);
        let mut accumulate = !first;
        if first {
            let place = match info.place {
                Place::Parameter { index, .. } => {
                    accumulate = self.mode == (Mode::Train { accumulate: true });
                    Place::Parameter { index, role: Role::Grad }
                }
                other => other,
            };
            let grad = self.rec.gradient(&info.label, info.shape, place);
            self.grads.insert(tensor.id, grad);
        } else {
            self.part(tensor, is_read);
        }
        Some(Slot { grad: self.grads[&tensor.id].reshape(tensor.shape), accumulate })
    }

    /// Before something is added to a gradient that other tensors have in common with this one: a copy, if one of them is
    /// still to be read; otherwise theirs has served and is forgotten.
    fn part(&mut self, tensor: Tensor, is_read: &dyn Fn(usize) -> bool) {
        let grad = self.grads[&tensor.id];
        let sharers: Vec<usize> =
            self.grads.iter().filter(|(id, g)| **id != tensor.id && g.id == grad.id).map(|(id, _)| *id).collect();
        let is_needed = |id: &usize| is_read(*id) || self.watched.contains(id);
        if !self.given.contains(&grad.id) && !sharers.iter().any(is_needed) {
            self.grads.retain(|id, _| !sharers.contains(id));
            return;
        }
        let label = self.rec.label(tensor).to_owned();
        let own = self.rec.gradient(&label, tensor.shape(), Place::Scratch);
        pass_on(&mut self.rec, grad, Slot { grad: own, accumulate: false });
        self.grads.insert(tensor.id, own);
    }

    /// The gradient recorded for a tensor: an input or parameter, or what is watched. Of others it may be gone.
    pub fn gradient(&self, tensor: Tensor) -> Option<Tensor> {
        self.grads.get(&tensor.id).map(|g| g.reshape(tensor.shape))
    }

    /// The parameters declared so far.
    pub fn parameters(&self) -> &Parameters {
        self.parameters
    }

    /// Ends the tape and hands over the recording.
    ///
    /// # Errors
    /// The first mistake of the recording.
    pub fn finish(mut self) -> Result<Recorder> {
        self.rec.finish()?;
        Ok(self.rec)
    }
}
