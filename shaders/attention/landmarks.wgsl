// Landmarks by average pooling of tokens, per head. After `prefix` tokens that are left out (a class token), tokens lie on
// frames x grid_height x grid_width (row-major), the landmarks on depth x rows x columns. Bin i of r along a side of n covers
//   floor(i n / r) .. ceil((i + 1) n / r) - 1   (adaptive average pooling: bins may overlap), or, with params.segments
//   == 1, contiguous segments of g = n div r tokens, the last n - g r of them one token longer (1-D sequences).
// HAS_PADDING: padded tokens are left out of the means; a bin that holds nothing else gives zeros.
// Gradient: dx_n = sum over the bins that hold n of dy / (their size).
// One invocation per up to four neighbouring channels of y (forward) or x (backward); workgroups of 64 in x over the
// landmarks or tokens of one head, batch heads in y.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

// Variant: HAS_PADDING=1

override HAS_PADDING: bool = false;

struct Params {
    batch: u32, heads: u32, prefix: u32, frames: u32, grid_height: u32, grid_width: u32, depth: u32, rows: u32,
    columns: u32, dim: u32, segments: u32, accumulate: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch heads, prefix + tokens, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch heads, depth rows columns, dim]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch heads, depth rows columns, dim]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch heads, prefix + tokens, dim]
@group(0) @binding(6) var<storage, read> padding: array<f32>;  // [batch, prefix + tokens] 1 = padded

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

// The tokens of a landmark: half-open ranges along the three sides.
struct Box { depth: vec2<u32>, rows: vec2<u32>, columns: vec2<u32> }

fn box_of(c: u32) -> Box {
    let plane = params.rows * params.columns;
    return Box(
        bin(c / plane, params.depth, params.frames),
        bin(c % plane / params.columns, params.rows, params.grid_height),
        bin(c % params.columns, params.columns, params.grid_width),
    );
}

fn tokens() -> u32 {
    return params.prefix + params.frames * params.grid_height * params.grid_width;
}

// First token of a line of the grid.
fn line(frame: u32, row: u32) -> u32 {
    return params.prefix + (frame * params.grid_height + row) * params.grid_width;
}

fn is_real(z: u32, n: u32) -> bool {
    return padding[z / params.heads * tokens() + n] == 0.0;
}

// How many tokens a landmark averages.
fn size_of(z: u32, box: Box) -> f32 {
    if !HAS_PADDING {
        let lines = (box.depth.y - box.depth.x) * (box.rows.y - box.rows.x);
        return f32(lines * (box.columns.y - box.columns.x));
    }
    var count = 0u;
    for (var frame = box.depth.x; frame < box.depth.y; frame++) {
        for (var row = box.rows.x; row < box.rows.y; row++) {
            let begin = line(frame, row);
            for (var n = begin + box.columns.x; n < begin + box.columns.y; n++) {
                count += select(0u, 1u, is_real(z, n));
            }
        }
    }
    return f32(max(count, 1u));
}

fn sum_of(z: u32, box: Box, e: u32) -> f32 {
    let first = z * tokens();
    var sum = 0.0;
    for (var frame = box.depth.x; frame < box.depth.y; frame++) {
        for (var row = box.rows.x; row < box.rows.y; row++) {
            let begin = line(frame, row);
            for (var n = begin + box.columns.x; n < begin + box.columns.y; n++) {
                let value = x[(first + n) * params.dim + e];
                if HAS_PADDING {
                    sum += select(0.0, value, is_real(z, n));
                } else {
                    sum += value;
                }
            }
        }
    }
    return sum;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * 64u + local;
    let c = i / chunks;
    let landmarks = params.depth * params.rows * params.columns;
    if c >= landmarks {
        return;
    }
    let d = (i - c * chunks) * 4u;
    let box = box_of(c);
    let size = size_of(workgroup.y, box);
    for (var e = d; e < min(d + 4u, params.dim); e++) {
        y[(workgroup.y * landmarks + c) * params.dim + e] = sum_of(workgroup.y, box, e) / size;
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

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * 64u + local;
    let n = i / chunks;
    if n >= tokens() {
        return;
    }
    let z = workgroup.y;
    let d = (i - n * chunks) * 4u;
    let cell = max(n, params.prefix) - params.prefix;
    let row = cell / params.grid_width;
    let depth = bins_of(row / params.grid_height, params.depth, params.frames);
    let rows = bins_of(row % params.grid_height, params.rows, params.grid_height);
    let columns = bins_of(cell - row * params.grid_width, params.columns, params.grid_width);
    var counts = n >= params.prefix;
    if HAS_PADDING {
        counts = counts && is_real(z, n);
    }
    var total = vec4(0.0);
    for (var f = depth.x; f <= depth.y && counts; f++) {
        for (var r = rows.x; r <= rows.y; r++) {
            for (var c = columns.x; c <= columns.y; c++) {
                let landmark = (f * params.rows + r) * params.columns + c;
                let landmarks = params.depth * params.rows * params.columns;
                let at = (z * landmarks + landmark) * params.dim + d;
                total += gradient(at, d) / size_of(z, box_of(landmark));
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
