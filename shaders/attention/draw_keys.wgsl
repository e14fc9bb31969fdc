// Keys drawn from rows of probabilities, `samples` for every row: inverse CDF on three levels. A row is cut into
// stretches of 64 blocks of up to 256 keys (few keys: into 64 blocks, one stretch). A stretch, a block in it and a key in
// that are drawn by their sums, each with a uniform number of its own, which it is multiplied with the sum of the level
// for: of 10^6 keys every one is drawn as often as it should, the last ones, too, since no f32 sum has more than a
// thousand terms and no number has to tell 10^6 keys apart. The uniforms depend on (seed, stream, step, number) alone.
// The number of a draw is that of its place among all rows, or (params.by_batch == 0) its place in its sample, so that
// what else is in the batch does not matter. HAS_PADDING: a query counts by its rank among the real ones, as if the
// padding were not there.
// Keys of probability 0 are never drawn; where a row has no other it is key 0. There is no gradient.
// p is a slab of rows, the first of which is row params.first.
//
// forward       one workgroup of 64 per row (GPUs): the blocks of a stretch side by side
// forward_rows  one invocation per row and sample, 64 a workgroup (CPU-like adapters: no barriers)
// Both add in the same order and draw the same keys.
// Write policy: index (numbers as f32, exact up to 2^24 keys, which is the most there may be) is stored.

// Variant: HAS_PADDING=1

#import header
#import index
#import philox

override HAS_PADDING: bool = false;

struct Params {
    rows: u32, keys: u32, samples: u32, first: u32, stream: u32, heads: u32, queries: u32, by_batch: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> p: array<f32>;           // [rows, keys]
@group(0) @binding(3) var<storage, read_write> index: array<f32>; // [all rows, samples]
@group(0) @binding(4) var<storage, read> ranks: array<f32>;       // [batch, queries + 1] real queries before each

const BLOCKS = WORKGROUP; // one an invocation in forward
const LONGEST = 256u;

// Sums of the blocks of the last stretch, and of all stretches.
var<workgroup> blocks: array<f32, WORKGROUP>;
var<workgroup> stretches: array<f32, 1024>;

// What is drawn on one level, and its sum.
struct Found { place: u32, share: f32 }

// Three uniform numbers: for a block in its stretch, a key in its block, and a stretch.
fn uniforms_of(row: u32, sample: u32) -> vec3<f32> {
    let per_sample = params.heads * params.queries;
    let b = row / per_sample;
    var place = select(row % per_sample, row, params.by_batch == 1u);
    var turn = header.micro_step;
    if HAS_PADDING {
        let at = b * (params.queries + 1u);
        let head = row % per_sample / params.queries;
        place = head * u32(ranks[at + params.queries]) + u32(ranks[at + row % params.queries]);
        turn += select(0u, b << 16u, params.by_batch == 1u);
    }
    let counter = vec4(place * params.samples + sample, turn, header.step, params.stream);
    let bits = philox(counter, vec2(header.seed_low, header.seed_high));
    return vec3(uniform_open(bits.x), uniform_open(bits.y), uniform_open(bits.z));
}

fn block_size() -> u32 {
    return min((params.keys + BLOCKS - 1u) / BLOCKS, LONGEST);
}

fn stretch_count() -> u32 {
    let size = BLOCKS * block_size();
    return (params.keys + size - 1u) / size;
}

// `at` is the place of the row's key 0, here and below.
fn block_sum(at: u32, block: u32) -> f32 {
    let size = block_size();
    var sum = 0.0;
    for (var m = block * size; m < min((block + 1u) * size, params.keys); m++) {
        let share = p[at + m];
        sum += select(0.0, share, share > 0.0);
    }
    return sum;
}

fn stretch_sum(at: u32, stretch: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < BLOCKS; i++) {
        sum += block_sum(at, stretch * BLOCKS + i);
    }
    return sum;
}

// The block of a stretch at which the sum exceeds u times the whole, or the last that has a share.
fn find_block(at: u32, stretch: Found, u: f32) -> Found {
    var found = Found(stretch.place * BLOCKS, 0.0);
    var sum = 0.0;
    for (var i = 0u; i < BLOCKS; i++) {
        let share = block_sum(at, stretch.place * BLOCKS + i);
        if share > 0.0 {
            sum += share;
            found = Found(stretch.place * BLOCKS + i, share);
            if sum > u * stretch.share {
                break;
            }
        }
    }
    return found;
}

// The same for the key of a block.
fn find_key(at: u32, block: Found, u: f32) -> u32 {
    let begin = block.place * block_size();
    var found = begin;
    var sum = 0.0;
    for (var m = begin; m < min(begin + block_size(), params.keys); m++) {
        let share = p[at + m];
        if share > 0.0 {
            sum += share;
            found = m;
            if sum > u * block.share {
                break;
            }
        }
    }
    return found;
}

// find_block where the sums are known.
fn find_known_block(whole: f32, u: f32) -> Found {
    var found = Found(0u, 0.0);
    var sum = 0.0;
    for (var i = 0u; i < BLOCKS; i++) {
        if blocks[i] > 0.0 {
            sum += blocks[i];
            found = Found(i, blocks[i]);
            if sum > u * whole {
                break;
            }
        }
    }
    return found;
}

fn find_known_stretch(u: f32) -> Found {
    var whole = 0.0;
    for (var i = 0u; i < stretch_count(); i++) {
        whole += stretches[i];
    }
    var found = Found(0u, 0.0);
    var sum = 0.0;
    for (var i = 0u; i < stretch_count(); i++) {
        if stretches[i] > 0.0 {
            sum += stretches[i];
            found = Found(i, stretches[i]);
            if sum > u * whole {
                break;
            }
        }
    }
    return found;
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
    let at = row * params.keys;
    for (var stretch = 0u; stretch < stretch_count(); stretch++) {
        blocks[local] = block_sum(at, stretch * BLOCKS + local);
        workgroupBarrier();
        // One after the other, as forward_rows adds.
        if local == 0u {
            var sum = 0.0;
            for (var i = 0u; i < BLOCKS; i++) {
                sum += blocks[i];
            }
            stretches[stretch] = sum;
        }
        workgroupBarrier();
    }
    for (var sample = local; sample < params.samples; sample += WORKGROUP) {
        let all = params.first + row;
        let u = uniforms_of(all, sample);
        var block: Found;
        if stretch_count() == 1u {
            block = find_known_block(stretches[0], u.x);
        } else {
            block = find_block(at, find_known_stretch(u.z), u.x);
        }
        index[all * params.samples + sample] = f32(find_key(at, block, u.y));
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.samples {
        return;
    }
    let row = i / params.samples;
    let at = row * params.keys;
    let u = uniforms_of(params.first + row, i % params.samples);
    var stretch = Found(0u, stretch_sum(at, 0u));
    if stretch_count() > 1u {
        var whole = stretch.share;
        for (var s = 1u; s < stretch_count(); s++) {
            whole += stretch_sum(at, s);
        }
        var sum = 0.0;
        for (var s = 0u; s < stretch_count() && sum <= u.z * whole; s++) {
            let share = stretch_sum(at, s);
            if share > 0.0 {
                sum += share;
                stretch = Found(s, share);
            }
        }
    }
    index[params.first * params.samples + i] = f32(find_key(at, find_block(at, stretch, u.x), u.y));
}
