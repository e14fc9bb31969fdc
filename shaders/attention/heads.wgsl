// Splits packed projections into heads and joins heads again. With `parts` = 3 for packed queries, keys and values:
//   split: y[b, h, n, d] = x[b, n, part, h, d]        join: x[b, n, part, h, d] = y[b, h, n, d]
// Each is the other's gradient. One invocation per up to four neighbouring channels; workgroups of 64 in x over the
// tokens of one head, heads in y, batch in z (so that indices need one division).
// `split` and `join` move part `part`, channel by channel; where dim is a multiple of 4, `split4` and `join4` move it by whole
// vec4s, and `split3` and `join3` all of three parts at once.
// Write policy: stores, or adds when params.accumulate == 1; params.zero == 1 joins zeros (a part without gradient; not join3).

#import index

struct Params { batch: u32, tokens: u32, heads: u32, dim: u32, parts: u32, part: u32, zero: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> packed: array<f32>;           // [batch, tokens, parts, heads, dim]
@group(0) @binding(3) var<storage, read> heads: array<f32>;            // [batch, heads, tokens, dim]
@group(0) @binding(4) var<storage, read_write> to_packed: array<f32>;  // [batch, tokens, parts, heads, dim]
@group(0) @binding(5) var<storage, read_write> to_heads: array<f32>;   // [batch, heads, tokens, dim]
@group(0) @binding(6) var<storage, read> packed4: array<vec4<f32>>;           // [batch, tokens, parts, heads, dim]
@group(0) @binding(7) var<storage, read_write> to_packed4: array<vec4<f32>>;  // [batch, tokens, parts, heads, dim]
@group(0) @binding(8) var<storage, read> heads4: array<vec4<f32>>;            // [batch, heads, tokens, dim] the first part
@group(0) @binding(9) var<storage, read> second: array<vec4<f32>>;            // [batch, heads, tokens, dim]
@group(0) @binding(10) var<storage, read> third: array<vec4<f32>>;            // [batch, heads, tokens, dim]
@group(0) @binding(11) var<storage, read_write> to_heads4: array<vec4<f32>>;  // [batch, heads, tokens, dim] the first part
@group(0) @binding(12) var<storage, read_write> to_second: array<vec4<f32>>;  // [batch, heads, tokens, dim]
@group(0) @binding(13) var<storage, read_write> to_third: array<vec4<f32>>;   // [batch, heads, tokens, dim]

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

// The same in vec4s: in packed form, in heads form, and 1, or 0 beyond the end.
fn place4(workgroup: vec3<u32>, local: u32) -> vec3<u32> {
    let at = place(workgroup, local);
    return at / 4u;
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

@compute @workgroup_size(WORKGROUP)
fn split4(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place4(workgroup, local);
    if at.z == 0u {
        return;
    }
    var value = packed4[at.x];
    if params.accumulate == 1u {
        value += to_heads4[at.y];
    }
    to_heads4[at.y] = value;
}

@compute @workgroup_size(WORKGROUP)
fn join4(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place4(workgroup, local);
    if at.z == 0u {
        return;
    }
    var value = vec4(0.0);
    if params.zero == 0u {
        value = heads4[at.y];
    }
    if params.accumulate == 1u {
        value += to_packed4[at.x];
    }
    to_packed4[at.x] = value;
}

@compute @workgroup_size(WORKGROUP)
fn split3(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place4(workgroup, local);
    if at.z == 0u {
        return;
    }
    let stride = params.heads * params.dim / 4u;
    var first_value = packed4[at.x];
    var second_value = packed4[at.x + stride];
    var third_value = packed4[at.x + 2u * stride];
    if params.accumulate == 1u {
        first_value += to_heads4[at.y];
        second_value += to_second[at.y];
        third_value += to_third[at.y];
    }
    to_heads4[at.y] = first_value;
    to_second[at.y] = second_value;
    to_third[at.y] = third_value;
}

@compute @workgroup_size(WORKGROUP)
fn join3(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place4(workgroup, local);
    if at.z == 0u {
        return;
    }
    let stride = params.heads * params.dim / 4u;
    var first_value = heads4[at.y];
    var second_value = second[at.y];
    var third_value = third[at.y];
    if params.accumulate == 1u {
        first_value += to_packed4[at.x];
        second_value += to_packed4[at.x + stride];
        third_value += to_packed4[at.x + 2u * stride];
    }
    to_packed4[at.x] = first_value;
    to_packed4[at.x + stride] = second_value;
    to_packed4[at.x + 2u * stride] = third_value;
}
