// Running mean and standard deviation over redraws of the randomness, one sample x a run (Welford's update). With the
// sample number t = header.micro_step, from 0:
//   t = 0: mean = x, m2 = 0;  t > 0: d = x - mean, mean += d / (t + 1), m2 += d (x - mean);  deviation = sqrt(m2 / max(t, 1))
// One invocation per four elements; a workgroup holds 64. Lengths are padded to whole vec4s.
// Write policy: mean and m2 are the state: replaced for sample 0, updated for the others; deviation is stored.

#import header
#import index

struct Params { quads: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;               // [len]
@group(0) @binding(3) var<storage, read_write> mean: array<vec4<f32>>;      // [len]
@group(0) @binding(4) var<storage, read_write> m2: array<vec4<f32>>;        // [len]
@group(0) @binding(5) var<storage, read_write> deviation: array<vec4<f32>>; // [len]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.quads {
        return;
    }
    let value = x[i];
    var centre = value;
    var squares = vec4(0.0);
    if header.micro_step > 0u {
        let old = mean[i];
        centre = old + (value - old) / (f32(header.micro_step) + 1.0);
        squares = m2[i] + (value - old) * (value - centre);
    }
    mean[i] = centre;
    m2[i] = squares;
    deviation[i] = sqrt(squares / max(f32(header.micro_step), 1.0));
}
