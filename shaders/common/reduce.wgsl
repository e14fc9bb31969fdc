// Sums and largest values over a workgroup of 64. All of its invocations call, and all get the result.
var<workgroup> reduced: array<f32, WORKGROUP>;

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
