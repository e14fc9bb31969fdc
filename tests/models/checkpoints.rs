//! The checkpoints of a run: which are kept, what a crash or a full disk leaves, and that nothing broken ends a run.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use lara_models::Error;
use lara_models::train::checkpoints::latest;
use lara_models::train::{Checkpoint, Checkpoints, Snapshot, State};
use lara_models::weights::TensorView;

use crate::checkpoint::{SHAPES, bits, folders, run, save, sentence, tree};

#[test]
fn the_last_ones_and_the_best_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut checkpoints = Checkpoints::open(dir, 2).unwrap();
    assert_eq!(latest(dir), None);
    for step in [5, 40, 999_999, 1_000_000] {
        let path = save(&mut checkpoints, &run(step), false).unwrap();
        if step <= 40 {
            assert_eq!(checkpoints.promote_to_best(&path).unwrap(), dir.join("best"));
        }
        assert_eq!(latest(dir), Some(path));
    }
    assert_eq!(folders(dir), ["best", "checkpoint-1000000", "checkpoint-999999"]);
    assert_eq!(Checkpoint::load(dir.join("best")).unwrap().state.step, 40);
    assert_eq!(bits(&Checkpoint::load(dir.join("best")).unwrap().weights(&SHAPES).unwrap()), bits(&run(40).weights));
    // A run that goes back: what it saves is not thrown away for being older than what was there.
    save(&mut checkpoints, &run(50), false).unwrap();
    assert_eq!(folders(dir), ["best", "checkpoint-000050", "checkpoint-1000000"]);
}

/// Turns one bit of a file, at a share of its length.
fn flip(path: &Path, share: f64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = (file.metadata().unwrap().len() as f64 * share) as u64;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

fn cut(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

#[test]
fn a_broken_checkpoint_is_passed_over_for_the_next_older_one() {
    let whole = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::open(whole.path(), 3).unwrap();
    for step in [7, 8, 9] {
        save(&mut checkpoints, &run(step), step == 9).unwrap();
    }
    type Break<'a> = &'a dyn Fn(&Path);
    let breaks: [(&str, Break<'_>); 11] = [
        ("an empty folder of a high number", &|dir| fs::create_dir(dir.join("checkpoint-999999")).unwrap()),
        ("no state", &|dir| fs::remove_file(dir.join("checkpoint-000009/state.json")).unwrap()),
        ("no model", &|dir| fs::remove_file(dir.join("checkpoint-000009/model.safetensors")).unwrap()),
        ("no optimizer", &|dir| fs::remove_file(dir.join("checkpoint-000009/optimizer.safetensors")).unwrap()),
        ("half a state", &|dir| cut(&dir.join("checkpoint-000009/state.json"))),
        ("half a model", &|dir| cut(&dir.join("checkpoint-000009/model.safetensors"))),
        ("half an optimizer", &|dir| cut(&dir.join("checkpoint-000009/optimizer.safetensors"))),
        ("a bit of a weight", &|dir| flip(&dir.join("checkpoint-000009/model.safetensors"), 0.99)),
        ("a bit of a moment", &|dir| flip(&dir.join("checkpoint-000009/optimizer.safetensors"), 0.99)),
        ("another's optimizer", &|dir| {
            let [from, to] = ["8", "9"].map(|step| dir.join(format!("checkpoint-00000{step}/optimizer.safetensors")));
            fs::copy(from, to).map(drop).unwrap();
        }),
        ("a configuration that does not parse", &|dir| {
            let state = dir.join("checkpoint-000009/state.json");
            fs::write(&state, fs::read_to_string(&state).unwrap().replace("[model]", "[modell]")).unwrap();
        }),
    ];
    for (what, damage) in breaks {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        copy(whole.path(), &dir);
        damage(&dir);
        let before = tree(&dir);
        let is_extra = dir.join("checkpoint-999999").exists();
        let checkpoint = Checkpoint::load(&dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(checkpoint.state.step, if is_extra { 9 } else { 8 }, "{what}");
        assert_eq!(checkpoint.passed_over.len(), 1, "{what}");
        let mut checkpoints = Checkpoints::open(&dir, 1).unwrap();
        checkpoints.go_back_to(&checkpoint);
        assert!(tree(&dir) == before, "{what}: something was changed before anything was saved");
        // Named by itself it is refused.
        assert!(!sentence(Checkpoint::load(&checkpoint.passed_over[0]), &dir).is_empty());
        // What was passed over is not this run's to remove, nor does it count among those that are kept.
        save(&mut checkpoints, &run(10), false).unwrap();
        let broken = checkpoint.passed_over[0].file_name().unwrap().to_str().unwrap();
        let mut expected = ["checkpoint-000010", broken];
        expected.sort_unstable();
        assert_eq!(folders(&dir), expected, "{what}");
    }
}

#[test]
fn where_every_checkpoint_is_broken_each_gets_its_reason() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut checkpoints = Checkpoints::open(dir, 3).unwrap();
    for step in [7, 8] {
        let path = save(&mut checkpoints, &run(step), false).unwrap();
        fs::remove_file(path.join(if step == 7 { "state.json" } else { "model.safetensors" })).unwrap();
    }
    assert_eq!(
        sentence(Checkpoint::load(dir), dir),
        "ROOT: holds no checkpoint that can be used: ROOT/checkpoint-000008: is no whole checkpoint: it has no \
         model.safetensors; ROOT/checkpoint-000007: is no whole checkpoint: it has no state.json"
    );
    assert_eq!(latest(dir), None);
}

#[test]
fn a_checkpoint_of_a_newer_program_is_not_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut checkpoints = Checkpoints::open(dir, 3).unwrap();
    save(&mut checkpoints, &run(7), true).unwrap();
    let state = save(&mut checkpoints, &run(8), true).unwrap().join("state.json");
    fs::write(&state, fs::read_to_string(&state).unwrap().replace("\"format\": 2", "\"format\": 3")).unwrap();
    assert!(sentence(Checkpoint::load(dir), dir).contains("use a newer lara"));
}

#[test]
fn going_back_removes_the_future_with_the_first_save_and_not_before() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut checkpoints = Checkpoints::open(dir, 5).unwrap();
    for step in [10, 20, 30, 40] {
        save(&mut checkpoints, &run(step), false).unwrap();
    }
    let before = tree(dir);
    let mut checkpoints = Checkpoints::open(dir, 5).unwrap();
    assert_eq!(checkpoints.go_back_to(&Checkpoint::load(dir.join("checkpoint-000020")).unwrap()), 2);
    assert!(tree(dir) == before);
    save(&mut checkpoints, &run(25), false).unwrap();
    assert_eq!(folders(dir), ["checkpoint-000010", "checkpoint-000020", "checkpoint-000025"]);
    save(&mut checkpoints, &run(30), false).unwrap();
    assert_eq!(folders(dir).len(), 4);
}

#[test]
fn best_is_put_right_after_a_crash_between_save_and_promotion() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut checkpoints = Checkpoints::open(dir, 5).unwrap();
    let best = || Checkpoint::load(dir.join("best")).unwrap().state.step;
    let first = save(&mut checkpoints, &run(10), false).unwrap();
    // run() says of every step that it is the best so far.
    checkpoints.repair_best(&run(10).state).unwrap();
    assert_eq!(best(), 10);
    checkpoints.promote_to_best(&first).unwrap();
    let second = save(&mut checkpoints, &run(20), false).unwrap();
    checkpoints.repair_best(&run(20).state).unwrap();
    assert_eq!(best(), 20);
    // Damaged.
    fs::remove_file(dir.join("best/model.safetensors")).unwrap();
    checkpoints.repair_best(&run(20).state).unwrap();
    assert_eq!(best(), 20);
    assert_eq!(tree(&second), tree(&dir.join("best")));
    // From a future that the run may come to again.
    checkpoints.repair_best(&run(10).state).unwrap();
    assert_eq!(best(), 20);
    // What it should be is gone: better an older one than none.
    checkpoints.repair_best(&run(30).state).unwrap();
    assert_eq!(best(), 20);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target: PathBuf = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_a_crash_left_is_put_right() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut checkpoints = Checkpoints::open(dir, 2).unwrap();
    let path = save(&mut checkpoints, &run(7), true).unwrap();
    checkpoints.promote_to_best(&path).unwrap();
    let before = tree(dir);
    // Killed while writing a checkpoint, and between the two renames that replace the best one.
    fs::create_dir(dir.join(".checkpoint-000008.new.tmp")).unwrap();
    fs::write(dir.join(".checkpoint-000008.new.tmp/model.safetensors"), "half").unwrap();
    fs::rename(dir.join("best"), dir.join(".best.old.tmp")).unwrap();
    assert_eq!(latest(dir), Some(path.clone()));
    Checkpoints::open(dir, 2).unwrap();
    assert_eq!(tree(dir), before);
    // Killed after them: the new one stays, the old one goes; and so does what was being removed.
    fs::create_dir(dir.join(".best.old.tmp")).unwrap();
    fs::create_dir(dir.join(".checkpoint-000001.gone.tmp")).unwrap();
    fs::write(dir.join(".checkpoint-000001.gone.tmp/state.json"), "{}").unwrap();
    Checkpoints::open(dir, 2).unwrap();
    assert_eq!(tree(dir), before);
    // A half-written folder of the same name does not stop the next save either.
    fs::create_dir(dir.join(".checkpoint-000009.new.tmp")).unwrap();
    save(&mut checkpoints, &run(9), false).unwrap();
    assert_eq!(folders(dir), ["best", "checkpoint-000007", "checkpoint-000009"]);
}

/// A file system of 1 MB, unmounted when dropped. Only root on Linux can have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before_as_it_was() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small tmpfs cannot be mounted here (that takes root on Linux)");
        return;
    };
    let dir = disk.0.path().join("run");
    let mut checkpoints = Checkpoints::open(&dir, 1).unwrap();
    let path = save(&mut checkpoints, &run(1), true).unwrap();
    checkpoints.promote_to_best(&path).unwrap();
    let before = tree(&dir);
    // 400 kB of weights fit once, not three times.
    let big = vec![1.0f32; 100_000];
    let wide = [TensorView { name: "w".into(), shape: &[100_000], data: &big }];
    let state = State { step: 2, ..run(2).state };
    let snapshot = Snapshot {
        state: &state,
        weights: wide.to_vec(),
        exp_avg: wide.to_vec(),
        exp_avg_sq: wide.to_vec(),
        ema: None,
    };
    let error = checkpoints.save(&snapshot).unwrap_err();
    assert!(matches!(error, Error::Save { .. }) && !error.is_bad_input());
    assert_eq!(
        error.to_string().replace(&format!("{}", dir.display()), "RUN"),
        "cannot save RUN/checkpoint-000002: No space left on device (os error 28); the last checkpoint, \
         RUN/checkpoint-000001, is intact; free some space or set output.dir to another disk"
    );
    assert_eq!(tree(&dir), before);
    assert_eq!(bits(&Checkpoint::load(&dir).unwrap().weights(&SHAPES).unwrap()), bits(&run(1).weights));
    // Room again: the run goes on.
    save(&mut checkpoints, &run(3), true).unwrap();
    assert_eq!(folders(&dir), ["best", "checkpoint-000003"]);
}
