// Feature maps of the Performer family as released (spec 1.8 and 3). Rows are tokens; `width` is the width of x.
//   favorp     y_j = factor exp(x_j + norm - peak) + eps,  x = P, norm = -h, peak = max_j P_j of the row, or of all rows
//   waves      y = factor exp(-norm - peak) [sin x, cos x] (or [cos x, sin x]), peak = max of -norm over all rows
//   relu       y = max(factor x, 0) + eps
//   sigmoid    y = 1 / (1 + exp(-x)) + eps
//   dpfp       y_(j,i) = r_i r_((i - j - 1) mod 2 width), r = max([x, -x], 0), j < shifts
//   positions  y = [x cos a, x sin a], a = (pi / 2) (row / rows of its matrix); HAS_PADDING: among the real ones
// Peaks have no gradient. `row_peak` finds the largest element of each row, `matrix_peak` the largest of sign * x_n over
// the `tokens` rows of each matrix (x one column); a peak serves `per_peak` rows.
// One invocation per element of y or dx (waves: of x), per row (row_peak, favorp_norm, waves_norm); a workgroup holds 64.
// matrix_peak: one workgroup per matrix.
// Write policy: y and peaks are stored; dx and dnorm are stored, or added to when params.accumulate == 1.

// HAS_PADDING: the peak is that of the real rows, and exponents of padded rows, which may lie above it, are cut at it: their
// features count for nothing, and so stay finite.

// Variant: HAS_PADDING=1

#import index
#import reduce

override HAS_PADDING: bool = false;

const STRETCH = 256u; // features: a chain of n additions is off by up to 1.5e-8 n

struct Params {
    rows: u32, width: u32, tokens: u32, per_peak: u32, shifts: u32, cos_first: u32, accumulate: u32,
    factor: f32, eps: f32, sign: f32, heads: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;           // [rows, width]
@group(0) @binding(3) var<storage, read> norm: array<f32>;        // [rows]
@group(0) @binding(4) var<storage, read> peak: array<f32>;        // [rows / per_peak]
@group(0) @binding(5) var<storage, read_write> peaks: array<f32>; // [rows] or [rows / tokens]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;     // [rows, features]
@group(0) @binding(7) var<storage, read> dy: array<f32>;          // [rows, features]
@group(0) @binding(8) var<storage, read_write> dx: array<f32>;    // [rows, width]
@group(0) @binding(9) var<storage, read_write> dnorm: array<f32>; // [rows]
@group(0) @binding(10) var<storage, read> ranks: array<f32>;      // [batch, tokens + 1] real tokens before each

@compute @workgroup_size(WORKGROUP)
fn row_peak(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    var found = x[row * params.width];
    for (var j = 1u; j < params.width; j++) {
        found = max(found, x[row * params.width + j]);
    }
    peaks[row] = found;
}

@compute @workgroup_size(WORKGROUP)
fn matrix_peak(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let matrix = workgroup.x + workgroup.y * workgroups.x;
    if matrix * params.tokens >= params.rows {
        return;
    }
    let at = matrix * params.tokens;
    var found = params.sign * x[at];
    for (var n = local; n < params.tokens; n += WORKGROUP) {
        found = max(found, params.sign * x[at + n]);
    }
    found = largest_of(found, local);
    if local == 0u {
        peaks[matrix] = found;
    }
}

fn store(i: u32, value: f32) {
    if params.accumulate == 1u {
        dx[i] += value;
    } else {
        dx[i] = value;
    }
}

fn store_norm(row: u32, value: f32) {
    if params.accumulate == 1u {
        dnorm[row] += value;
    } else {
        dnorm[row] = value;
    }
}

fn bounded(exponent: f32) -> f32 {
    if HAS_PADDING {
        return min(exponent, 0.0);
    }
    return exponent;
}

fn exponential(i: u32) -> f32 {
    let row = i / params.width;
    return params.factor * exp(bounded(x[i] + norm[row] - peak[row / params.per_peak]));
}

@compute @workgroup_size(WORKGROUP)
fn favorp(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        y[i] = exponential(i) + params.eps;
    }
}

@compute @workgroup_size(WORKGROUP)
fn favorp_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        store(i, dy[i] * exponential(i));
    }
}

@compute @workgroup_size(WORKGROUP)
fn favorp_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    var d = 0.0;
    let end = (row + 1u) * params.width;
    for (var first = row * params.width; first < end; first += STRETCH) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH, end); i++) {
            stretch += dy[i] * exponential(i);
        }
        d += stretch;
    }
    store_norm(row, d);
}

// (sin, cos) of x. Our own, since WGSL lets drivers be off by 2^-11: quarter turns are taken off in two pieces, of which
// the first has so few digits that its multiples are exact.
fn sine_and_cosine(angle: f32) -> vec2<f32> {
    let quarter = floor(angle * 0.63661977 + 0.5);
    let r = clamp((angle - quarter * 1.5703125) - quarter * 0.00048382679, -0.8, 0.8);
    let z = r * r;
    let c = 1.0 + z * (-0.5 + z * (0.041666667 + z * (-0.0013888889 + z * 0.000024801587)));
    let s = r * (1.0 + z * (-0.16666667 + z * (0.0083333333 + z * (-0.00019841270 + z * 0.0000027557319))));
    switch u32(i32(quarter)) & 3u {
        case 0u: { return vec2(s, c); }
        case 1u: { return vec2(c, -s); }
        case 2u: { return vec2(-s, -c); }
        default: { return vec2(-c, s); }
    }
}

// Where sine and cosine of element i of x lie in y.
fn wave_places(i: u32) -> vec2<u32> {
    let first = i / params.width * 2u * params.width + i % params.width;
    let places = vec2(first, first + params.width);
    return select(places, places.yx, params.cos_first == 1u);
}

fn amplitude(row: u32) -> f32 {
    return params.factor * exp(bounded(-norm[row] - peak[row / params.per_peak]));
}

@compute @workgroup_size(WORKGROUP)
fn waves(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.width {
        return;
    }
    let wave = amplitude(i / params.width) * sine_and_cosine(x[i]);
    let places = wave_places(i);
    y[places.x] = wave.x;
    y[places.y] = wave.y;
}

@compute @workgroup_size(WORKGROUP)
fn waves_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.width {
        return;
    }
    let wave = amplitude(i / params.width) * sine_and_cosine(x[i]);
    let places = wave_places(i);
    store(i, dy[places.x] * wave.y - dy[places.y] * wave.x);
}

@compute @workgroup_size(WORKGROUP)
fn waves_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    var d = 0.0;
    let end = (row + 1u) * params.width;
    for (var first = row * params.width; first < end; first += STRETCH) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH, end); i++) {
            let wave = sine_and_cosine(x[i]);
            let places = wave_places(i);
            stretch += dy[places.x] * wave.x + dy[places.y] * wave.y;
        }
        d -= stretch;
    }
    store_norm(row, amplitude(row) * d);
}

@compute @workgroup_size(WORKGROUP)
fn relu(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        y[i] = max(params.factor * x[i], 0.0) + params.eps;
    }
}

@compute @workgroup_size(WORKGROUP)
fn relu_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        store(i, select(0.0, params.factor * dy[i], x[i] > 0.0));
    }
}

// Below -80 the exponential would leave the range of f32, and nothing is left of the value.
fn logistic(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(-max(value, -80.0)));
}

@compute @workgroup_size(WORKGROUP)
fn sigmoid(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        y[i] = logistic(x[i]) + params.eps;
    }
}

@compute @workgroup_size(WORKGROUP)
fn sigmoid_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.rows * params.width {
        store(i, dy[i] * logistic(x[i]) * logistic(-x[i]));
    }
}

// r_i of a row: its elements, then their negatives, each at least 0.
fn rectified(row: u32, i: u32) -> f32 {
    if i < params.width {
        return max(x[row * params.width + i], 0.0);
    }
    return max(-x[row * params.width + i - params.width], 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn dpfp(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = flat_index(workgroup, workgroups, WORKGROUP, local);
    let twice = 2u * params.width;
    if at >= params.rows * params.shifts * twice {
        return;
    }
    let row = at / (params.shifts * twice);
    let i = at % twice;
    let shift = (at / twice % params.shifts + 1u) % twice;
    y[at] = rectified(row, i) * rectified(row, (i + twice - shift) % twice);
}

// Gradient of r_i: it stands in the product at i and in the one at i + shift, for every shift.
fn dpfp_slope(row: u32, i: u32) -> f32 {
    let twice = 2u * params.width;
    var d = 0.0;
    for (var j = 0u; j < params.shifts; j++) {
        let shift = (j + 1u) % twice;
        let at = (row * params.shifts + j) * twice;
        let later = (i + shift) % twice;
        d += dy[at + i] * rectified(row, (i + twice - shift) % twice) + dy[at + later] * rectified(row, later);
    }
    return d;
}

@compute @workgroup_size(WORKGROUP)
fn dpfp_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.width {
        return;
    }
    let row = i / params.width;
    let column = i % params.width;
    var d = 0.0;
    if x[i] > 0.0 {
        d = dpfp_slope(row, column);
    } else if x[i] < 0.0 {
        d = -dpfp_slope(row, column + params.width);
    }
    store(i, d);
}

// (sin, cos) of a row's place among the rows of its matrix.
fn place(row: u32) -> vec2<f32> {
    var number = f32(row % params.tokens);
    var count = f32(params.tokens);
    if HAS_PADDING {
        let at = row / params.tokens / params.heads * (params.tokens + 1u);
        number = ranks[at + row % params.tokens];
        count = max(ranks[at + params.tokens], 1.0);
    }
    return sine_and_cosine(1.5707964 * number / count);
}

@compute @workgroup_size(WORKGROUP)
fn positions(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = flat_index(workgroup, workgroups, WORKGROUP, local);
    let twice = 2u * params.width;
    if at >= params.rows * twice {
        return;
    }
    let row = at / twice;
    let wave = place(row);
    y[at] = x[row * params.width + at % params.width] * select(wave.x, wave.y, at % twice < params.width);
}

@compute @workgroup_size(WORKGROUP)
fn positions_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.width {
        return;
    }
    let row = i / params.width;
    let at = row * 2u * params.width + i % params.width;
    let wave = place(row);
    store(i, dy[at] * wave.y + dy[at + params.width] * wave.x);
}
