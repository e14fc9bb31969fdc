// rows_rhm = dv_hmr, the rows of the implied attention matrix that select_rows asked for, out of the gradient of the
// values; and rows_rHm = mean over the H heads of rows_rhm.
// One invocation per row and key, which goes through the heads; a workgroup holds 64.
// Write policy: rows is stored in full.

#import index

struct Params { rows: u32, heads: u32, keys: u32, channels: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> dv: array<f32>;         // [heads, keys, channels]
@group(0) @binding(3) var<storage, read_write> rows: array<f32>; // [rows, heads + 1, keys]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.keys {
        return;
    }
    let row = i / params.keys;
    let key = i % params.keys;
    let at = row * (params.heads + 1u) * params.keys + key;
    var sum = 0.0;
    for (var head = 0u; head < params.heads; head++) {
        let value = dv[(head * params.keys + key) * params.channels + row];
        rows[at + head * params.keys] = value;
        sum += value;
    }
    rows[at + params.heads * params.keys] = sum / f32(params.heads);
}
