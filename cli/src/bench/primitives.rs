//! Peaks, matrix products, and what convolutions are made of.

use lara_runtime::ops::{Channels, DepthwiseConv, Layout, Product, Unfold, Windows, peak};
use lara_runtime::{Dtype, Gpu, Mode, Parameters, Plan, Recorder, Tape, Tune};

use super::measure::time;
use super::rows::Bench;
use crate::fail::Outcome;

/// GFLOP/s of multiply-adds in registers.
pub(super) fn fma_peak(gpu: &Gpu) -> Outcome<f64> {
    // Enough invocations for the largest GPU; rounds so that a CPU needs about 50 ms.
    let (len, rounds) = if gpu.is_cpu() { (1 << 16, 64) } else { (1 << 22, 64) };
    let mut rec = Recorder::new(Tune::default());
    let (x, y) = (rec.pinned("x", [len]), rec.pinned("y", [len]));
    peak::multiply_add(&mut rec, x, y, rounds);
    let plan = Plan::compile_blocking(gpu, rec, &Parameters::new(gpu))?;
    // Neither zero nor growing: x = 0.9 x + 0.9.
    plan.write(x, &vec![0.9; len])?;
    let flops = 2.0 * (peak::MULTIPLY_ADDS * rounds * len / 4) as f64;
    Ok(flops / time(&plan)?.fastest / 1e9)
}

/// GB/s of a copy of 64 MiB, bytes read plus bytes written.
pub(super) fn copy_bandwidth(gpu: &Gpu) -> Outcome<f64> {
    let len = (64 << 20) / Dtype::F32.size() as usize;
    let mut rec = Recorder::new(Tune::default());
    let (x, y) = (rec.pinned("x", [len]), rec.pinned("y", [len]));
    peak::copy(&mut rec, x, y);
    let plan = Plan::compile_blocking(gpu, rec, &Parameters::new(gpu))?;
    plan.write(x, &vec![1.5; len])?;
    Ok(2.0 * x.bytes() as f64 / time(&plan)?.fastest / 1e9)
}

/// Squares, and the products of ViTs: qkv, fc1, fc2 of the reference model at batch 64 and of tiny p16 at batch 8,
/// a weight gradient, and attention's two products.
const PRODUCTS: [(Layout, usize, [usize; 3]); 10] = [
    (Layout::Nt, 1, [512, 512, 512]),
    (Layout::Nn, 1, [512, 512, 512]),
    (Layout::Nt, 1, [1024, 1024, 1024]),
    (Layout::Nt, 1, [3136, 192, 64]),
    (Layout::Nt, 1, [3136, 256, 64]),
    (Layout::Nt, 1, [3136, 64, 256]),
    (Layout::Tn, 1, [256, 64, 3136]),
    (Layout::Nt, 1, [1576, 576, 192]),
    (Layout::Nt, 3, [784, 784, 64]),
    (Layout::Nn, 3, [784, 64, 784]),
];

pub(super) fn matmuls(bench: &mut Bench<'_>) -> Outcome {
    for (layout, batch, [m, n, k]) in PRODUCTS {
        let name = format!("matmul {layout:?} {batch} x {m} x {n} x {k}").replace(" 1 x", "");
        bench.bar.set_message(name.clone());
        let mut rec = Recorder::new(bench.tune.clone());
        let a = rec.pinned("a", [batch, m * k]);
        let b = rec.pinned("b", [batch, k * n]);
        let c = rec.pinned("c", [batch, m * n]);
        Product { layout, batch, m, n, k, scale: 1.0, accumulate: false }.record(&mut rec, a, b, None, c);
        let plan = Plan::compile_blocking(bench.gpu, rec, &Parameters::new(bench.gpu))?;
        for (tensor, frequency) in [(a, 0.37), (b, 0.73)] {
            let values: Vec<f32> = (0..tensor.len()).map(|i| (frequency * i as f32).sin()).collect();
            plan.write(tensor, &values)?;
        }
        let times = time(&plan)?;
        bench.push(name, &times, Some(2.0 * (batch * m * n * k) as f64), None);
    }
    Ok(())
}

/// What slides over a grid: the channels, the grid, and the windows that are unfolded (none: a depthwise 3x3 convolution).
type Sliding = (usize, [usize; 2], Option<Windows>);

/// PVTv2's: both kinds of patch embedding (the first of images), a spatial reduction, and the MLPs of stages 1 and 3.
const SLIDING: [Sliding; 5] = [
    (3, [224, 224], Some(Windows::square(7, 4, 3))),
    (64, [56, 56], Some(Windows::square(3, 2, 1))),
    (64, [56, 56], Some(Windows::square(8, 8, 0))),
    (512, [56, 56], None),
    (1280, [14, 14], None),
];

/// Windows and depthwise convolutions of one image, forward and with gradients.
pub(super) fn convolutions(bench: &mut Bench<'_>) -> Outcome {
    for (channels, grid @ [height, width], windows) in SLIDING {
        for (direction, mode) in [("forward", Mode::Eval), ("forward+backward", Mode::Differentiate)] {
            let what = windows
                .map_or("depthwise_conv 3".into(), |w| format!("unfold {}, stride {}", w.kernel[1], w.stride[1]));
            let name = format!("{what}, {channels} x {height} x {width} {direction}");
            bench.bar.set_message(name.clone());
            let mut parameters = Parameters::new(bench.gpu);
            let mut tape = Tape::new(&mut parameters, &bench.tune, mode);
            let x = tape.variable("x", [1, height * width, channels]);
            let y = match windows {
                Some(windows) => {
                    let channels = Channels::Last([1, height, width]);
                    tape.apply(Unfold { windows, channels }, &[x])
                }
                None => {
                    let weight = tape.variable("weight", [channels, 1, 3, 3]);
                    let bias = tape.variable("bias", [channels]);
                    tape.apply(DepthwiseConv { grid }, &[x, weight, bias])
                }
            };
            if mode == Mode::Differentiate {
                let dy = tape.input("dy", y.shape());
                tape.backward(&[(y, dy)]);
            }
            let recording = tape.finish()?;
            let plan = Plan::compile_blocking(bench.gpu, recording, &parameters)?;
            plan.write(x, &vec![0.5; x.len()])?;
            let times = time(&plan)?;
            bench.push(name, &times, None, None);
        }
    }
    Ok(())
}
