//! Matrix products: the linear layer, products of two activations, and what both record.

use lara_shaders::{MATMUL_LANES, MATMUL_ROWS, MATMUL_ROWS4, MATMUL_TILES, Module};

use super::column_sum;
use crate::{Backward, Error, Forward, Op, Recorder, Shape, Tensor, Variant};

/// Which operand is transposed; matrices are row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// a [M, K], b [N, K]: c = a b^T.
    Nt,
    /// a [M, K], b [K, N]: c = a b.
    Nn,
    /// a [K, M], b [K, N]: c = a^T b.
    Tn,
}

/// A tensor read or written from an element on.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// The tensor.
    pub tensor: Tensor,
    /// First element.
    pub offset: usize,
}

impl From<Tensor> for Operand {
    fn from(tensor: Tensor) -> Self {
        Operand { tensor, offset: 0 }
    }
}

/// One batched product: for every z, c (m x n) = scale a b (+ bias) (+ c), with contiguous matrices.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Which operand is transposed.
    pub layout: Layout,
    /// Number of products.
    pub batch: usize,
    /// Rows of c.
    pub m: usize,
    /// Columns of c.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Factor of the product (not of the bias).
    pub scale: f32,
    /// Whether c is added to.
    pub accumulate: bool,
}

/// Multiply-adds of the largest product that variants are compared on.
const LARGEST_MEASURED: usize = 1 << 29;

/// Longest K that one workgroup walks when there are few tiles, and the longest ever: `matmul.wgsl` adds up 32 stretches of
/// it, and those of a sum of 10^6 values are as many parts again, so that no chain of additions is long.
const SPLIT_K: usize = 1024;
const LONGEST_K: usize = 16_384;

/// b of many products, as their variant reads it.
pub(crate) struct Prepared {
    variant: Variant,
    b: Tensor,
    /// Floats between its matrices.
    stride: usize,
}

/// A kernel, and how it sees a product.
struct Kernel {
    module: &'static Module,
    entry: &'static str,
    /// Rows and columns of c of one workgroup.
    tile: [usize; 2],
    /// Names of the bindings of a and c.
    a: &'static str,
    c: &'static str,
    /// Floats between the matrices of b.
    b_stride: usize,
}

impl Product {
    /// Appends the product. The variant is measured once per layout and size.
    pub fn record(
        self,
        rec: &mut Recorder,
        a: impl Into<Operand>,
        b: impl Into<Operand>,
        bias: Option<Tensor>,
        c: impl Into<Operand>,
    ) {
        let (a, b, c) = (a.into(), b.into(), c.into());
        let variant = self.variant(rec, [a, b, c], bias.is_some());
        self.record_variant(rec, variant, [a, b, c], bias);
    }

    fn key(&self) -> String {
        let Product { layout, batch, m, n, k, .. } = self;
        let about = |x: usize| if x > 64 { x.next_power_of_two() } else { x };
        format!("matmul {layout:?} {} {} {} {}", batch.next_power_of_two(), about(*m), about(*n), about(*k))
    }

    fn variant(&self, rec: &Recorder, [a, b, c]: [Operand; 3], has_bias: bool) -> Variant {
        let mut candidates = vec![Variant::TILES];
        if self.splits() > self.parts() {
            candidates.push(Variant::TILES_SPLIT);
        }
        candidates.push(Variant::ROWS);
        let quads = self.allows_quads(a.offset, b.offset, c.offset);
        if quads {
            candidates.push(Variant::ROWS4);
        }
        let ragged = self.is_ragged() && !has_bias && !self.accumulate && b.offset.is_multiple_of(4);
        let lanes = quads && self.layout != Layout::Nt || (quads || ragged) && self.has_whole_rows_of_a(a.offset);
        if lanes && rec.allows_lanes() {
            candidates.push(Variant::LANES);
        }
        let product = self.for_measurement();
        let key = format!(
            "{}{}",
            product.key(),
            if lanes {
                " lanes"
            } else if quads {
                " quads"
            } else {
                ""
            }
        );
        rec.choose(&key, &candidates, &|rec, variant| {
            let a = rec.scratch("a", [product.batch, product.m * product.k]);
            let b = rec.scratch("b", [product.batch, product.k * product.n]);
            let c = rec.scratch("c", [product.batch, product.m * product.n]);
            product.record_variant(rec, variant, [a.into(), b.into(), c.into()], None);
        })
    }

    /// A product of the same shape that is small enough to be measured: batch first, then the longest side is halved.
    fn for_measurement(&self) -> Product {
        let mut small = Product { accumulate: false, ..*self };
        let half = |size: usize| size.div_ceil(2).next_multiple_of(4);
        while small.batch * small.m * small.n * small.k > LARGEST_MEASURED {
            match [small.m, small.n, small.k].into_iter().max() {
                _ if small.batch > 1 => small.batch = small.batch.div_ceil(2),
                Some(longest) if longest == small.m => small.m = half(small.m),
                Some(longest) if longest == small.n => small.n = half(small.n),
                _ => small.k = half(small.k),
            }
        }
        small
    }

    /// Whether every row that `rows4` reads or writes as vec4s is whole.
    fn allows_quads(&self, a_offset: usize, b_offset: usize, c_offset: usize) -> bool {
        let Product { layout, m, n, k, .. } = *self;
        let needed = match layout {
            Layout::Nt => [n, k, b_offset, c_offset],
            Layout::Nn => [n, b_offset, c_offset, 0],
            Layout::Tn => [n, m, a_offset, b_offset | c_offset],
        };
        needed.iter().all(|x| x.is_multiple_of(4))
    }

    /// Whether the rows of an a that is not transposed are whole vec4s.
    fn has_whole_rows_of_a(&self, a_offset: usize) -> bool {
        self.layout == Layout::Tn || (self.k.is_multiple_of(4) && a_offset.is_multiple_of(4))
    }

    /// A product with a transposed b whose columns are no whole vec4s (LARA's 49 proposals, say): its copy of b is padded.
    fn is_ragged(&self) -> bool {
        self.layout == Layout::Nt && !self.n.is_multiple_of(4)
    }

    /// Parts of k that keep chains of additions short.
    fn parts(&self) -> usize {
        self.k.div_ceil(LONGEST_K)
    }

    /// Parts of k that also occupy a GPU where there are few tiles.
    fn splits(&self) -> usize {
        let tiles = self.batch * self.m.div_ceil(64) * self.n.div_ceil(64);
        if tiles > 256 { self.parts() } else { self.k.div_ceil(SPLIT_K).min(64).max(self.parts()) }
    }

    /// Whether a variant reads a transposed copy of b.
    fn copies_b(&self, variant: Variant) -> bool {
        self.layout == Layout::Nt && matches!(variant, Variant::ROWS4 | Variant::LANES)
    }

    fn kernel(&self, variant: Variant, a_offset: usize) -> Kernel {
        let (module, tile): (&Module, _) = match variant {
            Variant::ROWS => (&MATMUL_ROWS, [64, 32]),
            Variant::ROWS4 => (&MATMUL_ROWS4, [64, 32]),
            Variant::LANES => (&MATMUL_LANES, [32, 64]),
            _ => (&MATMUL_TILES, [64, 64]),
        };
        let entry = match self.layout {
            Layout::Nt => "nt",
            Layout::Nn => "nn",
            Layout::Tn => "tn",
        };
        let kernel = Kernel { module, entry, tile, a: "a", c: "c", b_stride: self.k * self.n };
        if self.copies_b(variant) {
            let b_stride = self.k * self.n.next_multiple_of(4);
            if self.is_ragged() {
                return Kernel { entry: "nn_ragged", c: "c_floats", b_stride, ..kernel };
            }
            return Kernel { entry: "nn", b_stride, ..kernel };
        }
        if variant == Variant::LANES && self.layout == Layout::Nn && !self.has_whole_rows_of_a(a_offset) {
            // Only a is read float by float.
            return Kernel { entry: "nn_odd", a: "a_floats", ..kernel };
        }
        kernel
    }

    fn record_variant(&self, rec: &mut Recorder, variant: Variant, operands: [Operand; 3], bias: Option<Tensor>) {
        let [a, mut b, c] = operands;
        if self.copies_b(variant) {
            b = self.transposed_b(rec, b).into();
        }
        self.record_ready(rec, variant, [a, b, c], bias);
    }

    /// b [batch, n, k] as [batch, k, n], rows padded to whole vec4s.
    fn transposed_b(&self, rec: &mut Recorder, b: Operand) -> Tensor {
        let copy = rec.scratch("b transposed", [self.batch, self.k, self.n.next_multiple_of(4)]);
        let step = rec.step(&MATMUL_ROWS4, "transpose_b").bind("b", b.tensor).bind("partial", copy);
        let operands = [b, b, copy.into()];
        let step = self.params(step, operands, self.k * self.n, false, 1);
        step.dispatch([self.n.div_ceil(32), self.k.div_ceil(16), self.batch]);
        copy
    }

    /// Chooses a variant for many products of this size with the matrices of one b [matrices, n, k], and copies these, if that
    /// is what it reads, once.
    pub(crate) fn prepare(&self, rec: &mut Recorder, b: Tensor, matrices: usize) -> Prepared {
        let variant = self.variant(rec, [Operand::from(b); 3], false);
        let copies = self.copies_b(variant);
        let all = Product { batch: matrices, ..*self };
        let b = if copies { all.transposed_b(rec, b.into()) } else { b };
        let columns = if copies { self.n.next_multiple_of(4) } else { self.n };
        Prepared { variant, b, stride: self.k * columns }
    }

    /// A product with the matrices of b from `first` on.
    pub(crate) fn record_prepared(
        &self,
        rec: &mut Recorder,
        a: Operand,
        b: &Prepared,
        first: usize,
        c: impl Into<Operand>,
    ) {
        let matrices = Operand { tensor: b.b, offset: first * b.stride };
        self.record_ready(rec, b.variant, [a, matrices, c.into()], None);
    }

    /// As `record_variant`, with b transposed where the variant wants it so.
    fn record_ready(&self, rec: &mut Recorder, variant: Variant, operands: [Operand; 3], bias: Option<Tensor>) {
        let splits = if variant == Variant::TILES_SPLIT { self.splits() } else { self.parts() };
        if splits == 1 {
            return self.dispatch(rec, variant, operands, bias, 1);
        }
        let [a, b, _] = operands;
        let partial = rec.scratch("partial products", [self.batch, splits, self.m, self.n]);
        let plain = Product { scale: 1.0, accumulate: false, ..*self };
        plain.dispatch(rec, variant, [a, b, partial.into()], None, splits);
        self.sum_splits(rec, operands, partial, bias, splits);
    }

    /// A workgroup for every tile of c.
    fn dispatch(
        &self,
        rec: &mut Recorder,
        variant: Variant,
        operands: [Operand; 3],
        bias: Option<Tensor>,
        splits: usize,
    ) {
        let [a, b, c] = operands;
        let kernel = self.kernel(variant, a.offset);
        let groups = [self.n.div_ceil(kernel.tile[1]), self.m.div_ceil(kernel.tile[0]), self.batch * splits];
        let step = rec.step(kernel.module, kernel.entry).bind(kernel.a, a.tensor).bind("b", b.tensor);
        let mut step = step.bind(kernel.c, c.tensor);
        if kernel.entry != "nn_ragged" {
            step = step.bind_or_absent("bias", bias);
        }
        let flops = 2.0 * [self.batch, self.m, self.n, self.k].map(|size| size as f64).iter().product::<f64>();
        self.params(step, operands, kernel.b_stride, bias.is_some(), splits).flops(flops).dispatch(groups);
    }

    fn sum_splits(
        &self,
        rec: &mut Recorder,
        operands: [Operand; 3],
        partial: Tensor,
        bias: Option<Tensor>,
        splits: usize,
    ) {
        let c = operands[2];
        let count = (self.m * self.n).div_ceil(64);
        let step = rec.step(&MATMUL_TILES, "sum_splits").bind("c", c.tensor).bind("partial", partial);
        let step = step.bind_or_absent("bias", bias);
        let step = self.params(step, operands, self.k * self.n, bias.is_some(), splits);
        step.dispatch([count.min(1024), count.div_ceil(1024), self.batch]);
    }

    fn params<'r>(
        &self,
        step: crate::StepBuilder<'r>,
        [a, b, c]: [Operand; 3],
        b_stride: usize,
        has_bias: bool,
        splits: usize,
    ) -> crate::StepBuilder<'r> {
        step.uint("m", self.m)
            .uint("n", self.n)
            .uint("k", self.k)
            .uint("splits", splits)
            .uint("a_stride", self.m * self.k)
            .uint("b_stride", b_stride)
            .uint("c_stride", self.m * self.n)
            .uint("a_offset", a.offset)
            .uint("b_offset", b.offset)
            .uint("c_offset", c.offset)
            .flag("has_bias", has_bias)
            .flag("accumulate", self.accumulate)
            .float("scale", self.scale)
    }
}

/// y = x W^T + b. Inputs: x [.., in], weight [out, in] and, if given, bias `[out]`; `torch.nn.Linear`.
#[derive(Debug)]
pub struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let (x, weight, bias) = (x[0], x[1], x.get(2).copied());
        let (m, n, k) = (x.rows(), weight.dims()[0], x.last());
        if weight.last() != k {
            let what = format!("a Linear with weight {} takes {} channels, not {k}", weight.shape(), weight.last());
            rec.fail(Error::Shape(what));
        }
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(n);
        let y = rec.scratch("linear", Shape::from(&shape[..]));
        let product = Product { layout: Layout::Nt, batch: 1, m, n, k, scale: 1.0, accumulate: false };
        product.record(rec, x, weight, bias, y);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        let (x, weight) = (pass.x[0], pass.x[1]);
        let (rows, inputs, outputs) = (x.rows(), x.last(), weight.dims()[0]);
        let product = |layout, m, n, k, accumulate| Product { layout, batch: 1, m, n, k, scale: 1.0, accumulate };
        if let Some(slot) = pass.dx[0] {
            product(Layout::Nn, rows, inputs, outputs, slot.accumulate).record(rec, dy, weight, None, slot.grad);
        }
        if let Some(slot) = pass.dx[1] {
            product(Layout::Tn, outputs, inputs, rows, slot.accumulate).record(rec, dy, x, None, slot.grad);
        }
        if let Some(slot) = pass.dx.get(2).copied().flatten() {
            column_sum(rec, dy, [1, rows, outputs], slot.grad, 1.0, slot.accumulate);
        }
    }
}

/// scale a b^T (`Nt`), scale a b (`Nn`) or scale a^T b (`Tn`) for every batch and head, with the shapes of [`Layout`]
/// behind batch and heads.
#[derive(Debug)]
pub struct MatMul {
    /// Which operand is transposed.
    pub layout: Layout,
    /// Factor of the product.
    pub scale: f32,
}

impl MatMul {
    /// Batch, M, N, K.
    fn sizes(&self, a: Tensor, b: Tensor) -> [usize; 4] {
        let (a, b) = (a.dims(), b.dims());
        let (m, k) = if self.layout == Layout::Tn { (a[3], a[2]) } else { (a[2], a[3]) };
        let n = if self.layout == Layout::Nt { b[2] } else { b[3] };
        [a[0] * a[1], m, n, k]
    }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let (a, b) = (x[0], x[1]);
        let [batch, m, n, k] = self.sizes(a, b);
        let inner = if self.layout == Layout::Nt { b.dims()[3] } else { b.dims()[2] };
        if inner != k || a.dims()[..2] != b.dims()[..2] {
            rec.fail(Error::Shape(format!("no {:?} product of {} and {}", self.layout, a.shape(), b.shape())));
        }
        let y = rec.scratch("product", [a.dims()[0], a.dims()[1], m, n]);
        let product = Product { layout: self.layout, batch, m, n, k, scale: self.scale, accumulate: false };
        product.record(rec, a, b, None, y);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        let (a, b) = (pass.x[0], pass.x[1]);
        let [batch, m, n, k] = self.sizes(a, b);
        let product = |layout, [m, n, k]: [usize; 3], accumulate| Product {
            layout,
            batch,
            m,
            n,
            k,
            scale: self.scale,
            accumulate,
        };
        let (to_a, to_b) = match self.layout {
            Layout::Nt => ((Layout::Nn, [m, k, n], dy, b), (Layout::Tn, [n, k, m], dy, a)),
            Layout::Nn => ((Layout::Nt, [m, k, n], dy, b), (Layout::Tn, [k, n, m], a, dy)),
            Layout::Tn => ((Layout::Nt, [k, m, n], b, dy), (Layout::Nn, [k, n, m], a, dy)),
        };
        for (slot, (layout, sizes, left, right)) in pass.dx.iter().zip([to_a, to_b]) {
            if let Some(slot) = slot {
                product(layout, sizes, slot.accumulate).record(rec, left, right, None, slot.grad);
            }
        }
    }
}
