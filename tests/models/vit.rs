use lara_models::data::{Batch, Position};
use lara_models::train::{Session, TrainConfig};
use lara_runtime::Tune;
use lara_tests::adapter;

fn config(sets: &[&str]) -> TrainConfig {
    let mut all = vec!["model.patch_size=2", "train.batch_size=8", "train.warmup_epochs=0", "train.smoothing=0", "train.lr=1e-3"];
    all.extend(sets);
    TrainConfig::load("digits", &all).unwrap_or_else(|e| panic!("{e}"))
}

fn eight_samples() -> Vec<Batch> {
    let images = (0..8 * 64).map(|i| (0.37 * i as f32).sin() + (0.011 * (i * i) as f32).cos()).collect();
    vec![Batch { images, labels: (0..8).collect(), indices: (0..8).collect(), position: Position::default() }]
}

fn losses(config: &TrainConfig, steps: u64) -> Vec<f64> {
    let schedule = config.schedule(1000);
    let tune = Tune::fixed(&["rows", "forward_rows", "slabs"]);
    let session = Session::new(adapter(), &tune, config, schedule);
    let mut session = pollster::block_on(session).unwrap_or_else(|e| panic!("{e}"));
    let batch = eight_samples();
    let mut losses = Vec::new();
    for step in 0..steps {
        session.step(step, &batch).unwrap_or_else(|e| panic!("{e}"));
        losses.extend(session.finish().unwrap_or_else(|e| panic!("{e}")).iter().map(|r| r.loss));
    }
    losses
}

#[test]
fn eight_samples_are_learnt_by_heart() {
    for mechanism in ["softmax", "lara"] {
        let config = config(&[&format!("attention.mechanism={mechanism}"), "attention.num_landmarks=4"]);
        let losses = losses(&config, 60);
        eprintln!("{mechanism} {losses:?}");
        assert!(losses[59] < 0.05, "{mechanism}: the loss after 60 steps is {}", losses[59]);
    }
}
