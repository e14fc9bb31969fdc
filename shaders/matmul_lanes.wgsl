// Batched matrix product for CPU-like adapters with subgroups of 8 (Mesa's lavapipe); matmul_rows4.wgsl is the same without subgroups.
//   C[z](i,j) = scale * sum_k A[z](i,k) B[z](k,j)  (+ bias[j] when has_bias == 1)  (+ old C[z](i,j) when accumulate == 1), z in 0..batch
// `nn`: A [M,K], B [K,N]; N, K, all strides and all offsets multiples of 4.
// `tn`: A [K,M], B [K,N]; M, N, all strides and all offsets multiples of 4 (K may be anything).
// `nn_odd`: as `nn` for any K, a_stride and a_offset, with A read float by float.
// `nn_ragged`: as `nn` for any N and c_offset, with rows of B padded to whole vec4s, no bias, and C stored.
//   An A B^T product runs as matmul_rows4's transpose_b, then `nn` on the copy (b_offset = 0; b_stride = K*N, or 0 when B is shared).
// One workgroup per 32 x 64 tile of C: dispatch [ceil(N/64), ceil(M/32), batch * splits]; a lane owns two quads of columns in all 32 rows. The 8
// invocations have to be one subgroup: the runtime asks the adapter, and nothing depends on this kernel.
// Writes: C is stored, or added to when params.accumulate == 1. Without a bias bind any read-only tensor to `bias`.
// Why this shape: a load costs lavapipe dozens of instructions a float (eight guarded scalar loads), a broadcast one. So every lane loads
// another row of A and gets the others' by broadcast: 21 multiply-adds a loaded float, where rows4 has 8. Two k a trip, because sums
// in memory then cost half as much; with four, or with more rows or columns, the loop outgrows the instruction cache and takes twice as
// long.

#import index
#import matmul
#import sums

@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;       // [batch, M, K/4], tn: [batch, K, M/4]
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;       // [batch, K, N/4]

@group(0) @binding(7) var<storage, read> a_floats: array<f32>;      // [batch, M, K], nn_odd's A
@group(0) @binding(6) var<storage, read_write> c_floats: array<f32>; // [batch, M, N], nn_ragged's C

alias Element = vec4<f32>;

const ROWS: u32 = 4u * VECTOR; // of a tile of C

// Sums are [32 rows][2 quads of columns]. Two quads of columns of B for k and for k + 1.
struct Weights { u0: vec4<f32>, u1: vec4<f32>, v0: vec4<f32>, v1: vec4<f32> }

// x: A(row, k) and A(row, k + 1).
fn add_row(row: u32, x: vec2<f32>, w: Weights) {
    sums[row * 2u] = fma(vec4(x.y), w.v0, fma(vec4(x.x), w.u0, sums[row * 2u]));
    sums[row * 2u + 1u] = fma(vec4(x.y), w.v1, fma(vec4(x.x), w.u1, sums[row * 2u + 1u]));
}

// x: of row first + step * lane in every lane.
fn add_rows(first: u32, step: u32, x: vec2<f32>, w: Weights) {
    add_row(first, subgroupBroadcast(x, 0u), w);
    add_row(first + step, subgroupBroadcast(x, 1u), w);
    add_row(first + 2u * step, subgroupBroadcast(x, 2u), w);
    add_row(first + 3u * step, subgroupBroadcast(x, 3u), w);
    add_row(first + 4u * step, subgroupBroadcast(x, 4u), w);
    add_row(first + 5u * step, subgroupBroadcast(x, 5u), w);
    add_row(first + 6u * step, subgroupBroadcast(x, 6u), w);
    add_row(first + 7u * step, subgroupBroadcast(x, 7u), w);
}

// Rows and columns past the edge repeat the last one, so that no loop below needs a branch; they are not written.
// q0 is the lane's first quad of columns, the second is 8 further.
fn block_nn(part: Part, i0: u32, q0: u32, lane: u32) {
    let last = params.m - 1u;
    let inner = params.k / 4u;
    let quads = (params.n + 3u) / 4u;
    let a_base = (params.a_offset + part.z * params.a_stride) / 4u;
    let a0 = a_base + min(i0 + lane, last) * inner;
    let a1 = a_base + min(i0 + VECTOR + lane, last) * inner;
    let a2 = a_base + min(i0 + 2u * VECTOR + lane, last) * inner;
    let a3 = a_base + min(i0 + 3u * VECTOR + lane, last) * inner;
    let b_base = (params.b_offset + part.z * params.b_stride) / 4u;
    let b0 = b_base + min(q0, quads - 1u);
    let b1 = b_base + min(q0 + VECTOR, quads - 1u);
    for (var four = part.begin / 4u; four < part.end / 4u; four++) {
        var x0 = a[a0 + four];
        var x1 = a[a1 + four];
        var x2 = a[a2 + four];
        var x3 = a[a3 + four];
        // Constant bounds: with others the loop takes twice as long, as if it were unrolled.
        for (var k = 0u; k < 4u; k += 2u) {
            let v = (four * 4u + k) * quads;
            let w = Weights(b[b0 + v], b[b1 + v], b[b0 + v + quads], b[b1 + v + quads]);
            add_rows(0u, 1u, x0.xy, w);
            add_rows(VECTOR, 1u, x1.xy, w);
            add_rows(2u * VECTOR, 1u, x2.xy, w);
            add_rows(3u * VECTOR, 1u, x3.xy, w);
            x0 = x0.zwxy;
            x1 = x1.zwxy;
            x2 = x2.zwxy;
            x3 = x3.zwxy;
        }
    }
}

// Where the number of k is odd, the last one is taken twice, the second time as 0 times itself.
fn pair(at: u32, k: u32, next: u32) -> vec2<f32> {
    return vec2(a_floats[at + k], select(0.0, a_floats[at + next], next > k));
}

fn block_odd(part: Part, i0: u32, q0: u32, lane: u32) {
    let last = params.m - 1u;
    let quads = params.n / 4u;
    let a_base = params.a_offset + part.z * params.a_stride;
    let a0 = a_base + min(i0 + lane, last) * params.k;
    let a1 = a_base + min(i0 + VECTOR + lane, last) * params.k;
    let a2 = a_base + min(i0 + 2u * VECTOR + lane, last) * params.k;
    let a3 = a_base + min(i0 + 3u * VECTOR + lane, last) * params.k;
    let b_base = (params.b_offset + part.z * params.b_stride) / 4u;
    let b0 = b_base + min(q0, quads - 1u);
    let b1 = b_base + min(q0 + VECTOR, quads - 1u);
    for (var k = part.begin; k < part.end; k += 2u) {
        let next = min(k + 1u, part.end - 1u);
        let w = Weights(b[b0 + k * quads], b[b1 + k * quads], b[b0 + next * quads], b[b1 + next * quads]);
        add_rows(0u, 1u, pair(a0, k, next), w);
        add_rows(VECTOR, 1u, pair(a1, k, next), w);
        add_rows(2u * VECTOR, 1u, pair(a2, k, next), w);
        add_rows(3u * VECTOR, 1u, pair(a3, k, next), w);
    }
}

fn block_tn(part: Part, i0: u32, q0: u32, lane: u32) {
    let rows = params.m / 4u;
    let quads = params.n / 4u;
    let a0 = (params.a_offset + part.z * params.a_stride) / 4u + min(i0 / 4u + lane, rows - 1u);
    let b_base = (params.b_offset + part.z * params.b_stride) / 4u;
    let b0 = b_base + min(q0, quads - 1u);
    let b1 = b_base + min(q0 + VECTOR, quads - 1u);
    for (var k = part.begin; k < part.end; k += 2u) {
        // Where the number of k is odd, the last one is taken twice, the second time as 0 times itself.
        let next = min(k + 1u, part.end - 1u);
        let x = a[a0 + k * rows];
        let y = select(vec4(0.0), a[a0 + next * rows], next > k);
        let w = Weights(b[b0 + k * quads], b[b1 + k * quads], b[b0 + next * quads], b[b1 + next * quads]);
        add_rows(0u, 4u, vec2(x.x, y.x), w);
        add_rows(1u, 4u, vec2(x.y, y.y), w);
        add_rows(2u, 4u, vec2(x.z, y.z), w);
        add_rows(3u, 4u, vec2(x.w, y.w), w);
    }
}

fn finish(slice: u32, i0: u32, q0: u32) {
    let quads = params.n / 4u;
    let rows = min(params.m, i0 + ROWS);
    let c_base = (params.c_offset + slice * params.c_stride) / 4u + q0;
    let near = q0 < quads;
    let far = q0 + VECTOR < quads;
    let plain = is_plain();
    for (var i = i0; i < select(i0, rows, plain); i++) {
        let at = c_base + i * quads;
        if near { c[at] = params.scale * sums[(i - i0) * 2u]; }
        if far { c[at + VECTOR] = params.scale * sums[(i - i0) * 2u + 1u]; }
    }
    for (var i = select(i0, rows, plain); i < rows; i++) {
        let at = c_base + i * quads;
        if near { c[at] = finished(sums[(i - i0) * 2u], at, q0, true, true); }
        if far { c[at + VECTOR] = finished(sums[(i - i0) * 2u + 1u], at + VECTOR, q0 + VECTOR, true, true); }
    }
}

@compute @workgroup_size(VECTOR)
fn nn(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let part = part_of(group);
    let row = (group.y + params.first_y) * ROWS;
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_nn(stretch(part, begin), row, group.x * 2u * VECTOR + lane, lane);
    }
    take_back(part);
    finish(part.slice, row, group.x * 2u * VECTOR + lane);
}

@compute @workgroup_size(VECTOR)
fn nn_odd(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let part = part_of(group);
    let row = (group.y + params.first_y) * ROWS;
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_odd(stretch(part, begin), row, group.x * 2u * VECTOR + lane, lane);
    }
    take_back(part);
    finish(part.slice, row, group.x * 2u * VECTOR + lane);
}

fn finish_ragged(slice: u32, i0: u32, q0: u32) {
    let rows = min(params.m, i0 + ROWS);
    let c_base = params.c_offset + slice * params.c_stride;
    for (var i = i0; i < rows; i++) {
        for (var half = 0u; half < 2u; half++) {
            let sum = params.scale * sums[(i - i0) * 2u + half];
            let j = (q0 + half * VECTOR) * 4u;
            let at = c_base + i * params.n + j;
            if j < params.n { c_floats[at] = sum.x; }
            if j + 1u < params.n { c_floats[at + 1u] = sum.y; }
            if j + 2u < params.n { c_floats[at + 2u] = sum.z; }
            if j + 3u < params.n { c_floats[at + 3u] = sum.w; }
        }
    }
}

@compute @workgroup_size(VECTOR)
fn nn_ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let part = part_of(group);
    let row = (group.y + params.first_y) * ROWS;
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_nn(stretch(part, begin), row, group.x * 2u * VECTOR + lane, lane);
    }
    take_back(part);
    finish_ragged(part.slice, row, group.x * 2u * VECTOR + lane);
}

@compute @workgroup_size(VECTOR)
fn tn(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let part = part_of(group);
    let row = (group.y + params.first_y) * ROWS;
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_tn(stretch(part, begin), row, group.x * 2u * VECTOR + lane, lane);
    }
    take_back(part);
    finish(part.slice, row, group.x * 2u * VECTOR + lane);
}
