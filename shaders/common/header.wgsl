// What changes from step to step, written once before a plan runs.
struct Header {
    step: u32,             // optimizer step, from 0
    seed_low: u32,         // low and high words of the run's seed
    seed_high: u32,
    micro_step: u32,       // position inside a gradient-accumulation cycle
    lr: f32,               // learning rate
    bias_correction1: f32, // 1 - beta1^(step + 1)
    bias_correction2: f32, // 1 - beta2^(step + 1)
    ema_decay: f32,        // decay of the averaged weights this step
}
@group(0) @binding(1) var<uniform> header: Header;
