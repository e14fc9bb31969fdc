// The 64 vec4s of sums of one lane in the matmul kernels for CPU-like adapters. They stay in memory, and so do the sums of
// former stretches of k: to add to these costs little, to add to C would cost as much as 30 more values of k.
var<private> sums: array<vec4<f32>, 64>;
var<private> totals: array<vec4<f32>, 64>;

// Places that the compiler knows: it would take a place in a loop for one that may differ from lane to lane.
fn settle_four(i: u32) {
    totals[i] += sums[i];
    totals[i + 1u] += sums[i + 1u];
    totals[i + 2u] += sums[i + 2u];
    totals[i + 3u] += sums[i + 3u];
    sums[i] = vec4(0.0);
    sums[i + 1u] = vec4(0.0);
    sums[i + 2u] = vec4(0.0);
    sums[i + 3u] = vec4(0.0);
}

// Moves the sums of a stretch to the totals.
fn settle() {
    settle_four(0u);
    settle_four(4u);
    settle_four(8u);
    settle_four(12u);
    settle_four(16u);
    settle_four(20u);
    settle_four(24u);
    settle_four(28u);
    settle_four(32u);
    settle_four(36u);
    settle_four(40u);
    settle_four(44u);
    settle_four(48u);
    settle_four(52u);
    settle_four(56u);
    settle_four(60u);
}

// What all stretches of a part add up to becomes `sums`.
fn take_back(part: Part) {
    if part.end <= part.begin + STRETCH {
        return;
    }
    settle();
    for (var i = 0u; i < 64u; i++) { sums[i] = totals[i]; }
}
