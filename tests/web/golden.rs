//! The golden cases, models of other libraries and a few training steps as one report in JSON: in a browser, where another
//! compiler reads the shaders and nothing may block, and natively (`cargo run -p lara-tests --bin golden`), to compare with.

mod models;

use lara_models::data::{Augment, Loader, LoaderOptions, Position, Split};
use lara_models::train::{Session, TrainConfig, names_and_shapes};
use lara_models::weights::{self, TensorFile, TensorView};
use lara_runtime::{Gpu, GpuOptions, Role, Tune};
use lara_tests::{GOLDEN_TOLERANCE, GOLDEN_VARIANTS, Golden, GoldenCase, relative_error};
use models::GOLDEN_MODELS;
use serde_json::{Value, json};

/// Steps on one batch, by which its loss must have fallen by a tenth.
const STEPS: u64 = 12;

/// `{adapter, limits, cases: [{name, variant, error}], models: [{name, error}], losses: [..], failures: [..]}`.
async fn report() -> Result<Value, String> {
    let options = GpuOptions { adapter: std::env::var("LARA_ADAPTER").ok(), ..GpuOptions::default() };
    let gpu = Gpu::open(&options).await.map_err(|e| e.to_string())?;
    let mut failures = Vec::new();
    let cases = golden(&gpu, &mut failures).await;
    let models = golden_models(&gpu, &mut failures).await;
    let losses = train(&gpu).await.unwrap_or_else(|error| {
        failures.push(format!("training: {error}"));
        Vec::new()
    });
    // The classifier begins with zeros, so that every class is as likely as any other.
    let begins = losses.first().is_some_and(|first| (first - 10.0_f64.ln()).abs() < 1e-4);
    let learns = losses.len() as u64 == STEPS && losses.last() < losses.first().map(|first| 0.9 * first).as_ref();
    if !begins || !learns {
        failures.push(format!("training: {STEPS} steps on one batch from ln 10 to nine tenths of it were {losses:?}"));
    }
    let adapter = gpu.report();
    Ok(json!({
        "adapter": format!("{} ({}, {})", adapter.name, adapter.backend, adapter.kind),
        "limits": adapter.limits,
        "cases": cases,
        "models": models,
        "losses": losses,
        "failures": failures,
    }))
}

async fn golden(gpu: &Gpu, failures: &mut Vec<String>) -> Vec<Value> {
    let golden = Golden::load();
    let mut cases = Vec::new();
    for name in golden.names() {
        for preferred in GOLDEN_VARIANTS {
            let variant = preferred.join(" ");
            let output = match GoldenCase::parse(name) {
                Ok(case) => case.output(gpu, preferred).await.map_err(|e| e.to_string()),
                Err(error) => Err(error),
            };
            match output {
                Ok(got) => {
                    let error = relative_error(golden.case(name), &got);
                    if error > GOLDEN_TOLERANCE {
                        failures.push(format!("{name} ({variant}): {error:.1e} is more than {GOLDEN_TOLERANCE:.0e}"));
                    }
                    cases.push(json!({ "name": name, "variant": variant, "error": error }));
                }
                Err(error) => failures.push(format!("{name} ({variant}): {error}")),
            }
        }
    }
    cases
}

/// Models of other libraries against what the libraries computed.
async fn golden_models(gpu: &Gpu, failures: &mut Vec<String>) -> Vec<Value> {
    let mut models = Vec::new();
    for model in GOLDEN_MODELS {
        let name = model.name;
        match model.error(gpu, &Tune::fixed(&[])).await {
            Ok(error) => {
                if error > GOLDEN_TOLERANCE {
                    failures.push(format!("model {name}: {error:.1e} is more than {GOLDEN_TOLERANCE:.0e}"));
                }
                models.push(json!({ "name": name, "error": error }));
            }
            Err(error) => failures.push(format!("model {name}: {error}")),
        }
    }
    models
}

/// Losses of a small model on the embedded digits; its weights then go through the bytes of a file.
async fn train(gpu: &Gpu) -> lara_models::Result<Vec<f64>> {
    let config = TrainConfig::load("digits", &["train.warmup_epochs=0", "data.workers=0"])?;
    let images = config.open_data(Split::Train)?;
    let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 0, Augment::eval(&config.data));
    let batch = Loader::new(images, options, Position::default())?.next().into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut session = Session::new(gpu, &Tune::fixed(&[]), &config, config.schedule(100)).await?;
    let (mut losses, mut values) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        session.step(step, &batch)?;
        // Reading lets a browser return to its event loop, where the losses arrive.
        values = session.parameters.read(gpu, Role::Weight).await?;
        losses.extend(session.results()?.iter().map(|result| result.loss));
    }
    let entries = session.parameters.entries().iter().zip(&values);
    let views: Vec<TensorView<'_>> = entries
        .map(|(entry, data)| TensorView { name: entry.name.as_str().into(), shape: entry.shape.dims(), data })
        .collect();
    let mut bytes = Vec::new();
    weights::write(&mut bytes, &views, &Default::default())
        .map_err(|e| lara_models::Error::Failed(format!("the weights were not written: {e}")))?;
    let file = TensorFile::from_bytes("trained.safetensors", bytes)?;
    if file.get_all(&names_and_shapes(&session.parameters))? != values {
        return Err(lara_models::Error::Failed("weights changed on their way through a file".into()));
    }
    Ok(losses)
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), String> {
    use std::io::Write;
    let report = pollster::block_on(report())?;
    writeln!(std::io::stdout(), "{report:#}").map_err(|e| e.to_string())
}

/// Everything happens when the page calls `golden_report`.
#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(target_arch = "wasm32")]
mod page {
    use wasm_bindgen::prelude::*;

    /// The report as text; throws a sentence if there is no adapter.
    #[expect(unreachable_pub, reason = "wasm-bindgen exports only what is public")]
    #[wasm_bindgen]
    pub async fn golden_report() -> Result<String, JsValue> {
        super::report().await.map(|report| report.to_string()).map_err(|error| error.into())
    }
}
