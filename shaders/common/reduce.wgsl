// Sums and largest values over a workgroup of WORKGROUP (index.wgsl), as trees: no chain of additions is long. All of its
// invocations call, and all get the result.
var<workgroup> reduced: array<f32, WORKGROUP>;
var<workgroup> reduced_twos: array<vec2<f32>, WORKGROUP>;
var<workgroup> reduced_fours: array<vec4<f32>, WORKGROUP>;
var<workgroup> reduced_keys: array<vec2<u32>, WORKGROUP>;

fn sum_of(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    reduced[local] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            reduced[local] += reduced[local + half];
        }
        workgroupBarrier();
    }
    return reduced[0];
}

fn sum_of_two(value: vec2<f32>, local: u32) -> vec2<f32> {
    workgroupBarrier();
    reduced_twos[local] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            reduced_twos[local] += reduced_twos[local + half];
        }
        workgroupBarrier();
    }
    return reduced_twos[0];
}

fn sum_of_four(value: vec4<f32>, local: u32) -> vec4<f32> {
    workgroupBarrier();
    reduced_fours[local] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            reduced_fours[local] += reduced_fours[local + half];
        }
        workgroupBarrier();
    }
    return reduced_fours[0];
}

fn largest_of(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    reduced[local] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            reduced[local] = max(reduced[local], reduced[local + half]);
        }
        workgroupBarrier();
    }
    return reduced[0];
}

fn largest_of_two(keys: vec2<u32>, local: u32) -> vec2<u32> {
    workgroupBarrier();
    reduced_keys[local] = keys;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            reduced_keys[local] = max(reduced_keys[local], reduced_keys[local + half]);
        }
        workgroupBarrier();
    }
    return reduced_keys[0];
}
