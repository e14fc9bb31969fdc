//! Runs that are paused, stepped, saved and stopped from outside: it shows in when they do a thing, never in what.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lara_models::Result;
use lara_models::train::{Checkpoint, Control, Event, Order, Summary, Trainer};
use pollster::block_on;

use crate::trainer::{configure, done, metrics, resume, start, tensors};

#[test]
fn the_end_comes_before_a_checkpoint_and_that_before_a_step() {
    let control = Control::new();
    assert_eq!(control.next_order(), Some(Order::Step));
    control.clone().save();
    assert!(control.is_saving());
    assert_eq!([control.next_order(), control.next_order()], [Some(Order::Save), Some(Order::Step)]);
    control.clone().pause();
    assert!(control.is_paused());
    assert_eq!(control.next_order(), None);
    control.step();
    control.step();
    control.save();
    let orders: Vec<Order> = std::iter::from_fn(|| control.next_order()).collect();
    assert_eq!(orders, [Order::Save, Order::Step, Order::Step]);
    // What was asked for while it was held is not caught up with later.
    control.step();
    control.resume();
    assert!(!control.is_paused());
    control.pause();
    assert_eq!(control.next_order(), None);
    control.save();
    control.stop();
    assert!(control.is_stopped());
    assert_eq!([control.next_order(), control.next_order()], [Some(Order::Stop); 2]);
}

#[test]
fn a_step_on_a_run_that_goes_on_holds_it_after_one() {
    let control = Control::new();
    control.step();
    assert_eq!([control.next_order(), control.next_order()], [Some(Order::Step), None]);
}

/// What a run did.
#[derive(Debug, PartialEq)]
enum Done {
    Step(u64),
    Saved(PathBuf),
}

struct Watched {
    thread: JoinHandle<Result<Summary>>,
    did: Receiver<Done>,
}

/// Runs in a thread of its own, which pauses itself when the result of `pause_after` steps is in.
fn watch(trainer: Trainer, control: &Control, pause_after: u64) -> Watched {
    let (control, (sender, did)) = (control.clone(), channel());
    let thread = std::thread::spawn(move || {
        block_on(trainer.run(&control, &mut |event| {
            let done = match event {
                Event::Step(progress) => Done::Step(progress.result.step + 1),
                Event::Saved(path) => Done::Saved(path.to_path_buf()),
                _ => return,
            };
            if done == Done::Step(pause_after) {
                control.pause();
            }
            sender.send(done).unwrap();
        }))
    });
    Watched { thread, did }
}

impl Watched {
    fn next(&self) -> Done {
        self.did.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Waits until nothing more happens and says what happened last.
    fn held(&self) -> Option<Done> {
        let mut last = None;
        loop {
            match self.did.recv_timeout(Duration::from_millis(700)) {
                Ok(done) => last = Some(done),
                Err(RecvTimeoutError::Timeout) => return last,
                Err(RecvTimeoutError::Disconnected) => panic!("the run ended where it should have been held"),
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_run_that_was_paused_stepped_and_saved_ends_as_if_it_had_not_been() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, watched, from_middle] = ["whole", "watched", "middle"].map(|name| temp.path().join(name));
    let expected = done(start(&configure(&whole, &[])));

    let (control, begin) = (Control::new(), Instant::now());
    let run = watch(start(&configure(&watched, &[])).unwrap(), &control, 5);
    for step in 1..=5 {
        assert_eq!(run.next(), Done::Step(step));
    }
    // Steps under way when it was paused are still reported; then it is held.
    let at = match run.held() {
        Some(Done::Step(step)) => step,
        None => 5,
        other => panic!("{other:?}"),
    };
    assert!((5..10).contains(&at), "held after {at} steps");
    control.step();
    assert_eq!(run.next(), Done::Step(at + 1));
    assert_eq!(run.held(), None, "one step was asked for");
    control.save();
    let Done::Saved(path) = run.next() else { panic!("not saved") };
    let middle = Checkpoint::load(&path).unwrap();
    assert_eq!((middle.state.step, middle.state.position.batch), (at + 1, at + 1));
    copy(&path, &from_middle.join(path.file_name().unwrap()));
    assert_eq!(run.held(), None, "a checkpoint does not end a pause");
    assert!(control.is_paused() && !control.is_saving());
    // A second one of the same step takes the first one's place.
    control.save();
    assert_eq!(run.next(), Done::Saved(path));
    control.resume();
    let summary = run.thread.join().unwrap().unwrap();
    assert!(!summary.interrupted);
    // At least the second and the third wait were pauses, which are not the run's time.
    assert!(summary.seconds < begin.elapsed().as_secs_f64() - 1.4 && summary.first_step_seconds < summary.seconds);

    let resumed = done(resume(&from_middle));
    let [a, b, c] = [&expected, &summary, &resumed].map(|s| tensors(s.checkpoint.as_ref().unwrap()));
    assert!(a == b, "pausing changed weights, moments or averages");
    assert!(a == c, "a checkpoint saved by hand does not resume bit for bit");
    assert_eq!(expected.evaluation, summary.evaluation);
    assert_eq!(metrics(&whole), metrics(&watched));
}

#[test]
fn a_run_that_is_held_can_be_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let control = Control::new();
    control.pause();
    let run = watch(start(&configure(temp.path(), &[])).unwrap(), &control, u64::MAX);
    assert_eq!(run.held(), None);
    control.step();
    assert_eq!(run.next(), Done::Step(1));
    control.stop();
    assert!(matches!(run.next(), Done::Saved(_)));
    let summary = run.thread.join().unwrap().unwrap();
    assert!(summary.interrupted);
    assert_eq!(summary.steps, 1);
    assert_eq!(Checkpoint::load(temp.path()).unwrap().state.step, 1);
}
