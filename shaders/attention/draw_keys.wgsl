// Keys drawn from rows of probabilities, `samples` for every row: inverse CDF, index_rs = the first key m at which
// p_r0 + .. + p_rm exceeds a uniform number, which depends on (seed, stream, step, row of all rows, sample) alone.
// Keys of probability 0 are never drawn; where rounding leaves a row's sum below the uniform it is the last key of
// positive probability, where a row has none it is key 0. There is no gradient.
// p is a slab of rows, the first of which is row params.first.
//
// forward       one workgroup of 64 per row (GPUs): the row in 64 stretches, whose sums say where a uniform falls
// forward_rows  one invocation per row and sample, 64 a workgroup (CPU-like adapters: no barriers)
// Both add in the order of the keys and differ by rounding alone.
// Write policy: index (numbers as f32, exact up to 2^24 keys) is stored.

#import header
#import index
#import philox

struct Params { rows: u32, keys: u32, samples: u32, first: u32, stream: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> p: array<f32>;           // [rows, keys]
@group(0) @binding(3) var<storage, read_write> index: array<f32>; // [all rows, samples]

// Sum of p up to the end of each stretch, and the number after its last key of positive probability (0 without one).
var<workgroup> ends: array<f32, 64>;
var<workgroup> lasts: array<u32, 64>;

fn uniform_of(draw: u32) -> f32 {
    let counter = vec4(draw, header.micro_step, header.step, params.stream);
    return uniform_open(philox(counter, vec2(header.seed_low, header.seed_high)).x);
}

// The first key from `begin` on at which `below` and the probabilities so far exceed u, or the last of positive
// probability before `end`. `at` is the place of key 0.
fn search(at: u32, begin: u32, end: u32, below: f32, u: f32) -> u32 {
    var sum = below;
    var drawn = begin;
    for (var m = begin; m < end; m++) {
        let share = p[at + m];
        if share > 0.0 {
            sum += share;
            drawn = m;
            if sum > u {
                break;
            }
        }
    }
    return drawn;
}

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.keys;
    let stretch = (params.keys + 63u) / 64u;
    var own = 0.0;
    var last = 0u;
    for (var m = local * stretch; m < min((local + 1u) * stretch, params.keys); m++) {
        let share = p[at + m];
        if share > 0.0 {
            own += share;
            last = m + 1u;
        }
    }
    ends[local] = own;
    lasts[local] = last;
    workgroupBarrier();
    // One after the other: sums of a tree could rise where a stretch has no key, and a masked one would be drawn.
    if local == 0u {
        for (var i = 1u; i < 64u; i++) {
            ends[i] += ends[i - 1u];
            lasts[i] = max(lasts[i], lasts[i - 1u]);
        }
    }
    workgroupBarrier();
    for (var sample = local; sample < params.samples; sample += 64u) {
        let draw = (params.first + row) * params.samples + sample;
        let u = uniform_of(draw);
        var part = 0u;
        while part < 64u && ends[min(part, 63u)] <= u {
            part++;
        }
        // Past the last stretch rounding left the sum below the uniform.
        var drawn = max(lasts[63], 1u) - 1u;
        if part < 64u {
            let below = select(0.0, ends[max(part, 1u) - 1u], part > 0u);
            drawn = search(at, part * stretch, min((part + 1u) * stretch, params.keys), below, u);
        }
        index[draw] = f32(drawn);
    }
}

@compute @workgroup_size(64)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i >= params.rows * params.samples {
        return;
    }
    let draw = params.first * params.samples + i;
    index[draw] = f32(search(i / params.samples * params.keys, 0u, params.keys, 0.0, uniform_of(draw)));
}
