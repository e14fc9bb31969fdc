// One map out of the maps of all heads, entry by entry: y = mean (mode 0), largest (1) or smallest (2) over heads of x.
// One invocation per entry of a map; a workgroup holds 64.
// Write policy: y is stored from params.offset on.

#import index

struct Params { heads: u32, entries: u32, mode: u32, offset: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;       // [heads, entries]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [offset + entries]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.entries {
        return;
    }
    let first = x[i];
    var fused = first;
    var sum = first;
    for (var head = 1u; head < params.heads; head++) {
        let value = x[head * params.entries + i];
        sum += value;
        fused = select(min(fused, value), max(fused, value), params.mode == 1u);
    }
    if params.mode == 0u {
        fused = sum / f32(params.heads);
    }
    y[params.offset + i] = fused;
}
