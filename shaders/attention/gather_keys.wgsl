// mu_ns = q_n + k_index(n,s): the component of the mixture that sample s of query n was drawn from (paper section 3).
//   dq_n = sum_s dmu_ns,  dk_m = sum of dmu_ns over all (n, s) that drew key m
// An index beyond the keys is taken as the last key, one below 0 as the first.
// forward        one invocation per up to four neighbouring channels of mu
// backward_q     the same of q
// backward_k     the same of k: it looks for its key among the head's indices, so that no two invocations add to one
//                place
// A workgroup holds 64.
// Write policy: forward stores mu; backward stores dq and dk, or adds to them when params.accumulate == 1.

#import index

struct Params { batch: u32, queries: u32, keys: u32, samples: u32, dim: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;        // [batch heads, queries, dim]
@group(0) @binding(3) var<storage, read> k: array<f32>;        // [batch heads, keys, dim]
@group(0) @binding(4) var<storage, read> drawn: array<f32>;    // [batch heads, queries samples]
@group(0) @binding(5) var<storage, read_write> mu: array<f32>; // [batch heads, queries samples, dim]
@group(0) @binding(6) var<storage, read> dmu: array<f32>;      // [batch heads, queries samples, dim]
@group(0) @binding(7) var<storage, read_write> dq: array<f32>; // [batch heads, queries, dim]
@group(0) @binding(8) var<storage, read_write> dk: array<f32>; // [batch heads, keys, dim]

// Row and first channel of invocation i.
fn place(i: u32) -> vec2<u32> {
    let chunks = (params.dim + 3u) / 4u;
    return vec2(i / chunks, i % chunks * 4u);
}

fn key_of(row: u32) -> u32 {
    return min(u32(max(drawn[row], 0.0)), params.keys - 1u);
}

// Up to four channels of a row of dmu from element `at` on, of which `count` exist.
fn dmu_at(at: u32, count: u32) -> vec4<f32> {
    let last = at + count - 1u;
    let values = vec4(dmu[at], dmu[min(at + 1u, last)], dmu[min(at + 2u, last)], dmu[min(at + 3u, last)]);
    return select(vec4(0.0), values, vec4(0u, 1u, 2u, 3u) < vec4(count));
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let here = place(flat_index(workgroup, workgroups, WORKGROUP, local));
    let row = here.x;
    if row >= params.batch * params.queries * params.samples {
        return;
    }
    let query = row / params.samples;
    let key = query / params.queries * params.keys + key_of(row);
    for (var d = here.y; d < min(here.y + 4u, params.dim); d++) {
        mu[row * params.dim + d] = q[query * params.dim + d] + k[key * params.dim + d];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_q(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let here = place(flat_index(workgroup, workgroups, WORKGROUP, local));
    if here.x >= params.batch * params.queries {
        return;
    }
    let count = min(params.dim - here.y, 4u);
    var total = vec4(0.0);
    for (var s = 0u; s < params.samples; s++) {
        total += dmu_at((here.x * params.samples + s) * params.dim + here.y, count);
    }
    for (var e = 0u; e < count; e++) {
        let at = here.x * params.dim + here.y + e;
        var d = total[e];
        if params.accumulate == 1u {
            d += dq[at];
        }
        dq[at] = d;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_k(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let here = place(flat_index(workgroup, workgroups, WORKGROUP, local));
    if here.x >= params.batch * params.keys {
        return;
    }
    let key = here.x % params.keys;
    let count = min(params.dim - here.y, 4u);
    let rows = params.queries * params.samples;
    let first = here.x / params.keys * rows;
    // In stretches of 256, and parts of 64 stretches: a chain of n additions is off by up to 1.5e-8 n, and all rows may have
    // drawn one key.
    var total = vec4(0.0);
    var part = vec4(0.0);
    for (var begin = 0u; begin < rows; begin += 256u) {
        var stretch = vec4(0.0);
        for (var row = first + begin; row < first + min(begin + 256u, rows); row++) {
            if key_of(row) == key {
                stretch += dmu_at(row * params.dim + here.y, count);
            }
        }
        part += stretch;
        if begin / 256u % 64u == 63u {
            total += part;
            part = vec4(0.0);
        }
    }
    total += part;
    for (var e = 0u; e < count; e++) {
        let at = here.x * params.dim + here.y + e;
        var d = total[e];
        if params.accumulate == 1u {
            d += dk[at];
        }
        dk[at] = d;
    }
}
