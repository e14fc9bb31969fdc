// Batched matrix product for CPU-like adapters (Mesa's lavapipe) where rows are whole vec4s; matmul_rows.wgsl takes all other sizes.
//   C[z](i,j) = scale * sum_k A[z](i,k) B[z](k,j)  (+ bias[j] when has_bias == 1)  (+ old C[z](i,j) when accumulate == 1), z in 0..batch
// `nn`: A [M,K], B [K,N]; N and the strides and offsets of B and C multiples of 4, and the binding of `a` a multiple of 16 bytes long (K may be anything).
// `tn`: A [K,M], B [K,N]; M, N, all strides and all offsets multiples of 4.
// One workgroup (8 lanes = one 256-bit vector) per 64 x 32 tile of C: dispatch [ceil(N/32), ceil(M/64), batch * splits].
// `transpose_b`: partial[z] = B[z]^T from B [N,K] to [K,N]; K, b_stride, b_offset multiples of 4; dispatch [ceil(N/32), ceil(K/16), batch of B].
//   Where N is no multiple of 4, rows of the copy are padded to one, with repetitions of the last column.
//   An A B^T product runs as transpose_b, then `nn` on the copy (b_offset = 0; b_stride = K*N, or 0 when B is shared).
// Writes: C is stored, or added to when params.accumulate == 1; `partial` is stored. Without a bias bind any read-only tensor to `bias`.
// Why this shape: lavapipe turns every load into eight guarded scalar loads, about 60 instructions a float in a vec4 and 100 alone.
// Time goes with the size of the code (it has to fit the instruction cache), so a lane owns 16 x 16 results (8 multiply-adds per
// float loaded) and one k is one trip of the loop. The sums stay in memory: 256 live values would be spilled around every load.

#import index
#import matmul
#import sums

@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;       // [batch, M, K] read float by float; tn: [batch, K, M/4]
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;       // [batch, K, N/4]; transpose_b: [batch, N, K/4]
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>; // [batch, K, N/4], the transposed B

alias Element = vec4<f32>;

const SIDE: u32 = 16u; // rows and columns of a lane
const ROWS: u32 = VECTOR / 2u * SIDE; // of a tile of C
const COLUMNS: u32 = 2u * SIDE;

// Sums are [16 rows][4 quads of columns].

fn add_row(row: u32, x: f32, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) {
    sums[row * 4u] = fma(vec4(x), w0, sums[row * 4u]);
    sums[row * 4u + 1u] = fma(vec4(x), w1, sums[row * 4u + 1u]);
    sums[row * 4u + 2u] = fma(vec4(x), w2, sums[row * 4u + 2u]);
    sums[row * 4u + 3u] = fma(vec4(x), w3, sums[row * 4u + 3u]);
}

fn element_a(at: u32) -> f32 {
    return a[at / 4u][at % 4u];
}

// Rows and columns past the edge repeat the last one, so that no loop below needs a branch; they are not written.
fn block_nn(part: Part, i0: u32, j0: u32) {
    let a_base = params.a_offset + part.z * params.a_stride;
    let last = params.m - 1u;
    let a0 = a_base + min(i0, last) * params.k;
    let a1 = a_base + min(i0 + 1u, last) * params.k;
    let a2 = a_base + min(i0 + 2u, last) * params.k;
    let a3 = a_base + min(i0 + 3u, last) * params.k;
    let a4 = a_base + min(i0 + 4u, last) * params.k;
    let a5 = a_base + min(i0 + 5u, last) * params.k;
    let a6 = a_base + min(i0 + 6u, last) * params.k;
    let a7 = a_base + min(i0 + 7u, last) * params.k;
    let a8 = a_base + min(i0 + 8u, last) * params.k;
    let a9 = a_base + min(i0 + 9u, last) * params.k;
    let a10 = a_base + min(i0 + 10u, last) * params.k;
    let a11 = a_base + min(i0 + 11u, last) * params.k;
    let a12 = a_base + min(i0 + 12u, last) * params.k;
    let a13 = a_base + min(i0 + 13u, last) * params.k;
    let a14 = a_base + min(i0 + 14u, last) * params.k;
    let a15 = a_base + min(i0 + 15u, last) * params.k;
    let b_base = (params.b_offset + part.z * params.b_stride) / 4u;
    let b0 = b_base + min(j0 / 4u, params.n / 4u - 1u);
    let b1 = b_base + min(j0 / 4u + 1u, params.n / 4u - 1u);
    let b2 = b_base + min(j0 / 4u + 2u, params.n / 4u - 1u);
    let b3 = b_base + min(j0 / 4u + 3u, params.n / 4u - 1u);
    for (var k = part.begin; k < part.end; k++) {
        let v = k * (params.n / 4u);
        let w0 = b[b0 + v];
        let w1 = b[b1 + v];
        let w2 = b[b2 + v];
        let w3 = b[b3 + v];
        add_row(0u, element_a(a0 + k), w0, w1, w2, w3);
        add_row(1u, element_a(a1 + k), w0, w1, w2, w3);
        add_row(2u, element_a(a2 + k), w0, w1, w2, w3);
        add_row(3u, element_a(a3 + k), w0, w1, w2, w3);
        add_row(4u, element_a(a4 + k), w0, w1, w2, w3);
        add_row(5u, element_a(a5 + k), w0, w1, w2, w3);
        add_row(6u, element_a(a6 + k), w0, w1, w2, w3);
        add_row(7u, element_a(a7 + k), w0, w1, w2, w3);
        add_row(8u, element_a(a8 + k), w0, w1, w2, w3);
        add_row(9u, element_a(a9 + k), w0, w1, w2, w3);
        add_row(10u, element_a(a10 + k), w0, w1, w2, w3);
        add_row(11u, element_a(a11 + k), w0, w1, w2, w3);
        add_row(12u, element_a(a12 + k), w0, w1, w2, w3);
        add_row(13u, element_a(a13 + k), w0, w1, w2, w3);
        add_row(14u, element_a(a14 + k), w0, w1, w2, w3);
        add_row(15u, element_a(a15 + k), w0, w1, w2, w3);
    }
}

fn block_tn(part: Part, i0: u32, j0: u32) {
    let a_base = (params.a_offset + part.z * params.a_stride) / 4u;
    let a0 = a_base + min(i0 / 4u, params.m / 4u - 1u);
    let a1 = a_base + min(i0 / 4u + 1u, params.m / 4u - 1u);
    let a2 = a_base + min(i0 / 4u + 2u, params.m / 4u - 1u);
    let a3 = a_base + min(i0 / 4u + 3u, params.m / 4u - 1u);
    let b_base = (params.b_offset + part.z * params.b_stride) / 4u;
    let b0 = b_base + min(j0 / 4u, params.n / 4u - 1u);
    let b1 = b_base + min(j0 / 4u + 1u, params.n / 4u - 1u);
    let b2 = b_base + min(j0 / 4u + 2u, params.n / 4u - 1u);
    let b3 = b_base + min(j0 / 4u + 3u, params.n / 4u - 1u);
    for (var k = part.begin; k < part.end; k++) {
        let u = k * (params.m / 4u);
        let v = k * (params.n / 4u);
        let w0 = b[b0 + v];
        let w1 = b[b1 + v];
        let w2 = b[b2 + v];
        let w3 = b[b3 + v];
        let x0 = a[a0 + u];
        add_row(0u, x0.x, w0, w1, w2, w3);
        add_row(1u, x0.y, w0, w1, w2, w3);
        add_row(2u, x0.z, w0, w1, w2, w3);
        add_row(3u, x0.w, w0, w1, w2, w3);
        let x1 = a[a1 + u];
        add_row(4u, x1.x, w0, w1, w2, w3);
        add_row(5u, x1.y, w0, w1, w2, w3);
        add_row(6u, x1.z, w0, w1, w2, w3);
        add_row(7u, x1.w, w0, w1, w2, w3);
        let x2 = a[a2 + u];
        add_row(8u, x2.x, w0, w1, w2, w3);
        add_row(9u, x2.y, w0, w1, w2, w3);
        add_row(10u, x2.z, w0, w1, w2, w3);
        add_row(11u, x2.w, w0, w1, w2, w3);
        let x3 = a[a3 + u];
        add_row(12u, x3.x, w0, w1, w2, w3);
        add_row(13u, x3.y, w0, w1, w2, w3);
        add_row(14u, x3.z, w0, w1, w2, w3);
        add_row(15u, x3.w, w0, w1, w2, w3);
    }
}

fn finish(slice: u32, i0: u32, j0: u32) {
    let quads = params.n / 4u;
    let rows = min(params.m, i0 + SIDE);
    let end = min(quads, j0 / 4u + 4u);
    let c_base = (params.c_offset + slice * params.c_stride) / 4u;
    let plain = is_plain();
    for (var i = i0; i < select(i0, rows, plain); i++) {
        for (var j = j0 / 4u; j < end; j++) {
            c[c_base + i * quads + j] = params.scale * sums[(i - i0) * 4u + j - j0 / 4u];
        }
    }
    for (var i = select(i0, rows, plain); i < rows; i++) {
        for (var j = j0 / 4u; j < end; j++) {
            let at = c_base + i * quads + j;
            c[at] = finished(sums[(i - i0) * 4u + j - j0 / 4u], at, j, true, true);
        }
    }
}

// Row and column where the 16 x 16 results of a lane begin.
fn corner(group: vec3<u32>, lane: u32) -> vec2<u32> {
    return vec2((group.y + params.first_y) * ROWS + lane / 2u * SIDE, group.x * COLUMNS + lane % 2u * SIDE);
}

@compute @workgroup_size(VECTOR)
fn nn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = corner(group, lane);
    let part = part_of(group);
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_nn(stretch(part, begin), at.x, at.y);
    }
    take_back(part);
    finish(part.slice, at.x, at.y);
}

@compute @workgroup_size(VECTOR)
fn tn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = corner(group, lane);
    let part = part_of(group);
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block_tn(stretch(part, begin), at.x, at.y);
    }
    take_back(part);
    finish(part.slice, at.x, at.y);
}

// A lane turns 4 x 4 floats.
@compute @workgroup_size(VECTOR)
fn transpose_b(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = params.k / 4u;
    let first = (group.y + params.first_y) * 4u;
    let z = group.z + params.first_z;
    let columns = (params.n + 3u) / 4u;
    let j = (group.x * VECTOR + lane) * 4u;
    let end = min(quads, first + 4u);
    if j >= params.n { return; }
    let last = params.n - 1u;
    let base = (params.b_offset + z * params.b_stride) / 4u;
    let r0 = base + j * quads;
    let r1 = base + min(j + 1u, last) * quads;
    let r2 = base + min(j + 2u, last) * quads;
    let r3 = base + min(j + 3u, last) * quads;
    for (var q = first; q < end; q++) {
        let t = transpose(mat4x4(b[r0 + q], b[r1 + q], b[r2 + q], b[r3 + q]));
        let to = (z * params.k + q * 4u) * columns + j / 4u;
        partial[to] = t[0];
        partial[to + columns] = t[1];
        partial[to + 2u * columns] = t[2];
        partial[to + 3u * columns] = t[3];
    }
}
