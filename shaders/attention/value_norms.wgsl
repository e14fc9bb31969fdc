// y_c = log(|x_c| + 1e-4), what pool-vmixed adds to its logits (spec 1.5); dx = dy x / (|x| (|x| + 1e-4)), 0 where |x| is.
// One invocation per row (forward) or element (backward); a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

const SMALLEST = 1e-4;

struct Params { rows: u32, dim: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [rows]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [rows]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [rows, dim]

fn length_of(row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < params.dim; i++) {
        let value = x[row * params.dim + i];
        sum += value * value;
    }
    return sqrt(sum);
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row < params.rows {
        y[row] = log(length_of(row) + SMALLEST);
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.dim {
        return;
    }
    let norm = length_of(i / params.dim);
    // The unit vector of a zero vector is taken as zero, as autograd does.
    var d = select(0.0, dy[i / params.dim] * x[i] / (max(norm, 1e-30) * (norm + SMALLEST)), norm > 0.0);
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
