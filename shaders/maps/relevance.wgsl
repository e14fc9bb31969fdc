// Gradient-weighted attention, summed over the queries, in linear time and without a matrix of N x M numbers:
//   y_hm = max(0, s_hm) for every head h < H,  y_Hm = max(0, mean over h of s_hm),  s_hm = sum over d of v_hmd dv_hmd.
// Why this is attention weighted with its gradient: with out_nd = sum over m of A_nm v_md and dout the gradient of out,
//   the gradient of the weights is dA_nm = sum over d of dout_nd v_md, and that of the values dv_md = sum over n of
//   A_nm dout_nd. So sum over n of A_nm dA_nm = sum over d of v_md (sum over n of A_nm dout_nd) = sum over d of v_md dv_md.
//   It holds where dv is the gradient through this attention alone, and where A does not depend on v.
//
// products  one invocation per key of every head; a workgroup holds 64; stores s
// forward   one invocation per key, which goes through the heads; a workgroup holds 64
// Write policy: products and y are stored in full.

#import index

struct Params { heads: u32, keys: u32, channels: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> v: array<f32>;              // [heads, keys, channels]
@group(0) @binding(3) var<storage, read> dv: array<f32>;             // [heads, keys, channels]
@group(0) @binding(4) var<storage, read_write> product: array<f32>;  // [heads, keys]
@group(0) @binding(5) var<storage, read> s: array<f32>;              // [heads, keys] the same, read
@group(0) @binding(6) var<storage, read_write> y: array<f32>;        // [heads + 1, keys]

@compute @workgroup_size(WORKGROUP)
fn products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.heads * params.keys {
        return;
    }
    let at = i * params.channels;
    var sum = 0.0;
    for (var d = 0u; d < params.channels; d++) {
        sum += v[at + d] * dv[at + d];
    }
    product[i] = sum;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let key = flat_index(workgroup, workgroups, WORKGROUP, local);
    if key >= params.keys {
        return;
    }
    var sum = 0.0;
    for (var head = 0u; head < params.heads; head++) {
        let value = s[head * params.keys + key];
        y[head * params.keys + key] = max(0.0, value);
        sum += value;
    }
    y[params.heads * params.keys + key] = max(0.0, sum / f32(params.heads));
}
