// y_n = x_n + t, one token t added to all tokens of its head. The gradients are dx = dy (residual) and dt = sum_n dy_n
// (column_sum).
// One invocation per element; a workgroup holds 64.
// Write policy: forward stores y.

#import index

struct Params { len: u32, tokens: u32, dim: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;       // [batch heads, tokens, dim]
@group(0) @binding(3) var<storage, read> token: array<f32>;   // [batch heads, dim]
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [batch heads, tokens, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.len {
        return;
    }
    let head = i / (params.tokens * params.dim);
    y[i] = x[i] + token[head * params.dim + i % params.dim];
}
