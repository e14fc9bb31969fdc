// Landmarks by average pooling of tokens, per head. After `prefix` tokens that are left out (a class token), tokens lie on a grid of grid_height x grid_width (row-major); the
// landmarks on rows x columns. Bin i of r along a side of n covers
//   floor(i n / r) .. ceil((i + 1) n / r) - 1   (adaptive average pooling: bins may overlap), or, with params.segments
//   == 1, contiguous segments of g = n div r tokens, the last n - g r of them one token longer (1-D sequences).
// Gradient: dx_n = sum over the bins that hold n of dy / (their size).
// One invocation per element of y (forward) or x (backward); a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

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

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    let landmarks = params.rows * params.columns;
    if i >= params.batch * landmarks * params.dim {
        return;
    }
    let d = i % params.dim;
    let c = (i / params.dim) % landmarks;
    let z = i / (params.dim * landmarks);
    let vertical = bin(c / params.columns, params.rows, params.grid_height);
    let horizontal = bin(c % params.columns, params.columns, params.grid_width);
    let first = z * (params.prefix + params.grid_height * params.grid_width) + params.prefix;
    var sum = 0.0;
    for (var row = vertical.x; row < vertical.y; row++) {
        for (var column = horizontal.x; column < horizontal.y; column++) {
            sum += x[(first + row * params.grid_width + column) * params.dim + d];
        }
    }
    y[i] = sum / f32((vertical.y - vertical.x) * (horizontal.y - horizontal.x));
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    let tokens = params.prefix + params.grid_height * params.grid_width;
    if i >= params.batch * tokens * params.dim {
        return;
    }
    let d = i % params.dim;
    let n = (i / params.dim) % tokens;
    let z = i / (params.dim * tokens);
    let cell = max(n, params.prefix) - params.prefix;
    let row = cell / params.grid_width;
    let column = cell % params.grid_width;
    var total = 0.0;
    for (var r = 0u; r < params.rows && n >= params.prefix; r++) {
        let vertical = bin(r, params.rows, params.grid_height);
        if row < vertical.x || row >= vertical.y {
            continue;
        }
        for (var c = 0u; c < params.columns; c++) {
            let horizontal = bin(c, params.columns, params.grid_width);
            if column >= horizontal.x && column < horizontal.y {
                let size = f32((vertical.y - vertical.x) * (horizontal.y - horizontal.x));
                total += dy[((z * params.rows + r) * params.columns + c) * params.dim + d] / size;
            }
        }
    }
    if params.accumulate == 1u {
        total += dx[i];
    }
    dx[i] = total;
}
