// Sets the lowest entries of every map to 0. With k = floor(ratio entries), in single precision and at most all entries:
// an entry is discarded if fewer than k + 1 entries of its map are as low as it or lower, that is, if it is below the
// (k + 1)-lowest; entries that equal that one are kept, so at most k are discarded and of equal ones all or none. With
// k = entries every entry is discarded. Entries in the first params.kept columns stay as they are (but do count).
//
// threshold  one workgroup of 256 per map; the (k + 1)-lowest is found exactly, by its bits: four times a histogram of
//            8 bits of those entries whose higher bits are known to be its own
// forward    one invocation per entry of all maps; a workgroup holds 64
// Numbers are compared as integers of the same order, so that the result does not depend on rounding.
// Write policy: threshold stores one number a map, forward stores y in full.

#import index

struct Params { maps: u32, entries: u32, cols: u32, kept: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;            // [maps, entries] bits of f32
@group(0) @binding(3) var<storage, read> ratio: array<f32>;        // [1]
@group(0) @binding(4) var<storage, read_write> lowest: array<u32>; // [maps] the lowest key that is kept
@group(0) @binding(5) var<storage, read> limits: array<u32>;       // [maps] the same, read
@group(0) @binding(6) var<storage, read_write> y: array<u32>;      // [maps, entries] bits of f32

const DIGITS = 256u; // values of 8 bits, and the invocations of threshold: one counts each

var<workgroup> histogram: array<atomic<u32>, DIGITS>;
var<workgroup> digit: u32;
var<workgroup> below: u32;

// Bits of floats as integers that are ordered like the floats.
fn ordered(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

@compute @workgroup_size(DIGITS)
fn threshold(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = workgroup.x * params.entries;
    let count = min(u32(clamp(ratio[0], 0.0, 1.0) * f32(params.entries)), params.entries);
    var rank = min(count, params.entries - 1u);
    var key = 0u;
    var known = 0u;
    for (var round = 0u; round < 4u; round++) {
        let shift = 24u - 8u * round;
        atomicStore(&histogram[local], 0u);
        workgroupBarrier();
        for (var i = local; i < params.entries; i += DIGITS) {
            let own = ordered(x[at + i]);
            if (own & known) == key {
                atomicAdd(&histogram[(own >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if local == 0u {
            // Entries whose digit is lower, up to the digit of the entry of this rank.
            var sum = 0u;
            var bin = 0u;
            for (; bin < 255u; bin++) {
                let next = sum + atomicLoad(&histogram[bin]);
                if next > rank {
                    break;
                }
                sum = next;
            }
            digit = bin;
            below = sum;
        }
        workgroupBarrier();
        key |= digit << shift;
        known |= 255u << shift;
        rank -= below;
    }
    if local == 0u {
        lowest[workgroup.x] = select(key, 0xffffffffu, count >= params.entries);
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.maps * params.entries {
        return;
    }
    let is_kept = i % params.cols < params.kept || ordered(x[i]) >= limits[i / params.entries];
    y[i] = select(0u, x[i], is_kept);
}
