//! The device: too little memory, and a device that is lost, at every submit that there may be.

use std::path::Path;

use lara_models::data::Split;
use lara_models::train::TrainConfig;
use lara_models::{Predictor, train};
use lara_runtime::{Gpu, GpuOptions, Parameters, Tune};
use pollster::block_on;

use crate::train::{End, Options, RUN, adapter, configure, here};

/// Tries both, in this process, in folders of its own.
pub(crate) fn campaign(trials: u64) -> Result<(), String> {
    let home = std::env::current_dir().map_err(|error| error.to_string())?;
    let outcome = try_all(trials);
    std::env::set_current_dir(home).map_err(|error| error.to_string())?;
    outcome
}

fn open(memory_limit: Option<u64>, lose_after: Option<u64>) -> Result<Gpu, String> {
    let options = GpuOptions { memory_limit, lose_after, ..adapter() };
    Gpu::open_blocking(&options).map_err(|error| error.to_string())
}

/// A folder to train in, which becomes the current one.
fn enter() -> Result<tempfile::TempDir, String> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::env::set_current_dir(place.path()).map_err(|error| error.to_string())?;
    Ok(place)
}

fn run(gpu: &Gpu, resumes: bool) -> lara_models::Result<train::Summary> {
    here(gpu, &Options { resumes, ..Options::default() }, &mut |_| {})
}

fn try_all(trials: u64) -> Result<(), String> {
    let place = enter()?;
    let gpu = open(None, None)?;
    run(&gpu, false).map_err(|error| error.to_string())?;
    let expected = End::of(place.path())?;
    let needed = gpu.memory_in_use();
    drop(gpu);
    memory(&expected, trials)?;
    lost(&expected, trials)?;
    evaluation()?;
    println!(
        "device: an undisturbed run ends with {needed} bytes in use; {trials} limits and {trials} losses, 0 runs lost"
    );
    Ok(())
}

/// Every refusal for want of memory is a sentence with numbers; what was saved before can be gone on with.
fn memory(expected: &End, trials: u64) -> Result<(), String> {
    let mut refused = 0;
    for trial in 0..trials {
        let place = enter()?;
        let limit = 4096 << trial;
        match run(&open(Some(limit), None)?, false) {
            Ok(_) => {}
            Err(error) => {
                let said = error.to_string();
                if !said.contains(|c: char| c.is_ascii_digit()) || said.lines().count() != 1 {
                    return Err(format!("with {limit} bytes of memory: {said}"));
                }
                refused += 1;
                if trial == 0 {
                    println!("memory: {said}");
                }
                let resumes = lara_models::train::checkpoints::latest(RUN).is_some();
                run(&open(None, None)?, resumes).map_err(|error| format!("after {limit} bytes: {error}"))?;
            }
        }
        compare(place.path(), expected, &format!("with {limit} bytes of memory"))?;
    }
    if refused == 0 { Err("no limit for memory was ever noticed".into()) } else { Ok(()) }
}

/// Wherever the device is lost, the run goes on from what was saved.
fn lost(expected: &End, trials: u64) -> Result<(), String> {
    for trial in 0..trials {
        let place = enter()?;
        let after = 1 + trial * 199 / trials;
        match run(&open(None, Some(after))?, false) {
            Ok(_) => {}
            Err(error) => {
                if error.to_string().lines().count() != 1 || error.is_bad_input() {
                    return Err(format!("lost after {after} submits: {error}"));
                }
                if trial == trials / 2 {
                    println!("lost device: {error}");
                }
                let resumes = lara_models::train::checkpoints::latest(RUN).is_some();
                if !resumes {
                    // The folder may not be there yet.
                    _ = std::fs::remove_dir_all(RUN);
                }
                run(&open(None, None)?, resumes).map_err(|error| format!("lost after {after} submits: {error}"))?;
            }
        }
        compare(place.path(), expected, &format!("lost after {after} submits"))?;
    }
    Ok(())
}

fn compare(place: &Path, expected: &End, what: &str) -> Result<(), String> {
    End::of(place)?
        .difference(expected)
        .map_or(Ok(()), |difference| Err(format!("{what}, it ended differently: {difference}")))
}

/// Evaluation and prediction on a device with little memory, and on one that is lost.
fn evaluation() -> Result<(), String> {
    let config = configure(&[]).map_err(|error| error.to_string())?;
    for (limit, after) in [(Some(8192), None), (Some(1 << 20), None), (None, Some(1)), (None, Some(2)), (None, Some(3))]
    {
        let gpu = open(limit, after)?;
        let Err(error) = evaluate(&gpu, &config) else { continue };
        let said = error.to_string();
        if said.lines().count() != 1 || (limit.is_some() && !said.contains(|c: char| c.is_ascii_digit())) {
            return Err(format!("evaluation with limit {limit:?}, lost after {after:?}: {said}"));
        }
        println!("evaluation ({limit:?} bytes, lost after {after:?}): {said}");
    }
    Ok(())
}

fn evaluate(gpu: &Gpu, config: &TrainConfig) -> lara_models::Result<()> {
    let mut parameters = Parameters::new(gpu);
    let data = config.open_data(Split::Test)?;
    block_on(async {
        let predictor = Predictor::new(gpu, &Tune::fixed(&[]), config, &mut parameters, 4, false).await?;
        parameters.initialize(gpu, 1).unwrap();
        let sample = data.get(0)?;
        for _ in 0..4 {
            predictor.logits(&sample.pixels).await?;
        }
        Ok(())
    })
}
