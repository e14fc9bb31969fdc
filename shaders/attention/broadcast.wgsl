// y_b = factor x: what the samples of a batch share, given to each; dx = factor sum_b dy_b.
// One invocation per element of y (forward) or of x (backward); a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { batch: u32, len: u32, factor: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [heads, rows, dim], len elements
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch, heads, rows, dim]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch, heads, rows, dim]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [heads, rows, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.batch * params.len {
        return;
    }
    y[i] = params.factor * x[i % params.len];
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.len {
        return;
    }
    // In stretches of 256, and parts of 64 stretches: a chain of n additions is off by up to 1.5e-8 n.
    var sum = 0.0;
    var part = 0.0;
    for (var first = 0u; first < params.batch; first += 256u) {
        var stretch = 0.0;
        for (var b = first; b < min(first + 256u, params.batch); b++) {
            stretch += dy[b * params.len + i];
        }
        part += stretch;
        if first / 256u % 64u == 63u {
            sum += part;
            part = 0.0;
        }
    }
    var d = params.factor * (sum + part);
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
