// What the matmul kernels have in common: their parameters, how long sums are made, and what becomes of them. A kernel says what an
// Element of C and of the bias is: a float, or a vec4 of four neighbouring columns. A chain of n additions in f32 is off by
// up to 1.5e-8 n, so sums are put aside every STRETCH values of k. Sums over more than some ten thousand values are made in
// `splits` parts, each a matrix of its own, and added by matmul_tiles.sum_splits.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    splits: u32,      // parts of k
    a_stride: u32,    // floats from one batch to the next; 0 shares A
    b_stride: u32,
    c_stride: u32,    // floats from one matrix of C to the next, of which there are batch * splits
    a_offset: u32,    // where A, B and C begin, in floats
    b_offset: u32,
    c_offset: u32,
    has_bias: u32,
    accumulate: u32,
    scale: f32,
    first_y: u32,     // what workgroups of a long product that was cut count from
    first_z: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read> bias: array<Element>;    // [N]
@group(0) @binding(5) var<storage, read_write> c: array<Element>; // [batch, M, N]

const STRETCH: u32 = 512u; // a multiple of what any kernel takes at a time

// Part of the sums: values of k in begin..end (begin a multiple of 4) for the matrices z of A and B and matrix `slice` of C.
struct Part { slice: u32, z: u32, begin: u32, end: u32 }

fn part_of(group: vec3<u32>) -> Part {
    let slice = group.z + params.first_z;
    let span = ((params.k + params.splits - 1u) / params.splits + 3u) / 4u * 4u;
    let begin = min(slice % params.splits * span, params.k);
    return Part(slice, slice / params.splits, begin, min(begin + span, params.k));
}

// The stretch of a part that begins at `begin`.
fn stretch(part: Part, begin: u32) -> Part {
    return Part(part.slice, part.z, begin, min(begin + STRETCH, part.end));
}

// Whether C is nothing but the sums. Kernels for lavapipe have a loop for each case: it runs both sides of a branch inside a loop,
// so that a branch would cost the common case a second load.
fn is_plain() -> bool {
    return params.has_bias + params.accumulate == 0u;
}

// What is done to a whole sum in column (of Elements) j on its way into C.
fn epilogue(sum: Element, j: u32) -> Element {
    if params.has_bias == 1u {
        return sum + bias[j];
    }
    return sum;
}

// What C becomes at `at` with a stretch of the sum of column j: the first is stored, unless C is added to; the last makes it whole.
fn finished(sum: Element, at: u32, j: u32, first: bool, last: bool) -> Element {
    var v = params.scale * sum;
    if params.accumulate == 1u || !first { v += c[at]; }
    if last { v = epilogue(v, j); }
    return v;
}
