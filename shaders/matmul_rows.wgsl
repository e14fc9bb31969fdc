// Batched matrix product for CPU-like adapters (Mesa's lavapipe): for every z in 0..batch
//   C[z](i,j) = scale * sum_k A[z](i,k) B[z](k,j)  (+ bias[j] when has_bias == 1)  (+ old C[z](i,j) when accumulate == 1)
// `nt`: A [M,K], B [N,K].   `nn`: A [M,K], B [K,N].   `tn`: A [K,M], B [K,N].   All row-major, any M, N, K >= 1.
// One workgroup (8 lanes = one 256-bit vector) per 64 x 32 tile of C: dispatch [ceil(N/32), ceil(M/64), batch * splits].
// Writes: C is stored, or added to when params.accumulate == 1. Without a bias bind any read-only tensor to `bias`.
// Why this shape: a load costs lavapipe 7 to 9 multiply-adds (eight branches and eight scalar loads), so a lane owns 16 x 16 results and
// does 8 multiply-adds per load. The sums stay in memory (`sums` is indexed dynamically at the end) because 256 live values
// across the branches of the loads would be spilled and reloaded around every one of them.

#import index
#import matmul
#import sums

@group(0) @binding(2) var<storage, read> a: array<f32>;          // [batch, M, K], tn: [batch, K, M]
@group(0) @binding(3) var<storage, read> b: array<f32>;          // [batch, K, N], nt: [batch, N, K]

alias Element = f32;

const SIDE: u32 = 16u; // rows and columns of a lane
const ROWS: u32 = VECTOR / 2u * SIDE; // of a tile of C
const COLUMNS: u32 = 2u * SIDE;

// Sums are [16 rows][4 quads of columns].

fn add_row(row: u32, x: f32, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) {
    sums[row * 4u] = fma(vec4(x), b0, sums[row * 4u]);
    sums[row * 4u + 1u] = fma(vec4(x), b1, sums[row * 4u + 1u]);
    sums[row * 4u + 2u] = fma(vec4(x), b2, sums[row * 4u + 2u]);
    sums[row * 4u + 3u] = fma(vec4(x), b3, sums[row * 4u + 3u]);
}

// Steps are the distances in floats between neighbours along the outer dimension (i or j) and along k.
fn block(part: Part, i0: u32, j0: u32, a_outer: u32, a_k: u32, b_outer: u32, b_k: u32) {
    // Rows and columns past the edge repeat the last one, so that the loop below needs no branch; they are not written.
    let last_i = params.m - 1u;
    let last_j = params.n - 1u;
    let a_base = params.a_offset + part.z * params.a_stride;
    let b_base = params.b_offset + part.z * params.b_stride;
    let a0 = a_base + min(i0, last_i) * a_outer;
    let a1 = a_base + min(i0 + 1u, last_i) * a_outer;
    let a2 = a_base + min(i0 + 2u, last_i) * a_outer;
    let a3 = a_base + min(i0 + 3u, last_i) * a_outer;
    let a4 = a_base + min(i0 + 4u, last_i) * a_outer;
    let a5 = a_base + min(i0 + 5u, last_i) * a_outer;
    let a6 = a_base + min(i0 + 6u, last_i) * a_outer;
    let a7 = a_base + min(i0 + 7u, last_i) * a_outer;
    let a8 = a_base + min(i0 + 8u, last_i) * a_outer;
    let a9 = a_base + min(i0 + 9u, last_i) * a_outer;
    let a10 = a_base + min(i0 + 10u, last_i) * a_outer;
    let a11 = a_base + min(i0 + 11u, last_i) * a_outer;
    let a12 = a_base + min(i0 + 12u, last_i) * a_outer;
    let a13 = a_base + min(i0 + 13u, last_i) * a_outer;
    let a14 = a_base + min(i0 + 14u, last_i) * a_outer;
    let a15 = a_base + min(i0 + 15u, last_i) * a_outer;
    let b0 = b_base + min(j0, last_j) * b_outer;
    let b1 = b_base + min(j0 + 1u, last_j) * b_outer;
    let b2 = b_base + min(j0 + 2u, last_j) * b_outer;
    let b3 = b_base + min(j0 + 3u, last_j) * b_outer;
    let b4 = b_base + min(j0 + 4u, last_j) * b_outer;
    let b5 = b_base + min(j0 + 5u, last_j) * b_outer;
    let b6 = b_base + min(j0 + 6u, last_j) * b_outer;
    let b7 = b_base + min(j0 + 7u, last_j) * b_outer;
    let b8 = b_base + min(j0 + 8u, last_j) * b_outer;
    let b9 = b_base + min(j0 + 9u, last_j) * b_outer;
    let b10 = b_base + min(j0 + 10u, last_j) * b_outer;
    let b11 = b_base + min(j0 + 11u, last_j) * b_outer;
    let b12 = b_base + min(j0 + 12u, last_j) * b_outer;
    let b13 = b_base + min(j0 + 13u, last_j) * b_outer;
    let b14 = b_base + min(j0 + 14u, last_j) * b_outer;
    let b15 = b_base + min(j0 + 15u, last_j) * b_outer;
    for (var k = part.begin; k < part.end; k++) {
        let u = k * a_k;
        let v = k * b_k;
        let w0 = vec4(b[b0 + v], b[b1 + v], b[b2 + v], b[b3 + v]);
        let w1 = vec4(b[b4 + v], b[b5 + v], b[b6 + v], b[b7 + v]);
        let w2 = vec4(b[b8 + v], b[b9 + v], b[b10 + v], b[b11 + v]);
        let w3 = vec4(b[b12 + v], b[b13 + v], b[b14 + v], b[b15 + v]);
        add_row(0u, a[a0 + u], w0, w1, w2, w3);
        add_row(1u, a[a1 + u], w0, w1, w2, w3);
        add_row(2u, a[a2 + u], w0, w1, w2, w3);
        add_row(3u, a[a3 + u], w0, w1, w2, w3);
        add_row(4u, a[a4 + u], w0, w1, w2, w3);
        add_row(5u, a[a5 + u], w0, w1, w2, w3);
        add_row(6u, a[a6 + u], w0, w1, w2, w3);
        add_row(7u, a[a7 + u], w0, w1, w2, w3);
        add_row(8u, a[a8 + u], w0, w1, w2, w3);
        add_row(9u, a[a9 + u], w0, w1, w2, w3);
        add_row(10u, a[a10 + u], w0, w1, w2, w3);
        add_row(11u, a[a11 + u], w0, w1, w2, w3);
        add_row(12u, a[a12 + u], w0, w1, w2, w3);
        add_row(13u, a[a13 + u], w0, w1, w2, w3);
        add_row(14u, a[a14 + u], w0, w1, w2, w3);
        add_row(15u, a[a15 + u], w0, w1, w2, w3);
    }
}

fn finish(slice: u32, i0: u32, j0: u32) {
    let rows = min(params.m, i0 + SIDE);
    let columns = min(params.n, j0 + SIDE);
    let c_base = params.c_offset + slice * params.c_stride;
    let plain = is_plain();
    for (var i = i0; i < select(i0, rows, plain); i++) {
        for (var j = j0; j < columns; j++) {
            c[c_base + i * params.n + j] = params.scale * sums[(i - i0) * 4u + (j - j0) / 4u][(j - j0) % 4u];
        }
    }
    for (var i = select(i0, rows, plain); i < rows; i++) {
        for (var j = j0; j < columns; j++) {
            let at = c_base + i * params.n + j;
            c[at] = finished(sums[(i - i0) * 4u + (j - j0) / 4u][(j - j0) % 4u], at, j, true, true);
        }
    }
}

fn product(group: vec3<u32>, lane: u32, a_outer: u32, a_k: u32, b_outer: u32, b_k: u32) {
    let i0 = (group.y + params.first_y) * ROWS + lane / 2u * SIDE;
    let j0 = group.x * COLUMNS + lane % 2u * SIDE;
    let part = part_of(group);
    for (var begin = part.begin; begin < part.end; begin += STRETCH) {
        if begin > part.begin { settle(); }
        block(stretch(part, begin), i0, j0, a_outer, a_k, b_outer, b_k);
    }
    take_back(part);
    finish(part.slice, i0, j0);
}

@compute @workgroup_size(VECTOR)
fn nt(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    product(group, lane, params.k, 1u, params.k, 1u);
}

@compute @workgroup_size(VECTOR)
fn nn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    product(group, lane, params.k, 1u, 1u, params.n);
}

@compute @workgroup_size(VECTOR)
fn tn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    product(group, lane, 1u, params.m, 1u, params.n);
}
