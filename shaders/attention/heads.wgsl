// Splits packed projections into heads and joins heads again. With `parts` = 3 for packed queries, keys and values:
//   split: y[b, h, n, d] = x[b, n, part, h, d]        join: x[b, n, part, h, d] = y[b, h, n, d]
// Each is the other's gradient. One invocation per up to four neighbouring channels; workgroups of 64 in x over the
// tokens of one head, heads in y, batch in z (so that indices need one division).
// Write policy: stores, or adds when params.accumulate == 1; params.zero == 1 joins zeros (a part without gradient).

#import index

struct Params { batch: u32, tokens: u32, heads: u32, dim: u32, parts: u32, part: u32, zero: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> packed: array<f32>;           // [batch, tokens, parts, heads, dim]
@group(0) @binding(3) var<storage, read> heads: array<f32>;            // [batch, heads, tokens, dim]
@group(0) @binding(4) var<storage, read_write> to_packed: array<f32>;  // [batch, tokens, parts, heads, dim]
@group(0) @binding(5) var<storage, read_write> to_heads: array<f32>;   // [batch, heads, tokens, dim]

// First element in packed form, first in heads form, and how many channels follow from there (0 beyond the end).
fn place(workgroup: vec3<u32>, local: u32) -> vec3<u32> {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * WORKGROUP + local;
    let n = i / chunks;
    if n >= params.tokens {
        return vec3(0u);
    }
    let d = (i - n * chunks) * 4u;
    let in_packed = ((workgroup.z * params.tokens + n) * params.parts + params.part) * params.heads + workgroup.y;
    let in_heads = (workgroup.z * params.heads + workgroup.y) * params.tokens + n;
    return vec3(in_packed * params.dim + d, in_heads * params.dim + d, min(params.dim - d, 4u));
}

@compute @workgroup_size(WORKGROUP)
fn split(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place(workgroup, local);
    for (var c = 0u; c < at.z; c++) {
        var value = packed[at.x + c];
        if params.accumulate == 1u {
            value += to_heads[at.y + c];
        }
        to_heads[at.y + c] = value;
    }
}

@compute @workgroup_size(WORKGROUP)
fn join(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place(workgroup, local);
    for (var c = 0u; c < at.z; c++) {
        var value = 0.0;
        if params.zero == 0u {
            value = heads[at.y + c];
        }
        if params.accumulate == 1u {
            value += to_packed[at.x + c];
        }
        to_packed[at.x + c] = value;
    }
}
