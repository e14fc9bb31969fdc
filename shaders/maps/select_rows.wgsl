// dout_hnc = chosen_cn for c < rows, else 0, for every head h: the gradient of an attention output that asks for `rows`
// combinations of rows of the implied attention matrix A, one in each of the first channels. Since out_hnc = sum over m of
// A_hnm v_hmc, the gradient of the values is then dv_hmc = sum over n of chosen_cn A_hnm; collect_rows reads it.
// One invocation per token and channel, which stores its number for every head; a workgroup holds 64.
// Write policy: dout is stored in full.

#import index

struct Params { rows: u32, heads: u32, tokens: u32, channels: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> chosen: array<f32>;     // [rows, tokens]
@group(0) @binding(3) var<storage, read_write> dout: array<f32>; // [heads, tokens, channels]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let count = params.tokens * params.channels;
    if i >= count {
        return;
    }
    let row = i % params.channels;
    var value = 0.0;
    if row < params.rows {
        value = chosen[row * params.tokens + i / params.channels];
    }
    for (var head = 0u; head < params.heads; head++) {
        dout[head * count + i] = value;
    }
}
