// How far each map a is from a reference b, both rows of cols numbers; four numbers a row:
//   |a - b|_2 / max(|b|_2, 1e-12)                                  relative error
//   sum over b > 0 of b log(b / max(a, 1e-12))                     KL(b || a) in nats
//   (1/2) sum |a - b|                                              total variation
//   max |a - b|                                                    largest difference
// forward       one workgroup of 64 per row (GPUs); rows are spread over workgroups in x and y
// forward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers)
// Sums are made in parts of up to 32 numbers, and these in stretches, so that rounding does not grow with a long row.
// Write policy: distances is stored.

#import index
#import reduce

const SMALLEST = 1e-12;
const PART = 32u;     // numbers
const STRETCH = 128u; // parts

struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> a: array<f32>;              // [rows, cols]
@group(0) @binding(3) var<storage, read> b: array<f32>;              // [rows, cols]
@group(0) @binding(4) var<storage, read_write> distances: array<f32>; // [rows, 4]

// log(p / q) for positive numbers. Where the two are close, log would lose what is not rounding of 1:
// log(p / q) = 2 artanh(s) with s = (p - q) / (p + q).
fn log_ratio(p: f32, q: f32) -> f32 {
    let s = (p - q) / (p + q);
    if abs(s) > 0.3333 {
        return log(p / q);
    }
    let z = s * s;
    let series = 0.14285714 + z * (0.11111111 + z * (0.09090909 + z * (0.07692308 + z * 0.06666667)));
    return 2.0 * s * (1.0 + z * (0.33333333 + z * (0.2 + z * series)));
}

// (a - b)^2, b^2, its share of KL(b || a), |a - b|.
fn terms(i: u32) -> vec4<f32> {
    let d = a[i] - b[i];
    var divergence = 0.0;
    if b[i] > 0.0 {
        divergence = b[i] * log_ratio(b[i], max(a[i], SMALLEST));
    }
    return vec4(d * d, b[i] * b[i], divergence, abs(d));
}

// Sums over every stride-th number from `begin` on, up to before `end`; the largest difference is the fifth result.
struct Gathered { sums: vec4<f32>, largest: f32 }

fn gather(begin: u32, end: u32, stride: u32) -> Gathered {
    var all = Gathered(vec4(0.0), 0.0);
    for (var first = begin; first < end; first += STRETCH * PART * stride) {
        let last = min(first + STRETCH * PART * stride, end);
        var stretch = vec4(0.0);
        for (var at = first; at < last; at += PART * stride) {
            var part = vec4(0.0);
            for (var i = at; i < min(at + PART * stride, last); i += stride) {
                let t = terms(i);
                part += t;
                all.largest = max(all.largest, t.w);
            }
            stretch += part;
        }
        all.sums += stretch;
    }
    return all;
}

fn store(row: u32, all: Gathered) {
    distances[row * 4u] = sqrt(all.sums.x) / max(sqrt(all.sums.y), SMALLEST);
    distances[row * 4u + 1u] = all.sums.z;
    distances[row * 4u + 2u] = 0.5 * all.sums.w;
    distances[row * 4u + 3u] = all.largest;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let own = gather(row * params.cols + local, (row + 1u) * params.cols, WORKGROUP);
    let all = Gathered(sum_of_four(own.sums, local), largest_of(own.largest, local));
    if local == 0u {
        store(row, all);
    }
}

@compute @workgroup_size(VECTOR)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, VECTOR, local);
    if row < params.rows {
        store(row, gather(row * params.cols, (row + 1u) * params.cols, 1u));
    }
}
