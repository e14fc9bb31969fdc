//! Runs that go on: from an older checkpoint, beside broken ones, after a crash at the wrong moment, one at a time.

use std::fs;
use std::path::Path;
use std::process::Command;

use lara_models::train::checkpoints::latest;
use lara_models::train::{Control, Event};
use pollster::block_on;

use crate::checkpoint::{folders, tree};
use crate::trainer::{configure, done, error, interrupted, metrics, resume, start, tensors};

#[test]
fn a_run_goes_on_beside_a_stray_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| temp.path().join(name));
    let expected = done(start(&configure(&whole, &["train.epochs=2"])));
    let first = interrupted(start(&configure(&broken, &["train.epochs=2"])), 10).checkpoint.unwrap();
    fs::create_dir(broken.join("checkpoint-999999")).unwrap();
    fs::write(broken.join("checkpoint-999999/state.json"), "{}").unwrap();
    let resumed = done(resume(&broken));
    assert!(tensors(&expected.checkpoint.unwrap()) == tensors(&resumed.checkpoint.unwrap()));
    assert!(first.exists() && broken.join("checkpoint-999999/state.json").exists());
}

#[test]
fn going_on_from_an_older_checkpoint_removes_nothing_before_it_saves() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let summary = done(start(&configure(dir, &["train.epochs=3"])));
    let [first, newest] = ["checkpoint-000022", "checkpoint-000066"].map(|name| dir.join(name));
    let (before, lines) = (tree(&newest), metrics(dir));
    let best = tree(&dir.join("best"));
    let trainer = resume(&first).unwrap();
    assert_eq!((trainer.total(), trainer.position()), (66, 22));
    drop(trainer);
    assert!(before == tree(&newest) && best == tree(&dir.join("best")));
    assert_eq!(latest(dir), Some(newest.clone()));
    // Its metrics go on from there; what was there is kept.
    assert!(metrics(dir).iter().all(|line| line["step"].as_u64() <= Some(22)));
    let kept = fs::read_to_string(dir.join("metrics.1.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), lines.len());
    // The same future, bit for bit.
    let again = done(resume(&first));
    assert_eq!(again.checkpoint, summary.checkpoint);
    assert_eq!(metrics(dir), lines);
    let names: Vec<String> = folders(dir).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(
        names,
        [
            "best",
            "checkpoint-000022",
            "checkpoint-000044",
            "checkpoint-000066",
            "metrics.1.jsonl",
            "metrics.2.jsonl",
            "metrics.jsonl"
        ]
    );
}

#[test]
fn a_crash_between_save_and_promotion_leaves_the_right_best() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let summary = done(start(&configure(dir, &["train.epochs=3"])));
    let best = dir.join("best");
    let right = tree(&best);
    let (_, step) = summary.best.unwrap();
    assert!(step > 22, "the first epoch was the best, which proves nothing");
    fs::remove_dir_all(&best).unwrap();
    fs::create_dir(&best).unwrap();
    for file in fs::read_dir(dir.join("checkpoint-000022")).unwrap().flatten() {
        fs::copy(file.path(), best.join(file.file_name())).unwrap();
    }
    drop(resume(dir).unwrap());
    assert!(tree(&best) == right);
}

#[test]
fn a_folder_has_one_run_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let trainer = start(&configure(&dir, &["train.epochs=1"])).unwrap();
    let refused = |text: String| {
        assert!(text.contains("is being written by process") && text.contains("output.dir"), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    };
    // It has saved nothing yet.
    let second = error(start(&configure(&dir, &["train.epochs=1"])));
    assert!(second.is_bad_input());
    refused(second.to_string());
    // While it runs.
    let mut seconds = 0;
    block_on(trainer.run(&Control::new(), &mut |event| {
        if let Event::Saved(path) = event {
            for path in [path, &dir] {
                refused(error(resume(path)).to_string());
            }
            seconds += 1;
        }
    }))
    .unwrap();
    assert_eq!(seconds, 1);
    // It has ended.
    resume(&dir).unwrap();
}

/// A run's folder on a disk that cannot be written to, for as long as this lives. Only root on Linux can have one.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn mount(dir: &'a Path) -> Option<Self> {
        let mount = |args: &[&str]| {
            let output = Command::new("mount").args(args).arg(dir).output();
            output.is_ok_and(|output| output.status.success())
        };
        let bound = mount(&["--bind", dir.to_str()?]).then_some(Self(dir))?;
        mount(&["-o", "remount,ro,bind"]).then_some(bound)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_folder_that_cannot_be_written_to_gets_a_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    done(start(&configure(&dir, &["train.epochs=1"])));
    let before = tree(&dir);
    let Some(_disk) = ReadOnly::mount(&dir) else {
        eprintln!("skipped: a folder cannot be mounted read-only here (that takes root on Linux)");
        return;
    };
    let refusals = [error(resume(&dir)), error(start(&configure(&dir.join("new"), &["train.epochs=1"])))];
    for refusal in &refusals {
        assert!(refusal.is_bad_input() && refusal.to_string().contains("Read-only file system"), "{refusal}");
    }
    assert!(refusals[0].to_string().contains("cannot be written to") && before == tree(&dir));
}
