// y[i, c] = silu(a) b with a = x[i, c], b = x[i, width + c] and silu(a) = a s, s = 1 / (1 + exp(-a)) (SwiGLU: Shazeer 2020);
// da = dy b (s + a s (1 - s)), db = dy a s.
// One invocation per element of y; a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { len: u32, width: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, 2 width]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [rows, width]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [rows, width]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [rows, 2 width]

// No exponent is positive, so nothing overflows.
fn sigmoid(a: f32) -> f32 {
    let e = exp(-abs(a));
    return select(e, 1.0, a >= 0.0) / (1.0 + e);
}

// The gate of an element of y; its value lies `width` further on.
fn gate_of(i: u32) -> u32 {
    return (i / params.width) * 2u * params.width + i % params.width;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        let at = gate_of(i);
        y[i] = x[at] * sigmoid(x[at]) * x[at + params.width];
    }
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
    let at = gate_of(i);
    let gate = x[at];
    let s = sigmoid(gate);
    var d = vec2(dy[i] * x[at + params.width] * s * (1.0 + gate * (1.0 - s)), dy[i] * gate * s);
    if params.accumulate == 1u {
        d += vec2(dx[at], dx[at + params.width]);
    }
    dx[at] = d.x;
    dx[at + params.width] = d.y;
}
