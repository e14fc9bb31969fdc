// y_m = -(s / 2) |x_m|^2, the additive key term that turns s w.x into phi(x, w) (spec: random features in log form);
// dx = -s x dy. One invocation per row (forward) or element (backward); a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { rows: u32, dim: u32, scale: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [rows]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [rows]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [rows, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    var sum = 0.0;
    for (var i = 0u; i < params.dim; i++) {
        let value = x[row * params.dim + i];
        sum += value * value;
    }
    y[row] = -0.5 * params.scale * sum;
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
    var d = -params.scale * x[i] * dy[i / params.dim];
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
