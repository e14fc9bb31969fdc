// Batched matrix product for GPUs: for every z in 0..batch
//   C[z](i,j) = scale * sum_k A[z](i,k) B[z](k,j)  (+ bias[j] when has_bias == 1)  (+ old C[z](i,j) when accumulate == 1)
// `nt`: A [M,K], B [N,K].   `nn`: A [M,K], B [K,N].   `tn`: A [K,M], B [K,N].   All row-major, any M, N, K >= 1.
// One workgroup per 64 x 64 tile of C: dispatch [ceil(N/64), ceil(M/64), batch * splits] for `nt`, `nn`, `tn`.
// Few tiles and a long K (weight gradients), or a very long K: with splits > 1 C is a scratch tensor [batch, splits, M, N] of parts,
// zeros where a part holds no k; then `sum_splits` with splits as before, batch in z and [min(G, 1024), ceil(G/1024)],
// G = ceil(M*N/64), in x and y makes C of them.
// Writes: C is stored, or added to when params.accumulate == 1. Without a bias bind any read-only tensor to it.
// Why this shape: 8 x 4 results a thread read 3 vec4 of workgroup memory for 32 multiply-adds, in 72 registers (RADV, Navi 31: 16 waves, no spills).

#import index
#import matmul

@group(0) @binding(2) var<storage, read> a: array<f32>;          // [batch, M, K], tn: [batch, K, M]
@group(0) @binding(3) var<storage, read> b: array<f32>;          // [batch, K, N], nt: [batch, N, K]
@group(0) @binding(6) var<storage, read> partial: array<f32>; // [batch, splits, M, N]

alias Element = f32;

const THREADS: u32 = 128u; // of a workgroup, 8 x 4 results each
const TILE: u32 = 64u;  // rows and columns of C a workgroup owns
const QUADS: u32 = TILE / 4u;
const DEPTH: u32 = 16u; // values of k staged at a time
const PITCH: u32 = QUADS + 1u; // vec4s from one staged k to the next: one more, so that neighbours meet different banks

var<workgroup> a_tile: array<vec4<f32>, DEPTH * PITCH>; // [DEPTH][PITCH], 4 rows a vec4
var<workgroup> b_tile: array<vec4<f32>, DEPTH * PITCH>; // [DEPTH][PITCH], 4 columns a vec4

struct Block { // the 8 x 4 results of one thread
    r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>,
    r4: vec4<f32>, r5: vec4<f32>, r6: vec4<f32>, r7: vec4<f32>,
}

// Four neighbours along the outer dimension at one k. `outer_step` and `k_step` are the strides of the layout; what lies outside is zero.
fn four_a(base: u32, i: u32, k: u32, end: u32, outer_step: u32, k_step: u32) -> vec4<f32> {
    var v = vec4(0.0);
    if k < end {
        let at = base + k * k_step;
        if i < params.m { v.x = a[at + i * outer_step]; }
        if i + 1u < params.m { v.y = a[at + (i + 1u) * outer_step]; }
        if i + 2u < params.m { v.z = a[at + (i + 2u) * outer_step]; }
        if i + 3u < params.m { v.w = a[at + (i + 3u) * outer_step]; }
    }
    return v;
}

fn four_b(base: u32, j: u32, k: u32, end: u32, outer_step: u32, k_step: u32) -> vec4<f32> {
    var v = vec4(0.0);
    if k < end {
        let at = base + k * k_step;
        if j < params.n { v.x = b[at + j * outer_step]; }
        if j + 1u < params.n { v.y = b[at + (j + 1u) * outer_step]; }
        if j + 2u < params.n { v.z = b[at + (j + 2u) * outer_step]; }
        if j + 3u < params.n { v.w = b[at + (j + 3u) * outer_step]; }
    }
    return v;
}

// Which (k, quad) a thread stages on its `turn` (0, 1): neighbours run along the dimension that is contiguous in memory.
fn spot(thread: u32, turn: u32, k_contiguous: bool) -> vec2<u32> {
    let t = thread + turn * THREADS;
    return select(vec2(t / QUADS, t % QUADS), vec2(t % DEPTH, t / DEPTH), k_contiguous);
}

fn block(group: vec3<u32>, thread: u32, a_transposed: bool, b_transposed: bool, part: Part) -> Block {
    let a_base = params.a_offset + part.z * params.a_stride;
    let b_base = params.b_offset + part.z * params.b_stride;
    let end = part.end;
    let a_step = select(vec2(params.k, 1u), vec2(1u, params.m), a_transposed);
    let b_step = select(vec2(1u, params.n), vec2(params.k, 1u), b_transposed);
    let rows = (thread / QUADS) * 2u;
    let columns = thread % QUADS;
    var s: Block;
    for (var k0 = part.begin; k0 < end; k0 += DEPTH) {
        for (var turn = 0u; turn < 2u; turn++) {
            let p = spot(thread, turn, !a_transposed);
            a_tile[p.x * PITCH + p.y] = four_a(a_base, group.y * TILE + p.y * 4u, k0 + p.x, end, a_step.x, a_step.y);
            let q = spot(thread, turn, b_transposed);
            b_tile[q.x * PITCH + q.y] = four_b(b_base, group.x * TILE + q.y * 4u, k0 + q.x, end, b_step.x, b_step.y);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let u = a_tile[k * PITCH + rows];
            let v = a_tile[k * PITCH + rows + 1u];
            let w = b_tile[k * PITCH + columns];
            s.r0 = fma(vec4(u.x), w, s.r0);
            s.r1 = fma(vec4(u.y), w, s.r1);
            s.r2 = fma(vec4(u.z), w, s.r2);
            s.r3 = fma(vec4(u.w), w, s.r3);
            s.r4 = fma(vec4(v.x), w, s.r4);
            s.r5 = fma(vec4(v.y), w, s.r5);
            s.r6 = fma(vec4(v.z), w, s.r6);
            s.r7 = fma(vec4(v.w), w, s.r7);
        }
        workgroupBarrier();
    }
    return s;
}

fn finish(at: u32, j: u32, sum: f32, first: bool, last: bool) {
    c[at] = finished(sum, at, j, first, last);
}

fn finish_row(slice: u32, i: u32, j: u32, s: vec4<f32>, first: bool, last: bool) {
    if i >= params.m { return; }
    let at = params.c_offset + slice * params.c_stride + i * params.n + j;
    if j < params.n { finish(at, j, s.x, first, last); }
    if j + 1u < params.n { finish(at + 1u, j + 1u, s.y, first, last); }
    if j + 2u < params.n { finish(at + 2u, j + 2u, s.z, first, last); }
    if j + 3u < params.n { finish(at + 3u, j + 3u, s.w, first, last); }
}

fn product(workgroup: vec3<u32>, thread: u32, a_transposed: bool, b_transposed: bool) {
    let part = part_of(workgroup);
    let group = workgroup + vec3(0u, params.first_y, 0u);
    let i = group.y * TILE + (thread / QUADS) * 8u;
    let j = group.x * TILE + (thread % QUADS) * 4u;
    // Once even where there is no k, so that zeros are stored. Sums go through C: its traffic is little, registers are few.
    for (var begin = part.begin; begin < max(part.end, part.begin + 1u); begin += STRETCH) {
        let s = block(group, thread, a_transposed, b_transposed, stretch(part, begin));
        let first = begin == part.begin;
        let last = begin + STRETCH >= part.end;
        finish_row(part.slice, i, j, s.r0, first, last);
        finish_row(part.slice, i + 1u, j, s.r1, first, last);
        finish_row(part.slice, i + 2u, j, s.r2, first, last);
        finish_row(part.slice, i + 3u, j, s.r3, first, last);
        finish_row(part.slice, i + 4u, j, s.r4, first, last);
        finish_row(part.slice, i + 5u, j, s.r5, first, last);
        finish_row(part.slice, i + 6u, j, s.r6, first, last);
        finish_row(part.slice, i + 7u, j, s.r7, first, last);
    }
}

@compute @workgroup_size(THREADS)
fn nt(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    product(group, thread, false, true);
}

@compute @workgroup_size(THREADS)
fn nn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    product(group, thread, false, false);
}

@compute @workgroup_size(THREADS)
fn tn(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    product(group, thread, true, false);
}

@compute @workgroup_size(WORKGROUP)
fn sum_splits(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let size = params.m * params.n;
    let at = ((group.y + params.first_y) * groups.x + group.x) * WORKGROUP + thread;
    let z = group.z + params.first_z;
    if at >= size { return; }
    var s = 0.0;
    for (var p = 0u; p < params.splits; p++) { s += partial[(z * params.splits + p) * size + at]; }
    finish(params.c_offset + z * params.c_stride + at, at % params.n, s, true, true);
}
