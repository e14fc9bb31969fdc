//! Adaptive gradient clipping (Brock, De, Smith and Simonyan 2021), unit by unit.

use lara_shaders::AGC;

use crate::{Entry, Parameters, Place, Recorder, Role};

/// Smallest norm of a unit's weights that counts: without it a unit of zeros could never learn.
const EPS: f32 = 1e-3;

/// Records the clipping of all gradients in place: a unit (a row of a matrix, the weights of one output; all of a vector)
/// whose gradient is longer than `factor` times its weights is scaled down to that. Parameters whose names begin with
/// `except` are left as they are.
pub fn agc(rec: &mut Recorder, parameters: &Parameters, factor: f32, except: &str) {
    let is_clipped = |entry: &Entry| entry.is_trained() && !entry.name.starts_with(except);
    for (index, entry) in parameters.entries().iter().enumerate().filter(|(_, entry)| is_clipped(entry)) {
        let (shape, dims) = (entry.shape, entry.shape.dims());
        let units = if dims.len() > 1 { dims[0] } else { 1 };
        let mut of = |label: &str, role| rec.tensor(label, shape, Place::Parameter { index, role });
        let weights = of("weights", Role::Weight);
        let grads = of("gradients", Role::Grad);
        rec.step(&AGC, "clip")
            .bind("weights", weights)
            .bind("grads", grads)
            .uint("units", units)
            .uint("width", shape.len() / units)
            .float("factor", factor)
            .float("eps", EPS)
            .dispatch_groups(units);
    }
}
