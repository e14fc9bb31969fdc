//! The projection of random features: drawn on the device, learned, or given.

use lara_shaders::PROJECTION;

use super::{AttentionConfig, Context, Projection, SampleScheme};
use crate::ops::quads;
use crate::{Error, Init, Recorder, Redraw, StepBuilder, Tape, Tensor, Variant};

/// A draw on the device of rows from N(0, I). Nothing flows back into it.
#[derive(Clone, Copy, Debug)]
pub struct DrawProjection {
    /// Rows orthogonal in blocks of their length, instead of independent.
    pub orthogonal: bool,
    /// Number of the random stream, from [`Tape::scope_stream`]: the same in training and at evaluation.
    pub stream: u32,
    /// Under the run's seed anew after this many optimizer steps; `None`: always the one of `seed`.
    pub interval: Option<usize>,
    /// Seed of the draw that never changes.
    pub seed: u32,
}

/// A workgroup for each block of rows, or an invocation.
const VARIANTS: [Variant; 2] = [Variant::ORTHOGONALISE, Variant::ORTHOGONALISE_ROWS];

impl DrawProjection {
    fn sizes<'r>(&self, step: StepBuilder<'r>, [heads, rows, dim]: [usize; 3]) -> StepBuilder<'r> {
        step.uint("heads", heads)
            .uint("rows", rows)
            .uint("dim", dim)
            .uint("stream", self.stream as usize)
            .uint("interval", self.interval.unwrap_or(0))
            .uint("seed", self.seed as usize)
    }

    /// Records the draw of a projection of this shape, [heads, rows, dim]. It is drawn once, and anew with the draws that
    /// the interval counts.
    pub fn record(&self, rec: &mut Recorder, shape: [usize; 3]) -> Tensor {
        rec.once(self.interval.map_or(Redraw::Never, Redraw::Every), |rec| self.draw(rec, shape))
    }

    fn draw(&self, rec: &mut Recorder, shape @ [heads, rows, dim]: [usize; 3]) -> Tensor {
        let w = rec.scratch("projection", shape);
        let step = rec.step(&PROJECTION, "gaussian").bind("w", w);
        self.sizes(step, shape).dispatch_items(quads(w.len()));
        if self.orthogonal {
            let key = format!("projection {} {dim}", (heads * rows.div_ceil(dim)).next_power_of_two());
            let variant = rec.choose(&key, &VARIANTS, &|rec, variant| {
                let w = rec.scratch("projection", shape);
                self.orthogonalise(rec, variant, w);
            });
            self.orthogonalise(rec, variant, w);
        }
        w
    }

    fn orthogonalise(&self, rec: &mut Recorder, variant: Variant, w: Tensor) {
        let shape @ [heads, rows, dim] = [0, 1, 2].map(|i| w.dims()[i]);
        let step = rec.step(&PROJECTION, variant.name()).bind("w", w);
        self.sizes(step, shape).dispatch_rows(heads * rows.div_ceil(dim));
    }
}

/// The projection [heads, features, dim] in the paper's units that settings and context ask for. One that is given
/// decides on the number of features.
pub(super) fn projection(tape: &mut Tape<'_>, config: &AttentionConfig, context: &Context, q: Tensor) -> Tensor {
    let (heads, features, dim) = (q.dims()[1], config.features, q.last());
    let shape = [heads, features, dim];
    if let Some(given) = context.projection {
        if matches!(given.dims(), &[h, rows, d] if h == heads && rows > 0 && d == dim) {
            return given;
        }
        let given = given.shape();
        tape.rec.fail(Error::Shape(format!(
            "a projection {given} does not fit {heads} heads of dimension {dim}; it is [{heads}, features, {dim}]"
        )));
        return tape.rec.scratch("no projection", shape);
    }
    if config.projection == Projection::Given {
        tape.rec.fail(Error::Shape(format!(
            "projection = \"given\", but none is given; put one {shape:?} in the context, or draw one with \"iid\" or \
             \"orthogonal\""
        )));
        return tape.rec.scratch("no projection", shape);
    }
    if config.sample_scheme == SampleScheme::Learnable {
        return tape.parameter("projection", shape, Init::OrthogonalRows);
    }
    let interval = match config.sample_scheme {
        SampleScheme::Default if tape.is_training() => Some(config.redraw_interval),
        // Whoever looks at the randomness numbers its draws by the step.
        _ if tape.draws_noise() && !tape.is_training() => Some(1),
        _ => None,
    };
    let draw = DrawProjection {
        orthogonal: config.projection == Projection::Orthogonal,
        stream: tape.scope_stream(),
        interval,
        seed: config.projection_seed,
    };
    draw.record(&mut tape.rec, shape)
}
