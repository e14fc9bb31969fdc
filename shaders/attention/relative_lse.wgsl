// Log-sum-exps as a key term, relative to others or to the largest peak of their row: with lse_c = peak_c + log(sum_c),
//   y_c = peak_c - max_c peak_c + log(sum_c)                        lse_c but for a number that is the same for all c, which a
//                                                                   softmax over c does not see
//   y_c = peak_c - below_peak_c + log(sum_c) - log(below_sum_c)     HAS_BELOW: lse_c - below_lse_c
// In f32 a log-sum-exp of 1e4 is rounded by 5e-4; what is left here is small where weights are large. Gradient: that of lse is dy.
// What has the mask's number as its peak keeps it.
// One workgroup of 64 per row, spread over x and y.
// Write policy: stores y.

// Variant: HAS_BELOW=1

#import index
#import mask
#import reduce

override HAS_BELOW: bool = false;

struct Params { rows: u32, cols: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> over: array<f32>;        // [rows, cols, 2] peak and sum
@group(0) @binding(3) var<storage, read> below: array<f32>;       // [rows, cols, 2] the same of what is subtracted
@group(0) @binding(4) var<storage, read_write> y: array<f32>;     // [rows, cols]

fn exponent(i: u32) -> f32 {
    let peak = over[i * 2u];
    if HAS_BELOW {
        return select(peak - below[i * 2u], MASKED, is_masked(peak));
    }
    return peak;
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
    let begin = row * params.cols;
    var largest = MASKED;
    for (var c = local; c < params.cols; c += WORKGROUP) {
        largest = max(largest, exponent(begin + c));
    }
    // Under HAS_BELOW the largest may be that of a proposal that is missing.
    largest = select(largest_of(largest, local), 0.0, HAS_BELOW);
    for (var c = local; c < params.cols; c += WORKGROUP) {
        let i = begin + c;
        let e = exponent(i);
        var term = e - largest + log(max(over[i * 2u + 1u], 1e-30));
        if HAS_BELOW {
            term -= log(max(below[i * 2u + 1u], 1e-30));
        }
        y[i] = select(term, MASKED, is_masked(e));
    }
}
