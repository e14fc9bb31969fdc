// Adaptive gradient clipping (Brock et al. 2021): with w and g a unit's weights and gradient,
//   g = g min(1, factor max(|w|, eps) / max(|g|, 1e-6)).
// One workgroup of 64 per unit, spread over x and y. Bounded by max(|g|, 1e-6) as timm does it. A chain of n additions is off by up
// to 1.5e-8 n: squares are added up in stretches.
// Write policy: updates grads in place.

#import index
#import reduce

const STRETCH = 128u; // squares that an invocation adds up by themselves

struct Params { units: u32, width: u32, factor: f32, eps: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> weights: array<f32>;      // [units, width]
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;  // [units, width]

@compute @workgroup_size(WORKGROUP)
fn clip(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let unit = workgroup.x + workgroup.y * workgroups.x;
    if unit >= params.units {
        return;
    }
    let begin = unit * params.width;
    let end = begin + params.width;
    var squares = vec2(0.0);
    for (var first = begin + local; first < end; first += STRETCH * WORKGROUP) {
        var stretch = vec2(0.0);
        for (var i = first; i < min(first + STRETCH * WORKGROUP, end); i += WORKGROUP) {
            let both = vec2(weights[i], grads[i]);
            stretch += both * both;
        }
        squares += stretch;
    }
    let norms = sqrt(sum_of_two(squares, local));
    let of_weights = norms.x;
    let of_grads = norms.y;
    let largest = params.factor * max(of_weights, params.eps);
    if of_grads < largest {
        return;
    }
    let scale = largest / max(of_grads, 1e-6);
    for (var i = begin + local; i < end; i += WORKGROUP) {
        grads[i] *= scale;
    }
}
