//! Runs that end before their time: stopped in an evaluation, without an image, without a device. What can be saved is,
//! and who resumes ends with the same bits.

use std::fs;
use std::path::Path;

use lara_models::Error;
use lara_models::data::{ImageShape, picture};
use lara_models::train::checkpoints::latest;
use lara_models::train::{Checkpoint, Control, Event, Summary, TrainConfig, Trainer};
use lara_runtime::{Gpu, GpuOptions};
use lara_tests::adapter;
use pollster::block_on;

use crate::checkpoint::tree;
use crate::trainer::{configure, done, error, metrics, resume, start, tensors, tune};

/// Trains until the evaluation after `epoch`, and ends it there.
fn stopped_in_evaluation(dir: &Path, sets: &[&str], epoch: u64) -> Summary {
    let (control, mut evaluated) = (Control::new(), 0);
    let summary = block_on(start(&configure(dir, sets)).unwrap().run(&control, &mut |event| match event {
        Event::Evaluating { done, total } => {
            assert!(done < total || evaluated + 1 < epoch, "the evaluation went on");
            if evaluated + 1 == epoch {
                control.stop();
            }
        }
        Event::Evaluated { .. } => evaluated += 1,
        _ => {}
    }));
    assert_eq!(evaluated, epoch - 1);
    summary.unwrap()
}

#[test]
fn a_stop_ends_an_evaluation_which_the_resumed_run_makes_up_for() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    // So that a batch of an evaluation is a part of it.
    let sets = ["train.batch_size=100", "train.epochs=2"];
    let expected = done(start(&configure(&whole, &sets)));
    for epoch in [1, 2] {
        let dir = temp.path().join(format!("stopped in {epoch}"));
        let summary = stopped_in_evaluation(&dir, &sets, epoch);
        assert!(summary.interrupted && summary.steps == 14 * epoch);
        let resumed = done(resume(&dir));
        assert_eq!((&resumed.evaluation, resumed.best), (&expected.evaluation, expected.best));
        assert!(tensors(resumed.checkpoint.as_ref().unwrap()) == tensors(expected.checkpoint.as_ref().unwrap()));
        assert_eq!(metrics(&whole), metrics(&dir));
        assert!(tree(&dir.join("best")).keys().eq(tree(&whole.join("best")).keys()));
    }
}

const RGB_8: ImageShape = ImageShape { channels: 3, height: 8, width: 8 };

/// A folder with 20 pictures to learn from and 4 to test with, of two classes.
fn pictures(root: &Path) {
    for (split, count) in [("train", 10), ("val", 2)] {
        for (class, base) in [("dark", 0.1), ("light", 0.6)] {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let pixels: Vec<f32> = (0..RGB_8.len()).map(|j| base + ((i * 31 + j * 7) % 10) as f32 / 30.0).collect();
                picture::save_png(folder.join(format!("{i}.png")), &pixels, RGB_8).unwrap();
            }
        }
    }
}

fn of_pictures(dir: &Path, data: &Path) -> TrainConfig {
    let path = format!("data.path={}", data.display());
    let sets =
        ["data.dataset=folder", "model.in_chans=3", "model.num_classes=2", "train.batch_size=4", "train.epochs=4"];
    configure(
        dir,
        &[&sets[..], &["output.checkpoint_interval=100", "output.eval_interval=100", "data.crop_padding=0", &path]]
            .concat(),
    )
}

#[test]
fn a_run_that_fails_saves_first_and_says_how_to_go_on() {
    let temp = tempfile::tempdir().unwrap();
    let [data, whole, broken] = ["data", "whole", "broken"].map(|name| temp.path().join(name));
    pictures(&data);
    let expected = done(start(&of_pictures(&whole, &data)));
    let (picture, aside) = (data.join("train/dark/3.png"), temp.path().join("3.png"));
    let trainer = start(&of_pictures(&broken, &data)).unwrap();
    let failure = error(block_on(trainer.run(&Control::new(), &mut |event| {
        if matches!(event, Event::Step(progress) if progress.result.step + 1 == 7) {
            fs::rename(&picture, &aside).unwrap();
        }
    })));
    let text = failure.to_string();
    assert!(failure.is_bad_input() && text.contains("3.png"), "{text}");
    let saved = latest(&broken).unwrap();
    assert!(Checkpoint::load(&saved).unwrap().state.step >= 7);
    assert!(text.contains("was saved") && text.contains(&format!("--resume {}", saved.display())), "{text}");
    fs::rename(&aside, &picture).unwrap();
    let resumed = done(resume(&broken));
    assert!(tensors(&resumed.checkpoint.unwrap()) == tensors(&expected.checkpoint.unwrap()));
    assert_eq!(metrics(&whole), metrics(&broken));
}

/// The first fault of a device that is lost with its submit number `submits`.
fn lost_after(dir: &Path, submits: u64) -> Error {
    let adapter = std::env::var("LARA_ADAPTER").ok();
    let options = GpuOptions { adapter, lose_after: Some(submits), ..GpuOptions::default() };
    let gpu = Gpu::open_blocking(&options).unwrap();
    let config = configure(dir, &[]);
    let run =
        || block_on(async { Trainer::new(&gpu, &tune(), &config).await?.run(&Control::new(), &mut |_| {}).await });
    error(run())
}

#[test]
fn a_lost_device_leaves_the_last_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, early, late] = ["whole", "early", "late"].map(|name| temp.path().join(name));
    let expected = done(start(&configure(&whole, &[])));
    let text = lost_after(&early, 15).to_string();
    assert!(text.contains("device was lost") && text.contains("no checkpoint was written before"), "{text}");
    // An epoch, its evaluation and its checkpoint take some forty submits.
    let text = lost_after(&late, 50).to_string();
    let saved = latest(&late).unwrap();
    assert!(text.contains("device was lost") && text.contains(saved.to_str().unwrap()), "{text}");
    let resumed = done(resume(&late));
    assert!(tensors(&resumed.checkpoint.unwrap()) == tensors(&expected.checkpoint.unwrap()));
    assert_eq!(metrics(&whole), metrics(&late));
}

#[test]
fn changed_images_end_a_resume_unless_they_are_accepted() {
    let temp = tempfile::tempdir().unwrap();
    let [data, run] = ["data", "run"].map(|name| temp.path().join(name));
    pictures(&data);
    let control = Control::new();
    let summary = block_on(start(&of_pictures(&run, &data)).unwrap().run(&control, &mut |event| {
        if matches!(event, Event::Step(progress) if progress.result.step + 1 == 7) {
            control.stop();
        }
    }));
    let steps = summary.unwrap().steps;
    let refused = |what: &str| {
        let refusal = error(resume(&run));
        let text = refusal.to_string();
        assert!(refusal.is_bad_input() && text.contains(what) && text.contains("--accept-changed-data"), "{text}");
    };
    let path = |name: &str| data.join("train/dark").join(name);
    fs::rename(path("3.png"), path("33.png")).unwrap();
    refused("other training images: there are 20 as before, but they have other names or classes");
    fs::rename(path("33.png"), path("3.png")).unwrap();
    // A folder may have another name and the same images.
    let moved = temp.path().join("moved");
    fs::rename(&data, &moved).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&moved, &data).unwrap();
    #[cfg(not(unix))]
    fs::rename(&moved, &data).unwrap();
    assert_eq!(resume(&run).unwrap().position(), steps);
    fs::copy(data.join("val/dark/0.png"), data.join("val/dark/00.png")).unwrap();
    refused("other held-out images: there were 4 and are 5");
    fs::remove_file(data.join("val/dark/00.png")).unwrap();
    // Five batches an epoch were; now there are four.
    (4..8).for_each(|i| fs::remove_file(path(&format!("{i}.png"))).unwrap());
    refused("other training images: there were 20 and are 16");
    let trainer = block_on(Trainer::resume_with_changed_data(adapter(), &tune(), &run)).unwrap();
    assert_eq!((trainer.position(), trainer.total()), (steps, 16));
    let summary = done(Ok(trainer));
    let state = Checkpoint::load(&run).unwrap().state;
    assert_eq!((summary.steps, state.position.epoch * 4 + state.position.batch), (16, 16));
    // It is another run's data now, and this one's.
    assert_eq!(resume(&run).unwrap().position(), 16);
}
