// Splits packed projections into heads and joins heads again. With `parts` = 3 for packed queries, keys and values:
//   split: y[b, h, n, d] = x[b, n, part, h, d]        join: x[b, n, part, h, d] = y[b, h, n, d]
// Each is the other's gradient. One invocation per element of y; a workgroup holds 64.
// Write policy: stores, or adds when params.accumulate == 1; params.zero == 1 joins zeros (a part without gradient).

#import index

struct Params { batch: u32, tokens: u32, heads: u32, dim: u32, parts: u32, part: u32, zero: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> packed: array<f32>;           // [batch, tokens, parts, heads, dim]
@group(0) @binding(3) var<storage, read> heads: array<f32>;            // [batch, heads, tokens, dim]
@group(0) @binding(4) var<storage, read_write> to_packed: array<f32>;  // [batch, tokens, parts, heads, dim]
@group(0) @binding(5) var<storage, read_write> to_heads: array<f32>;   // [batch, heads, tokens, dim]

fn packed_index(i: u32) -> u32 {
    let d = i % params.dim;
    let n = (i / params.dim) % params.tokens;
    let h = (i / (params.dim * params.tokens)) % params.heads;
    let b = i / (params.dim * params.tokens * params.heads);
    return (((b * params.tokens + n) * params.parts + params.part) * params.heads + h) * params.dim + d;
}

@compute @workgroup_size(64)
fn split(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i >= params.batch * params.heads * params.tokens * params.dim {
        return;
    }
    var value = packed[packed_index(i)];
    if params.accumulate == 1u {
        value += to_heads[i];
    }
    to_heads[i] = value;
}

@compute @workgroup_size(64)
fn join(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i >= params.batch * params.heads * params.tokens * params.dim {
        return;
    }
    let at = packed_index(i);
    var value = 0.0;
    if params.zero == 0u {
        value = heads[i];
    }
    if params.accumulate == 1u {
        value += to_packed[at];
    }
    to_packed[at] = value;
}
