// Keys drawn from rows of probabilities, `samples` for every row: inverse CDF, index_rs = the first key m at which
// p_r0 + .. + p_rm exceeds a uniform number. The uniform depends on (seed, stream, step, row of all rows, sample) alone.
// Keys of probability 0 are never drawn; where rounding leaves a row's sum below the uniform it is the last key of
// positive probability, where a row has none it is key 0. There is no gradient.
// One invocation per row and sample; a workgroup holds 64. p is a slab of rows, the first of which is row params.first.
// Write policy: forward stores index (as numbers in f32, exact up to 2^24 keys).

#import header
#import index
#import philox

struct Params { rows: u32, keys: u32, samples: u32, first: u32, stream: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> p: array<f32>;           // [rows, keys]
@group(0) @binding(3) var<storage, read_write> index: array<f32>; // [all rows, samples]

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i >= params.rows * params.samples {
        return;
    }
    let draw = params.first * params.samples + i;
    let counter = vec4(draw, header.micro_step, header.step, params.stream);
    let u = uniform_open(philox(counter, vec2(header.seed_low, header.seed_high)).x);
    let at = i / params.samples * params.keys;
    var sum = 0.0;
    var drawn = 0u;
    for (var m = 0u; m < params.keys; m++) {
        let share = p[at + m];
        if share > 0.0 {
            sum += share;
            drawn = m;
            if sum > u {
                break;
            }
        }
    }
    index[draw] = f32(drawn);
}
