// y[b, :] = mean of x[b, n, :] over the tokens n = first .. first + count - 1: mean pooling, or the class token when
// first = 0 and count = 1. dx is dy / count for those tokens and 0 for the others.
// One invocation per element of y (forward) or x (backward); a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { batch: u32, tokens: u32, dim: u32, first: u32, count: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch, tokens, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch, dim]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch, dim]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch, tokens, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.batch * params.dim {
        return;
    }
    let at = ((i / params.dim) * params.tokens + params.first) * params.dim + i % params.dim;
    // In stretches of 256, and parts of 64 stretches: a chain of n additions is off by up to 1.5e-8 n.
    var sum = 0.0;
    var part = 0.0;
    for (var first = 0u; first < params.count; first += 256u) {
        var stretch = 0.0;
        for (var n = first; n < min(first + 256u, params.count); n++) {
            stretch += x[at + n * params.dim];
        }
        part += stretch;
        if first / 256u % 64u == 63u {
            sum += part;
            part = 0.0;
        }
    }
    sum += part;
    y[i] = sum / f32(params.count);
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.batch * params.tokens * params.dim {
        return;
    }
    let token = (i / params.dim) % params.tokens;
    let batch = i / (params.dim * params.tokens);
    var d = 0.0;
    if token >= params.first && token < params.first + params.count {
        d = dy[batch * params.dim + i % params.dim] / f32(params.count);
    }
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
