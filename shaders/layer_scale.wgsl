// y[i, c] = gamma[c] x[i, c] (LayerScale: Touvron et al. 2021); dx = gamma dy, dgamma[c] = sum over i of dy[i, c] x[i, c].
// One invocation per element; a workgroup holds 64. `products` stores dy x, whose columns column_sum adds up.
// Write policy: forward and products store y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { len: u32, dim: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, dim]
@group(0) @binding(3) var<storage, read> gamma: array<f32>;    // [dim]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;  // [rows, dim]
@group(0) @binding(5) var<storage, read> dy: array<f32>;       // [rows, dim]
@group(0) @binding(6) var<storage, read_write> dx: array<f32>; // [rows, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        y[i] = gamma[i % params.dim] * x[i];
    }
}

@compute @workgroup_size(WORKGROUP)
fn products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        y[i] = dy[i] * x[i];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        var d = gamma[i % params.dim] * dy[i];
        if params.accumulate == 1u {
            d += dx[i];
        }
        dx[i] = d;
    }
}
