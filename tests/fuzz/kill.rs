//! Runs that are killed: at any moment, inside a save, by a full disk, by a limit for files; and a second process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use lara_models::random::{Draws, Purpose};

use crate::train::{EPOCH, End, Options, RUN, start, to_the_end};

/// Kills of one run before it may end.
const KILLS_A_RUN: u64 = 5;

/// What came of it.
#[derive(Default)]
struct Tally {
    kills: AtomicU64,
    /// Those that left a save half done.
    in_saves: AtomicU64,
    runs: AtomicU64,
    lost: Mutex<Vec<String>>,
}

/// Kills runs `kills` times in all, two runs side by side, lets each go on to its end and compares that with the end of
/// a run that nothing disturbed. Then the same with full disks and a second process.
pub(crate) fn campaign(seed: u64, kills: u64) -> Result<(), String> {
    let began = Instant::now();
    let expected = undisturbed()?;
    let tally = Tally::default();
    let bar = ProgressBar::new(kills);
    let runs = kills.div_ceil(KILLS_A_RUN);
    std::thread::scope(|scope| {
        for job in 0..2 {
            let (tally, expected, bar) = (&tally, &expected, &bar);
            scope.spawn(move || {
                for run in (job..runs).step_by(2) {
                    let count = KILLS_A_RUN.min(kills - run * KILLS_A_RUN);
                    if let Err(what) = one_run(Draws::new(seed, Purpose::Augment, 0, run), count, expected, tally, bar)
                    {
                        lost(tally, format!("run {run}: {what}"));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    for (name, trial) in
        [("file-size limit", file_limit as fn(&End) -> _), ("full disk", full_disk), ("two processes", two)]
    {
        match trial(&expected) {
            Ok(said) => println!("{name}: {said}"),
            Err(what) => lost(&tally, format!("{name}: {what}")),
        }
    }
    let lost = tally.lost.lock().map_err(|_| "a thread of the campaign panicked")?;
    println!(
        "kill: {} kills of {} runs of seed {seed} ({} inside a save), {} lost, in {:.0} s",
        tally.kills.load(Ordering::Relaxed),
        tally.runs.load(Ordering::Relaxed),
        tally.in_saves.load(Ordering::Relaxed),
        lost.len(),
        began.elapsed().as_secs_f64()
    );
    lost.iter().for_each(|what| println!("lost: {what}"));
    if lost.is_empty() { Ok(()) } else { Err(format!("{} runs were lost", lost.len())) }
}

fn lost(tally: &Tally, what: String) {
    if let Ok(mut lost) = tally.lost.lock() {
        lost.push(what);
    }
}

fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))
}

/// The end that every run must come to.
fn undisturbed() -> Result<End, String> {
    let (place, again) = (folder()?, folder()?);
    let ends = [place.path(), again.path()].map(|place| {
        let (status, said) = to_the_end(place, &Options::default(), None)?;
        if status.success() { End::of(place) } else { Err(format!("the undisturbed run failed: {said}")) }
    });
    let [first, second] = ends;
    let (first, second) = (first?, second?);
    match first.difference(&second) {
        None => Ok(first),
        Some(what) => Err(format!("two undisturbed runs differ: {what}")),
    }
}

fn one_run(mut draws: Draws, kills: u64, expected: &End, tally: &Tally, bar: &ProgressBar) -> Result<(), String> {
    let place = folder()?;
    let mut done = 0;
    while done < kills {
        let resumes = has_checkpoint(place.path());
        if !resumes {
            // Killed before the first checkpoint: it begins anew, as a user would.
            _ = fs::remove_dir_all(place.path().join(RUN));
        }
        if kill_once(place.path(), resumes, &mut draws)? {
            done += 1;
            bar.inc(1);
            tally.kills.fetch_add(1, Ordering::Relaxed);
            tally.in_saves.fetch_add(u64::from(is_half_saved(place.path())), Ordering::Relaxed);
        } else {
            // It ended before the moment came.
            compare(place.path(), expected)?;
            fs::remove_dir_all(place.path().join(RUN)).map_err(|error| error.to_string())?;
        }
    }
    tally.runs.fetch_add(1, Ordering::Relaxed);
    go_on(place.path(), expected)
}

fn has_checkpoint(place: &Path) -> bool {
    lara_models::train::checkpoints::latest(place.join(RUN)).is_some()
}

/// Resumes (or begins anew where nothing was saved yet) to the end, and compares.
fn go_on(place: &Path, expected: &End) -> Result<(), String> {
    let resumes = has_checkpoint(place);
    if !resumes {
        _ = fs::remove_dir_all(place.join(RUN));
    }
    let (status, said) = to_the_end(place, &Options { resumes, ..Options::default() }, None)?;
    if !status.success() {
        return Err(format!("could not be resumed: {said}"));
    }
    compare(place, expected)
}

fn compare(place: &Path, expected: &End) -> Result<(), String> {
    End::of(place)?.difference(expected).map_or(Ok(()), |what| Err(format!("ended differently: {what}")))
}

/// Starts the run and kills it at a moment of the draws': before its first step, between steps, or just after the last
/// step of an epoch, when it evaluates and saves. False if it ended before.
fn kill_once(place: &Path, resumes: bool, draws: &mut Draws) -> Result<bool, String> {
    let mut child = start(place, &Options { resumes, ..Options::default() }, None)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("a process has no output")?).lines().map_while(Result::ok);
    match draws.below(8) {
        // While it starts.
        0 => std::thread::sleep(Duration::from_millis(u64::from(draws.below(1500)))),
        choice => {
            let steps = 1 + draws.below(if resumes { 30 } else { 50 });
            let saves = choice >= 4;
            let mut seen = 0;
            for line in lines.by_ref() {
                let step = line.strip_prefix("step ").and_then(|step| step.parse::<u64>().ok());
                seen += u32::from(step.is_some());
                let is_time = if saves { step.is_some_and(|step| step.is_multiple_of(EPOCH)) } else { seen >= steps };
                if is_time && seen >= steps.min(11) {
                    break;
                }
            }
            if saves {
                wait_for_save(place);
            }
            std::thread::sleep(Duration::from_micros(u64::from(draws.below(8_000))));
        }
    }
    // It may have ended; then its last line tells.
    _ = child.kill();
    let status = child.wait().map_err(|error| error.to_string())?;
    if let Some(line) = lines.find(|line| line.starts_with("error ")) {
        return Err(format!("failed before it was killed: {line}"));
    }
    Ok(!status.success())
}

/// Until a save is under way, as far as its folder shows it, or is over.
fn wait_for_save(place: &Path) {
    let start = Instant::now();
    while !is_half_saved(place) && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn is_half_saved(place: &Path) -> bool {
    let Ok(entries) = fs::read_dir(place.join(RUN)) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
}

/// A file may not grow beyond some size, while the run saves.
fn file_limit(expected: &End) -> Result<String, String> {
    let place = folder()?;
    // Less than the optimizer's state, more than the model. A process that ignores the signal gets an error.
    let options = Options { file_limit: Some(30_000), ..Options::default() };
    let (status, said) = to_the_end(place.path(), &options, Some("trap '' XFSZ"))?;
    if status.success() || !said.starts_with("error 1 cannot save run/checkpoint-") {
        return Err(format!("the run should have failed with a sentence: {said}"));
    }
    go_on(place.path(), expected)?;
    Ok(said)
}

/// A disk that is full after some checkpoints and has space again later. Only root on Linux can have one.
fn full_disk(expected: &End) -> Result<String, String> {
    let place = folder()?;
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(place.path()).output().is_ok_and(|output| output.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=150k", "tmpfs"]) {
        return Ok("not tried: this user cannot mount a disk".into());
    }
    let _unmounted = Unmount(place.path());
    let (status, said) = to_the_end(place.path(), &Options::default(), None)?;
    if status.success() || !said.starts_with("error 1 ") || !said.contains("o space left") {
        return Err(format!("the run should have failed with a sentence: {said}"));
    }
    if !mount(&["-o", "remount,size=64m"]) {
        return Err("the disk cannot be made larger".into());
    }
    go_on(place.path(), expected)?;
    Ok(said)
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // Whatever is left of it goes with the machine.
        _ = Command::new("umount").arg(self.0).output();
    }
}

/// A second process in the folder of a run is refused, and the run does not notice.
fn two(expected: &End) -> Result<String, String> {
    let place = folder()?;
    let mut first = start(place.path(), &Options::default(), None)?;
    let mut lines = BufReader::new(first.stdout.take().ok_or("a process has no output")?).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("saved "));
    let (status, said) = to_the_end(place.path(), &Options { resumes: true, ..Options::default() }, None)?;
    if status.success() || !said.starts_with("error 2 ") || !said.contains("is being written by process") {
        return Err(format!("the second process should have been refused: {said}"));
    }
    lines.for_each(drop);
    if !first.wait().map_err(|error| error.to_string())?.success() {
        return Err("the first process failed".into());
    }
    compare(place.path(), expected)?;
    Ok(said)
}
