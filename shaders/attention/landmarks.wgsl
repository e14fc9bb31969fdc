// Landmarks by average pooling of tokens, per head. After `prefix` tokens that are left out (a class token), tokens lie on a grid of grid_height x grid_width (row-major); the
// landmarks on rows x columns. Bin i of r along a side of n covers
//   floor(i n / r) .. ceil((i + 1) n / r) - 1   (adaptive average pooling: bins may overlap), or, with params.segments
//   == 1, contiguous segments of g = n div r tokens, the last n - g r of them one token longer (1-D sequences).
// Gradient: dx_n = sum over the bins that hold n of dy / (their size).
// One invocation per up to four neighbouring channels of y (forward) or x (backward); workgroups of 64 in x over the
// landmarks or tokens of one head, batch heads in y.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

struct Params {
    batch: u32, prefix: u32, grid_height: u32, grid_width: u32, rows: u32, columns: u32, dim: u32, segments: u32,
    accumulate: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch heads, prefix + grid_height grid_width, dim]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch heads, rows columns, dim]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch heads, rows columns, dim]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch heads, prefix + grid_height grid_width, dim]

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

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * 64u + local;
    let c = i / chunks;
    let landmarks = params.rows * params.columns;
    if c >= landmarks {
        return;
    }
    let d = (i - c * chunks) * 4u;
    let vertical = bin(c / params.columns, params.rows, params.grid_height);
    let horizontal = bin(c % params.columns, params.columns, params.grid_width);
    let size = f32((vertical.y - vertical.x) * (horizontal.y - horizontal.x));
    let first = workgroup.y * (params.prefix + params.grid_height * params.grid_width) + params.prefix;
    for (var e = d; e < min(d + 4u, params.dim); e++) {
        var sum = 0.0;
        for (var row = vertical.x; row < vertical.y; row++) {
            let begin = first + row * params.grid_width;
            for (var n = begin + horizontal.x; n < begin + horizontal.y; n++) {
                sum += x[n * params.dim + e];
            }
        }
        y[(workgroup.y * landmarks + c) * params.dim + e] = sum / size;
    }
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunks = (params.dim + 3u) / 4u;
    let i = workgroup.x * 64u + local;
    let n = i / chunks;
    let tokens = params.prefix + params.grid_height * params.grid_width;
    if n >= tokens {
        return;
    }
    let d = (i - n * chunks) * 4u;
    let cell = max(n, params.prefix) - params.prefix;
    let row = cell / params.grid_width;
    let rows = bins_of(row, params.rows, params.grid_height);
    let columns = bins_of(cell - row * params.grid_width, params.columns, params.grid_width);
    var total = vec4(0.0);
    for (var r = rows.x; r <= rows.y && n >= params.prefix; r++) {
        let vertical = bin(r, params.rows, params.grid_height);
        for (var c = columns.x; c <= columns.y; c++) {
            let horizontal = bin(c, params.columns, params.grid_width);
            let weight = 1.0 / f32((vertical.y - vertical.x) * (horizontal.y - horizontal.x));
            let at = ((workgroup.y * params.rows + r) * params.columns + c) * params.dim + d;
            total.x += weight * dy[at];
            if d + 1u < params.dim { total.y += weight * dy[at + 1u]; }
            if d + 2u < params.dim { total.z += weight * dy[at + 2u]; }
            if d + 3u < params.dim { total.w += weight * dy[at + 3u]; }
        }
    }
    let at = (workgroup.y * tokens + n) * params.dim + d;
    for (var e = 0u; e < min(params.dim - d, 4u); e++) {
        var value = total[e];
        if params.accumulate == 1u {
            value += dx[at + e];
        }
        dx[at + e] = value;
    }
}
