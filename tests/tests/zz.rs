use lara_runtime::attention::Attend;
use lara_runtime::ops::{Layout, Product};
use lara_runtime::{Mode, Parameters, Plan, Recorder, Tape};
use lara_tests::{adapter, tune};

fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn time(name: &str, plan: &Plan) {
    let once = || {
        plan.run().steps().submit().unwrap();
        adapter().wait_blocking();
    };
    once();
    let mut best = f64::INFINITY;
    let mut wall = f64::INFINITY;
    let start = std::time::Instant::now();
    for _ in 0..3 {
        let c0 = cpu();
        let mut n = 0;
        while cpu() - c0 < 0.4 {
            let w = std::time::Instant::now();
            once();
            wall = wall.min(w.elapsed().as_secs_f64());
            n += 1;
        }
        best = best.min((cpu() - c0) / n as f64);
    }
    println!(
        "{name:50} cpu {:9.3} ms  wall {:9.3} ms  ({:.1}s)",
        best * 1e3,
        wall * 1e3,
        start.elapsed().as_secs_f64()
    );
}
#[test]
fn matmul() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for variant in ["tiles", "tiles_split", "rows", "rows4", "lanes"] {
        for (layout, batch, m, n, k) in [
            (Layout::Nt, 1, 512, 512, 512),
            (Layout::Nn, 1, 512, 512, 512),
            (Layout::Nt, 1, 3136, 192, 64),
            (Layout::Tn, 1, 256, 64, 3136),
            (Layout::Nn, 3, 784, 64, 784),
            (Layout::Nt, 3, 784, 784, 64),
            (Layout::Nt, 3, 784, 49, 64),
            (Layout::Nn, 3, 784, 64, 49),
        ] {
            let name = format!("{variant} {layout:?} {batch} {m} {n} {k}");
            if !name.contains(&only) {
                continue;
            }
            if variant.starts_with("tiles") && m * n * k > 1 << 26 {
                continue;
            }
            let mut rec = Recorder::new(tune(&[variant]));
            let [a, b, c] = [batch * m * k, batch * k * n, batch * m * n].map(|len| rec.pinned("x", [len]));
            let p = Product { layout, batch, m, n, k, scale: 0.5, accumulate: false };
            p.record(&mut rec, a, b, None, c);
            let plan = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).unwrap();
            time(&name, &plan);
        }
    }
}
#[test]
fn attend() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for variant in [&["streamed"][..], &["slabs", "lanes", "forward_rows4"]] {
        for (n, m) in [(196, 196), (784, 784), (49, 3136)] {
            for back in [false, true] {
                let name = format!("{variant:?} {n} {m} {back}");
                if !name.contains(&only) {
                    continue;
                }
                let mut parameters = Parameters::new(adapter());
                let mut tape = Tape::new(&mut parameters, &tune(variant), Mode::Differentiate);
                let q = tape.variable("q", [1, 3, n, 64]);
                let k = tape.variable("k", [1, 3, m, 64]);
                let v = tape.variable("v", [1, 3, m, 64]);
                let y = tape.apply_all(Attend::new(0.125), &[q, k, v])[0];
                tape.rec.pin(y);
                if back {
                    let dy = tape.input("dy", y.shape());
                    tape.backward(&[(y, dy)]);
                    for x in [q, k, v] {
                        let g = tape.gradient(x).unwrap();
                        tape.rec.pin(g);
                    }
                }
                let rec = tape.finish().unwrap();
                let plan = Plan::compile_blocking(adapter(), rec, &parameters).unwrap();
                for t in [q, k, v] {
                    plan.write(t, &vec![0.01; t.len()]);
                }
                time(&name, &plan);
            }
        }
    }
}
