//! The checkpoints of a run: `checkpoint-000123/` for the last steps that were saved, `best/` for the best.
//!
//! A checkpoint is written into a folder beside its place, synced and renamed, so it is there whole or not at all. One
//! that is damaged all the same (a disk, another program) is passed over for the next older one.

use std::fs;
use std::path::{Path, PathBuf};

use super::atomic_dir;
use super::checkpoint::{self, Checkpoint, Snapshot, State};
pub use super::layout::{BEST, latest};
use super::layout::{FILES, PREFIX, folder_name, missing, numbered};
use super::lock::RunLock;
use crate::error::{Error, Result};

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
    /// Those of the future that a run left when it went back to an older one; they go with the next save.
    stale: Vec<PathBuf>,
    /// Those that could not be read: left alone.
    passed_over: Vec<PathBuf>,
}

impl Checkpoints {
    /// The checkpoints in the run's folder `dir`, which is created if need be; the newest `keep` (at least 1) are kept.
    /// Puts right what a crash in the middle of a save may have left.
    pub fn open(dir: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        atomic_dir::recover(&dir).map_err(Error::io("tidy", &dir))?;
        Ok(Self { dir, keep: keep.max(1), stale: Vec::new(), passed_over: Vec::new() })
    }

    /// Goes on from `checkpoint`. Nothing is removed before the next save: only then newer checkpoints are no longer
    /// this run's. What was passed over stays where it is. Returns how many are newer.
    pub fn go_back_to(&mut self, checkpoint: &Checkpoint) -> usize {
        self.passed_over.clone_from(&checkpoint.passed_over);
        self.stale =
            self.whole().into_iter().filter(|(at, _)| *at > checkpoint.state.step).map(|(_, path)| path).collect();
        self.stale.len()
    }

    /// Saves a checkpoint, then removes those of a future that was left, and the oldest beyond those kept. Returns its
    /// folder.
    ///
    /// If it fails (disk full, say) nothing that was there is touched, and the error says which checkpoint survives.
    pub fn save(&mut self, snapshot: &Snapshot<'_>) -> Result<PathBuf> {
        let name = folder_name(snapshot.state.step);
        let target = self.dir.join(&name);
        checkpoint::write(&self.dir, &name, snapshot).map_err(|error| self.save_error(&target, &error))?;
        for stale in std::mem::take(&mut self.stale).into_iter().filter(|path| *path != target) {
            tracing::info!("{} is removed: the run went back to before it", stale.display());
            self.remove(&stale);
        }
        for old in self.surplus(snapshot.state.step) {
            self.remove(&old);
        }
        Ok(target)
    }

    /// Makes `best/` a copy of a saved checkpoint (by hard links where the file system has them).
    pub fn promote_to_best(&self, checkpoint: &Path) -> Result<PathBuf> {
        let target = self.dir.join(BEST);
        atomic_dir::write(&self.dir, BEST, |folder| {
            FILES.iter().try_for_each(|name| folder.link(name, &checkpoint.join(name)))
        })
        .map_err(|error| self.save_error(&target, &error))?;
        Ok(target)
    }

    /// Makes `best/` what `state` says is the best, where a crash came between saving that and promoting it. A `best/`
    /// that is newer than `state` stays: it is from a future that the run may come to again.
    ///
    /// # Errors
    /// See [`Checkpoints::promote_to_best`].
    pub fn repair_best(&self, state: &State) -> Result<()> {
        let Some(step) = state.best_step else { return Ok(()) };
        let best = Checkpoint::read(&self.dir.join(BEST));
        if best.as_ref().is_ok_and(|best| best.state.step == step || best.state.step > state.step) {
            return Ok(());
        }
        let source = self.dir.join(folder_name(step));
        if Checkpoint::read(&source).is_ok() {
            tracing::info!("{BEST} becomes the checkpoint of step {step}, as it should have been");
            return self.promote_to_best(&source).map(drop);
        }
        tracing::warn!(
            "{} is not the best checkpoint, which was that of step {step} and is gone; it stays until a better one comes",
            self.dir.join(BEST).display()
        );
        Ok(())
    }

    /// (step, folder) of every checkpoint with all its files, oldest first, without those that were passed over.
    fn whole(&self) -> Vec<(u64, PathBuf)> {
        let mut all = numbered(&self.dir);
        all.retain(|(_, path)| missing(path).is_none() && !self.passed_over.contains(path));
        all
    }

    /// Oldest first, never the one of `step`.
    fn surplus(&self, step: u64) -> Vec<PathBuf> {
        let all = self.whole();
        let count = all.len().saturating_sub(self.keep);
        all.into_iter().filter(|(at, _)| *at != step).take(count).map(|(_, path)| path).collect()
    }

    fn remove(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Err(error) = atomic_dir::remove(&self.dir, name) {
            tracing::warn!("cannot remove the old checkpoint {}: {error}", path.display());
        }
    }

    fn save_error(&self, target: &Path, error: &std::io::Error) -> Error {
        let survives = match latest(&self.dir) {
            Some(last) => format!("the last checkpoint, {}, is intact", last.display()),
            None => "there was no checkpoint before it".into(),
        };
        use std::io::ErrorKind as Kind;
        let advice = match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => "; free some space or set output.dir to another disk",
            Kind::FileTooLarge => "; raise the limit on the size of a file (ulimit -f)",
            _ => "",
        };
        Error::Save { path: target.to_path_buf(), problem: error.to_string(), survives: survives + advice }
    }
}

/// Locks a run's folder and puts right what a crash left in it. A folder that holds no run is left as it is.
pub(super) fn lock_and_recover(dir: &Path) -> Result<Option<RunLock>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(None) };
    let is_run = entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.trim_start_matches('.').starts_with(PREFIX))
    });
    if !is_run {
        return Ok(None);
    }
    let lock = RunLock::take(dir)?;
    atomic_dir::recover(dir).map_err(Error::io("tidy", dir))?;
    Ok(Some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Position;
    use crate::train::TrainConfig;
    use crate::train::atomic_dir::killed::kill_after;
    use crate::weights::TensorView;

    const KEEP: usize = 2;

    /// The step says what is in it, so that a checkpoint made of two would be noticed.
    fn save(checkpoints: &mut Checkpoints, step: u64) -> PathBuf {
        let state = State {
            step,
            position: Position::default(),
            evaluation_due: false,
            seed: 1,
            best_metric: Some(step as f64),
            best_step: Some(step),
            classes: Vec::new(),
            data: None,
            config: TrainConfig::default().to_toml().unwrap(),
            kernels: Default::default(),
        };
        let values = vec![step as f32; 5000];
        let tensors = [TensorView { name: "w".into(), shape: &[5000], data: &values }];
        let [weights, exp_avg, exp_avg_sq] = [(); 3].map(|()| tensors.to_vec());
        checkpoints.save(&Snapshot { state: &state, weights, exp_avg, exp_avg_sq, ema: None }).unwrap()
    }

    /// The step of a checkpoint, all parts of which must be of one.
    fn step_of(checkpoint: &Checkpoint) -> u64 {
        let wanted = [("w", [5000])];
        let optimizer = checkpoint.optimizer(&wanted).unwrap();
        for values in [&checkpoint.weights(&wanted).unwrap(), &optimizer.exp_avg, &optimizer.exp_avg_sq] {
            assert!(values[0].iter().all(|&value| value == checkpoint.state.step as f32));
        }
        checkpoint.state.step
    }

    /// What a run does with its folder, as far as it gets. Step 20 is saved twice, as it is by a click on "save".
    fn run(dir: &Path, saved: &mut u64, best: &mut u64) {
        let mut checkpoints = Checkpoints::open(dir, KEEP).unwrap();
        for step in [10, 20, 20, 30, 40] {
            let path = save(&mut checkpoints, step);
            *saved = step;
            if step != 30 {
                checkpoints.promote_to_best(&path).unwrap();
                *best = step;
            }
        }
    }

    /// Goes back to step 20 and saves step 25.
    fn go_back(dir: &Path, saved: &mut u64) {
        let mut checkpoints = Checkpoints::open(dir, KEEP).unwrap();
        checkpoints.go_back_to(&Checkpoint::load(dir.join(folder_name(30))).unwrap());
        save(&mut checkpoints, 35);
        *saved = 35;
    }

    /// After a kill the folder holds what was saved last, or one more; recovering may be killed as well.
    fn check(dir: &Path, saved: u64, best: u64) {
        for after in 0.. {
            if kill_after(after, || drop(lock_and_recover(dir).unwrap())) {
                break;
            }
        }
        let left: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
        assert!(left.iter().filter(|name| name.starts_with(PREFIX)).all(|name| missing(&dir.join(name)).is_none()));
        let newest = Checkpoint::load(dir);
        assert!(newest.is_ok() || saved == 0, "saved {saved}, and there is {left:?}");
        let Ok(newest) = newest else { return };
        assert!(newest.passed_over.is_empty());
        assert!(step_of(&newest) >= saved, "{} after {saved}", newest.state.step);
        let checkpoints = Checkpoints::open(dir, KEEP).unwrap();
        checkpoints.repair_best(&newest.state).unwrap();
        let found = Checkpoint::load(dir.join(BEST)).unwrap();
        assert!(step_of(&found) >= best, "best is {} after {best}", found.state.step);
    }

    #[test]
    fn a_run_killed_before_any_change_of_the_disk_loses_nothing() {
        let mut kills = 0;
        loop {
            let temp = tempfile::tempdir().unwrap();
            let (mut saved, mut best) = (0, 0);
            let lived = kill_after(kills, || run(temp.path(), &mut saved, &mut best));
            check(temp.path(), saved, best);
            if lived {
                break;
            }
            kills += 1;
        }
        assert!(kills > 100, "only {kills} places to be killed at");
    }

    #[test]
    fn a_run_that_goes_back_and_is_killed_keeps_where_it_went_back_to() {
        for kills in 0.. {
            let temp = tempfile::tempdir().unwrap();
            run(temp.path(), &mut 0, &mut 0);
            let mut saved = 30;
            let lived = kill_after(kills, || go_back(temp.path(), &mut saved));
            check(temp.path(), saved, 40);
            if lived {
                assert_eq!(latest(temp.path()), Some(temp.path().join(folder_name(35))));
                assert!(kills > 20, "only {kills} places to be killed at");
                break;
            }
        }
    }
}
