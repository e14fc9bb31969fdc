// The projection of random features: rows w_s that are standard normal, each on its own or orthogonal to its neighbours
// (Choromanski et al. 2021; spec 1.8). The numbers depend on (seed, stream, draw, element) alone: the draw is the step
// divided by params.interval under the run's seed, or always 0 under params.seed if params.interval is 0.
//
// gaussian       w = independent standard normal numbers. One invocation per four elements, 64 a workgroup
// orthogonalise  rows in blocks of up to dim: Gram and Schmidt, each row twice (once leaves what rounding brought back),
//                then every row as long as an independent Gaussian vector of dim numbers, so that one row alone is
//                distributed as before. One workgroup of 64 per head and block, rows one after the other in storage
//                memory, which holds any dim; products with earlier rows in portions of 256.
// orthogonalise_rows  the same by one invocation per head and block, 8 a workgroup: for CPU-like adapters, where every
//                barrier costs more than the arithmetic between two.
// Write policy: gaussian stores w; the other two rewrite w in place.

#import header
#import index
#import philox
#import reduce

struct Params { heads: u32, rows: u32, dim: u32, stream: u32, interval: u32, seed: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> w: array<f32>; // [heads, rows, dim]

const PORTION = 256u;

var<workgroup> products: array<f32, 256>;

// Four standard normal numbers; part 0 holds the directions, part 1 the lengths.
fn four_normals(i: u32, part: u32) -> vec4<f32> {
    var key = vec2(params.seed, 0u);
    var draw = 0u;
    if params.interval > 0u {
        key = vec2(header.seed_low, header.seed_high);
        draw = header.step / params.interval;
    }
    let bits = philox(vec4(i, part, draw, params.stream), key);
    return vec4(normal_pair(bits.xy), normal_pair(bits.zw));
}

@compute @workgroup_size(WORKGROUP)
fn gaussian(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let len = params.heads * params.rows * params.dim;
    if 4u * i >= len {
        return;
    }
    let four = four_normals(i, 0u);
    for (var j = 0u; j < min(4u, len - 4u * i); j++) {
        w[4u * i + j] = four[j];
    }
}

// Takes from the row at `at` its components along the `count` orthonormal rows from `first` on.
fn remove(at: u32, first: u32, count: u32, local: u32) {
    for (var begin = 0u; begin < count; begin += PORTION) {
        let end = min(begin + PORTION, count);
        for (var r = begin + local; r < end; r += WORKGROUP) {
            var product = 0.0;
            for (var c = 0u; c < params.dim; c++) {
                product += w[first + r * params.dim + c] * w[at + c];
            }
            products[r - begin] = product;
        }
        workgroupBarrier();
        for (var c = local; c < params.dim; c += WORKGROUP) {
            var value = w[at + c];
            for (var r = begin; r < end; r++) {
                value -= products[r - begin] * w[first + r * params.dim + c];
            }
            w[at + c] = value;
        }
        storageBarrier();
        workgroupBarrier();
    }
}

// The row at `at` becomes as long as 1, or as a Gaussian vector that belongs to it.
fn set_length(at: u32, row: u32, drawn: bool, local: u32) {
    var squares = vec2(0.0);
    for (var c = local; c < params.dim; c += WORKGROUP) {
        squares.x += w[at + c] * w[at + c];
    }
    let quads = (params.dim + 3u) / 4u;
    for (var i = local; i < quads; i += WORKGROUP) {
        // Rows start at whole fours of the counter, whatever dim is.
        var four = four_normals(row * quads + i, 1u);
        let count = vec4<u32>(params.dim - 4u * i);
        four = select(vec4(0.0), four, vec4(0u, 1u, 2u, 3u) < count);
        squares.y += dot(four, four);
    }
    let sum = sum_of_two(squares, local);
    var factor = inverseSqrt(max(sum.x, 1e-30));
    if drawn {
        factor *= sqrt(sum.y);
    }
    for (var c = local; c < params.dim; c += WORKGROUP) {
        w[at + c] *= factor;
    }
    storageBarrier();
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn orthogonalise(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (params.rows + params.dim - 1u) / params.dim;
    let block = workgroup.x + workgroup.y * workgroups.x;
    if block >= params.heads * blocks {
        return;
    }
    let begin = (block % blocks) * params.dim;
    let count = min(params.dim, params.rows - begin);
    let row = (block / blocks) * params.rows + begin;
    let first = row * params.dim;
    for (var r = 0u; r < count; r++) {
        let at = first + r * params.dim;
        remove(at, first, r, local);
        remove(at, first, r, local);
        set_length(at, row + r, false, local);
    }
    // Lengths come last: all products above are with rows of length 1.
    for (var r = 0u; r < count; r++) {
        set_length(first + r * params.dim, row + r, true, local);
    }
}

fn squared_length(at: u32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < params.dim; c++) {
        sum += w[at + c] * w[at + c];
    }
    return sum;
}

fn drawn_squared_length(row: u32) -> f32 {
    let quads = (params.dim + 3u) / 4u;
    var sum = 0.0;
    for (var i = 0u; i < quads; i++) {
        let count = vec4<u32>(params.dim - 4u * i);
        let four = select(vec4(0.0), four_normals(row * quads + i, 1u), vec4(0u, 1u, 2u, 3u) < count);
        sum += dot(four, four);
    }
    return sum;
}

fn stretch(at: u32, factor: f32) {
    for (var c = 0u; c < params.dim; c++) {
        w[at + c] *= factor;
    }
}

@compute @workgroup_size(VECTOR)
fn orthogonalise_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (params.rows + params.dim - 1u) / params.dim;
    let block = flat_index(workgroup, workgroups, VECTOR, local);
    if block >= params.heads * blocks {
        return;
    }
    let begin = (block % blocks) * params.dim;
    let count = min(params.dim, params.rows - begin);
    let row = (block / blocks) * params.rows + begin;
    let first = row * params.dim;
    for (var r = 0u; r < count; r++) {
        let at = first + r * params.dim;
        for (var step = 0u; step < 2u * r; step++) {
            let other = first + (step % r) * params.dim;
            var product = 0.0;
            for (var c = 0u; c < params.dim; c++) {
                product += w[other + c] * w[at + c];
            }
            for (var c = 0u; c < params.dim; c++) {
                w[at + c] -= product * w[other + c];
            }
        }
        stretch(at, inverseSqrt(max(squared_length(at), 1e-30)));
    }
    for (var r = 0u; r < count; r++) {
        stretch(first + r * params.dim, sqrt(drawn_squared_length(row + r)));
    }
}
