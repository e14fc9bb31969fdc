// Where the real tokens of each sample are, for what must not depend on its padding.
//   ranks   rank_n = number of real tokens before token n; the last of a sample's tokens + 1 numbers is how many it has
//   extent  what landmarks are cut over (six numbers, two zeros): origin and length of the smallest box of frames, rows and
//           columns of the grid that holds every real cell, or (params.segments == 1) 0 1 0 1 0 n for n real tokens after
//           the prefix; all lengths are at least 1, so that nobody divides by 0
//   kept    how many segments two sequences are cut into: min(params.landmarks, their real tokens); params.landmarks
//           itself where one of them is a grid, which has always as many (params.segments == 0)
// ranks and extent take one workgroup of 64 per sample, kept one invocation per sample, 64 a workgroup.
// Write policy: all stored, numbers as f32, exact up to 2^24 tokens.

#import index
#import reduce

struct Params {
    batch: u32, tokens: u32, prefix: u32, frames: u32, grid_height: u32, grid_width: u32, landmarks: u32, segments: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> padding: array<f32>;           // [batch, tokens] 1 = padded
@group(0) @binding(3) var<storage, read_write> ranks: array<f32>;       // [batch, tokens + 1]
@group(0) @binding(4) var<storage, read> known: array<f32>;             // [batch, tokens + 1] ranks, read
@group(0) @binding(5) var<storage, read_write> extent: array<f32>;      // [batch, 8]
@group(0) @binding(6) var<storage, read> of_queries: array<f32>;        // [batch, 8]
@group(0) @binding(7) var<storage, read> of_keys: array<f32>;           // [batch, 8]
@group(0) @binding(8) var<storage, read_write> kept: array<f32>;        // [batch]

var<workgroup> counts: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn ranks_of(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let b = workgroup.x;
    let stretch = (params.tokens + WORKGROUP - 1u) / WORKGROUP;
    let begin = min(local * stretch, params.tokens);
    let end = min(begin + stretch, params.tokens);
    var count = 0u;
    for (var n = begin; n < end; n++) {
        count += select(0u, 1u, padding[b * params.tokens + n] == 0.0);
    }
    counts[local] = count;
    workgroupBarrier();
    var rank = 0u;
    for (var i = 0u; i < local; i++) {
        rank += counts[i];
    }
    let at = b * (params.tokens + 1u);
    for (var n = begin; n < end; n++) {
        ranks[at + n] = f32(rank);
        rank += select(0u, 1u, padding[b * params.tokens + n] == 0.0);
    }
    if local == WORKGROUP - 1u {
        ranks[at + params.tokens] = f32(rank);
    }
}

// Origin and length of -first .. last, as both are found by a maximum.
fn store_side(at: u32, first: f32, last: f32) {
    let found = last >= 0.0;
    extent[at] = select(0.0, -first, found);
    extent[at + 1u] = select(1.0, last + first + 1.0, found);
}

@compute @workgroup_size(WORKGROUP)
fn extent_of(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = workgroup.x * (params.tokens + 1u);
    let to = workgroup.x * 8u;
    // Minus the first and the last frame, row and column of a real cell.
    var first = vec3(-1e9);
    var last = vec3(-1.0);
    if params.segments == 0u {
        for (var n = params.prefix + local; n < params.tokens; n += WORKGROUP) {
            if known[at + n + 1u] > known[at + n] {
                let cell = n - params.prefix;
                let row = cell / params.grid_width;
                let place = vec3(
                    f32(row / params.grid_height), f32(row % params.grid_height), f32(cell % params.grid_width),
                );
                first = max(first, -place);
                last = max(last, place);
            }
        }
    }
    let firsts = vec3(largest_of(first.x, local), largest_of(first.y, local), largest_of(first.z, local));
    let lasts = vec3(largest_of(last.x, local), largest_of(last.y, local), largest_of(last.z, local));
    if local > 0u {
        return;
    }
    store_side(to, firsts.x, lasts.x);
    store_side(to + 2u, firsts.y, lasts.y);
    store_side(to + 4u, firsts.z, lasts.z);
    if params.segments == 1u {
        extent[to + 5u] = known[at + params.tokens] - known[at + params.prefix];
    }
    extent[to + 6u] = 0.0;
    extent[to + 7u] = 0.0;
}

@compute @workgroup_size(WORKGROUP)
fn kept_of(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let b = flat_index(workgroup, workgroups, WORKGROUP, local);
    if b >= params.batch {
        return;
    }
    let shorter = min(of_queries[b * 8u + 5u], of_keys[b * 8u + 5u]);
    kept[b] = select(f32(params.landmarks), min(f32(params.landmarks), shorter), params.segments == 1u);
}
