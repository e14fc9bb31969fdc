// Landmarks by average pooling of tokens, per head. After `prefix` tokens that are left out (a class token), tokens lie on
// frames x grid_height x grid_width (row-major), the landmarks on depth x rows x columns. Bin i of r along a side of n covers
//   floor(i n / r) .. ceil((i + 1) n / r) - 1   (adaptive average pooling: bins may overlap), or, with params.segments
//   == 1, contiguous segments of g = n div r tokens, the last n - g r of them one token longer (1-D sequences).
// HAS_PADDING: as if the padded tokens were not there. Bins are cut over the box of a sample's real cells, of which a bin
//   averages those that are real; segments over its real tokens, into as many as `kept` says. A bin without a real cell and
//   a segment beyond those kept give zeros, and `missing` says which they are.
// Gradient: dx_n = sum over the bins that hold n of dy / (their size).
// One invocation per up to four neighbouring channels of y (forward) or x (backward); workgroups of 64 in x over the
// landmarks or tokens of one head, batch heads in y. missing: one invocation per landmark, samples in y.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1; missing stores, or keeps
// what is missing already when params.accumulate == 1.

// Variant: HAS_PADDING=1

#import index

override HAS_PADDING: bool = false;

const STRETCH: u32 = 128u;  // tokens that are added up by themselves
const STRETCHES: u32 = 64u; // of a part

struct Params {
    batch: u32, heads: u32, prefix: u32, frames: u32, grid_height: u32, grid_width: u32, depth: u32, rows: u32,
    columns: u32, dim: u32, segments: u32, accumulate: u32, copies: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch heads, prefix + tokens, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch heads, depth rows columns, dim]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch heads, depth rows columns, dim]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch heads, prefix + tokens, dim]
@group(0) @binding(6) var<storage, read> ranks: array<f32>;    // [batch, prefix + tokens + 1] real tokens before each
@group(0) @binding(7) var<storage, read> extent: array<f32>;   // [batch, 8] origin and length of three sides
@group(0) @binding(8) var<storage, read> kept: array<f32>;     // [batch] segments
@group(0) @binding(9) var<storage, read_write> lost: array<f32>; // [batch, copies, landmarks] 1 = missing

// First token of bin i of r along a side of n, and the token after its last.
fn bin(i: u32, r: u32, n: u32) -> vec2<u32> {
    if params.segments == 1u {
        let g = n / r;
        let long_from = (g + 1u) * r - n;
        let begin = i * g + max(i, long_from) - long_from;
        return vec2(begin, begin + g + select(0u, 1u, i >= long_from));
    }
    return vec2(i * n / r, ((i + 1u) * n + r - 1u) / r);
}

// The bins that hold place `x`, first and last. Integers below: x < ceil(y) is x < y, and floor(y) <= x is y < x + 1.
fn bins_of(x: u32, r: u32, n: u32) -> vec2<u32> {
    if params.segments == 1u {
        let g = n / r;
        let long_from = (g + 1u) * r - n;
        let short = long_from * g;
        let i = select(x / max(g, 1u), long_from + (max(x, short) - short) / (g + 1u), x >= short);
        return vec2(i);
    }
    return vec2(x * r / n, ((x + 1u) * r + n - 1u) / n - 1u);
}

// What the landmarks of matrix z are cut over: origin and length of frames, rows and columns. The columns of segments are
// real tokens, counted from the first after the prefix.
struct Extent { origin: vec3<u32>, len: vec3<u32> }

fn extent_of(z: u32) -> Extent {
    if HAS_PADDING {
        let at = z / params.heads * 8u;
        return Extent(
            vec3(u32(extent[at]), u32(extent[at + 2u]), u32(extent[at + 4u])),
            vec3(u32(extent[at + 1u]), u32(extent[at + 3u]), u32(extent[at + 5u])),
        );
    }
    return Extent(vec3(0u), vec3(params.frames, params.grid_height, params.grid_width));
}

// Landmarks side by side in a row: of a sequence as many as it is cut into.
fn columns_of(z: u32) -> u32 {
    if HAS_PADDING && params.segments == 1u {
        return u32(kept[z / params.heads]);
    }
    return params.columns;
}

// The tokens of a landmark: half-open ranges along the three sides.
struct Box { depth: vec2<u32>, rows: vec2<u32>, columns: vec2<u32> }

fn box_of(z: u32, c: u32) -> Box {
    let plane = params.rows * params.columns;
    let whole = extent_of(z);
    let count = columns_of(z);
    if HAS_PADDING && c % params.columns >= count {
        return Box(vec2(0u), vec2(0u), vec2(0u));
    }
    return Box(
        whole.origin.x + bin(c / plane, params.depth, whole.len.x),
        whole.origin.y + bin(c % plane / params.columns, params.rows, whole.len.y),
        whole.origin.z + bin(c % params.columns, count, whole.len.z),
    );
}

fn tokens() -> u32 {
    return params.prefix + params.frames * params.grid_height * params.grid_width;
}

// First token of a line of the grid.
fn line(frame: u32, row: u32) -> u32 {
    return params.prefix + (frame * params.grid_height + row) * params.grid_width;
}

fn rank(z: u32, n: u32) -> u32 {
    return u32(ranks[z / params.heads * (tokens() + 1u) + n]);
}

fn is_real(z: u32, n: u32) -> bool {
    return rank(z, n + 1u) > rank(z, n);
}

// The token of a rank: the last one with no more than so many before it.
fn token_of(z: u32, wanted: u32) -> u32 {
    var low = 0u;
    var high = tokens();
    while low + 1u < high {
        let middle = (low + high) / 2u;
        if rank(z, middle) <= wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// How many tokens a landmark averages.
fn count_of(z: u32, box: Box) -> u32 {
    let lines = (box.depth.y - box.depth.x) * (box.rows.y - box.rows.x);
    if !HAS_PADDING || params.segments == 1u {
        return lines * (box.columns.y - box.columns.x);
    }
    var count = 0u;
    for (var frame = box.depth.x; frame < box.depth.y; frame++) {
        for (var row = box.rows.x; row < box.rows.y; row++) {
            let begin = line(frame, row);
            count += rank(z, begin + box.columns.y) - rank(z, begin + box.columns.x);
        }
    }
    return count;
}

fn size_of(z: u32, box: Box) -> f32 {
    return f32(max(count_of(z, box), 1u));
}

// The tokens of a box in order: the first one, and how many there are to go through. Those of a padded sequence, whose columns are
// ranks of real ones, are a range with some padding in it.
struct Walk { box: Box, len: u32 }

fn walk_of(z: u32, box: Box) -> Walk {
    if HAS_PADDING && params.segments == 1u {
        let before = rank(z, params.prefix);
        if box.columns.x >= box.columns.y {
            return Walk(box, 0u);
        }
        let first = token_of(z, before + box.columns.x) - params.prefix;
        let end = token_of(z, before + box.columns.y - 1u) + 1u - params.prefix;
        return Walk(Box(vec2(0u, 1u), vec2(0u, 1u), vec2(first, end)), end - first);
    }
    return Walk(box, (box.depth.y - box.depth.x) * (box.rows.y - box.rows.x) * (box.columns.y - box.columns.x));
}

// Up to four channels of the sum over the real tokens of a box, from channel d on. In stretches, and these in parts: a chain of n
// additions is off by up to 1.5e-8 n. One loop for frames, rows and columns, because most boxes are small: loops in loops cost
// more than what is in them.
fn sum_of(z: u32, box: Box, d: u32) -> vec4<f32> {
    let walk = walk_of(z, box);
    let channels = min(vec4(d) + vec4(0u, 1u, 2u, 3u), vec4(params.dim - 1u));
    var place = vec3(walk.box.depth.x, walk.box.rows.x, walk.box.columns.x);
    var sum = vec4(0.0);
    var part = vec4(0.0);
    for (var first = 0u; first < walk.len; first += STRETCH) {
        var stretch = vec4(0.0);
        for (var i = first; i < min(first + STRETCH, walk.len); i++) {
            let n = line(place.x, place.y) + place.z;
            let at = (z * tokens() + n) * params.dim + channels;
            let value = vec4(x[at.x], x[at.y], x[at.z], x[at.w]);
            if HAS_PADDING {
                stretch += select(vec4(0.0), value, is_real(z, n));
            } else {
                stretch += value;
            }
            let at_end = place.z + 1u == walk.box.columns.y;
            let at_last = at_end && place.y + 1u == walk.box.rows.y;
            place.z = select(place.z + 1u, walk.box.columns.x, at_end);
            place.y = select(place.y + select(0u, 1u, at_end), walk.box.rows.x, at_last);
            place.x += select(0u, 1u, at_last);
        }
        part += stretch;
        if (first / STRETCH + 1u) % STRETCHES == 0u {
            sum += part;
            part = vec4(0.0);
        }
    }
    return sum + part;
}

@compute @workgroup_size(WORKGROUP)
fn missing(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WORKGROUP + local;
    let landmarks = params.depth * params.rows * params.columns;
    if c >= landmarks {
        return;
    }
    let z = workgroup.y * params.heads;
    let is_missing = select(0.0, 1.0, count_of(z, box_of(z, c)) == 0u);
    for (var copy = 0u; copy < params.copies; copy++) {
        let at = (workgroup.y * params.copies + copy) * landmarks + c;
        lost[at] = select(is_missing, max(is_missing, lost[at]), params.accumulate == 1u);
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * WORKGROUP + local;
    let c = i / chunks;
    let landmarks = params.depth * params.rows * params.columns;
    if c >= landmarks {
        return;
    }
    let d = (i - c * chunks) * 4u;
    let box = box_of(workgroup.y, c);
    let size = size_of(workgroup.y, box);
    let mean = sum_of(workgroup.y, box, d) / size;
    for (var e = 0u; e < min(params.dim - d, 4u); e++) {
        y[(workgroup.y * landmarks + c) * params.dim + d + e] = mean[e];
    }
}

// Up to four channels of dy of a landmark.
fn gradient(at: u32, d: u32) -> vec4<f32> {
    var g = vec4(dy[at], 0.0, 0.0, 0.0);
    if d + 1u < params.dim { g.y = dy[at + 1u]; }
    if d + 2u < params.dim { g.z = dy[at + 2u]; }
    if d + 3u < params.dim { g.w = dy[at + 3u]; }
    return g;
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * WORKGROUP + local;
    let n = i / chunks;
    if n >= tokens() {
        return;
    }
    let z = workgroup.y;
    let d = (i - n * chunks) * 4u;
    let whole = extent_of(z);
    let count = columns_of(z);
    let cell = max(n, params.prefix) - params.prefix;
    let row = cell / params.grid_width;
    var place = vec3(row / params.grid_height, row % params.grid_height, cell - row * params.grid_width);
    var counts = n >= params.prefix;
    if HAS_PADDING {
        if params.segments == 1u {
            place.z = rank(z, n) - min(rank(z, params.prefix), rank(z, n));
        }
        // A token that counts lies within the extent, which is then not empty.
        counts = counts && is_real(z, n) && count > 0u;
        place -= min(place, whole.origin);
    }
    let depth = bins_of(place.x, params.depth, whole.len.x);
    let rows = bins_of(place.y, params.rows, whole.len.y);
    let columns = bins_of(place.z, max(count, 1u), max(whole.len.z, 1u));
    var total = vec4(0.0);
    for (var f = depth.x; f <= depth.y && counts; f++) {
        for (var r = rows.x; r <= rows.y; r++) {
            for (var c = columns.x; c <= columns.y; c++) {
                let landmark = (f * params.rows + r) * params.columns + c;
                let landmarks = params.depth * params.rows * params.columns;
                let at = (z * landmarks + landmark) * params.dim + d;
                total += gradient(at, d) / size_of(z, box_of(z, landmark));
            }
        }
    }
    let at = (z * tokens() + n) * params.dim + d;
    for (var e = 0u; e < min(params.dim - d, 4u); e++) {
        var value = total[e];
        if params.accumulate == 1u {
            value += dx[at + e];
        }
        dx[at + e] = value;
    }
}
