//! A long run holds as much memory at its end as after its beginning, on the host and on the device.

use std::time::Instant;

use lara_models::train::Event;
use lara_runtime::Gpu;

use crate::train::{Options, adapter, here};

/// Host memory that may come and go: pages that the allocator keeps, bytes.
const SLACK: u64 = 8 << 20;

/// Trains `steps` steps of a tiny model, evaluations and checkpoints included.
pub(crate) fn campaign(steps: u64) -> Result<(), String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let home = std::env::current_dir().map_err(|error| error.to_string())?;
    std::env::set_current_dir(place.path()).map_err(|error| error.to_string())?;
    // 179 steps of 8 images an epoch.
    let epochs = steps.div_ceil(179);
    let sets = [
        "train.batch_size=8".to_owned(),
        "train.grad_accum_steps=1".to_owned(),
        format!("train.epochs={epochs}"),
        "output.eval_interval=20".to_owned(),
        "output.checkpoint_interval=20".to_owned(),
        "output.log_interval=100".to_owned(),
    ];
    let gpu = Gpu::open_blocking(&adapter()).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let (warm, mut first, mut last, mut taken) = (epochs * 179 / 10, None, None, 0);
    let outcome = here(&gpu, &Options { sets: sets.to_vec(), ..Options::default() }, &mut |event| {
        if let Event::Step(progress) = event {
            taken = progress.result.step + 1;
            if taken == warm || taken == progress.total_steps {
                let now = resident().zip(Some(gpu.memory_in_use()));
                (first, last) = (first.or(now), now);
            }
            if taken.is_multiple_of(10_000) {
                println!("step {taken}: {:?} bytes on the host, {} on the device", resident(), gpu.memory_in_use());
            }
        }
    });
    std::env::set_current_dir(home).map_err(|error| error.to_string())?;
    outcome.map_err(|error| error.to_string())?;
    let Some(((host, device), (host_end, device_end))) = first.zip(last) else {
        println!("long: {taken} steps; this system does not say how much memory a process holds");
        return Ok(());
    };
    let rate = taken as f64 / start.elapsed().as_secs_f64();
    println!(
        "long: {taken} steps, {rate:.0} a second; host {host} bytes after {warm} steps, {host_end} at the end; device {device} and {device_end}"
    );
    if device_end > device {
        return Err(format!("the device holds {} bytes more at the end", device_end - device));
    }
    if host_end > host + SLACK {
        return Err(format!("the host holds {} bytes more at the end", host_end - host));
    }
    Ok(())
}

/// Memory of this process, bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}
