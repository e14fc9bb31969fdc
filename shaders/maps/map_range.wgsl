// Smallest and largest of x_skip .. x_(cols - 1) in every row: the ends of a colour scale without the class token.
// forward       one workgroup of 64 per row (GPUs); rows are spread over workgroups in x and y
// forward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers)
// Numbers are compared as integers of the same order, for WGSL may assume that no float is infinite.
// Write policy: range is stored.

#import index
#import reduce

struct Params { rows: u32, cols: u32, skip: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;           // [rows, cols] bits of f32
@group(0) @binding(3) var<storage, read_write> range: array<u32>; // [rows, 2] smallest and largest, bits of f32

// Bits of floats as integers that are ordered like the floats, and back.
fn ordered(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn restored(key: u32) -> u32 {
    return select(~key, key & 0x7fffffffu, key >= 0x80000000u);
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    var low = ordered(x[at + params.skip]);
    var high = low;
    for (var i = params.skip + local; i < params.cols; i += WORKGROUP) {
        let key = ordered(x[at + i]);
        low = min(low, key);
        high = max(high, key);
    }
    // The smallest key is the largest of the inverted ones.
    let ends = largest_of_two(vec2(~low, high), local);
    if local == 0u {
        range[row * 2u] = restored(~ends.x);
        range[row * 2u + 1u] = restored(ends.y);
    }
}

@compute @workgroup_size(VECTOR)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, VECTOR, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    var low = ordered(x[at + params.skip]);
    var high = low;
    for (var i = params.skip; i < params.cols; i++) {
        let key = ordered(x[at + i]);
        low = min(low, key);
        high = max(high, key);
    }
    range[row * 2u] = restored(low);
    range[row * 2u + 1u] = restored(high);
}
