//! Cases in processes of their own: what ends a process ends one case, and the others go on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::kinds::{KINDS, Rooms};
use crate::source::{Source, bytes_of};
use crate::verdict::{Verdict, judge, listen_to_panics, run};

/// A case that says nothing for so long hangs; its process is ended.
const HANG: Duration = Duration::from_secs(300);
/// What a process may map, bytes. A reader that asks for more is told no, and that ends its process.
const ADDRESS_SPACE: u64 = 12 << 30;

/// What to try.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Decides every case.
    pub(crate) seed: u64,
    /// Cases 0..cases.
    pub(crate) cases: u64,
    /// Processes side by side.
    pub(crate) jobs: u64,
}

/// What came of them.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    /// By kind: taken, refused, failed.
    kinds: Vec<(String, [u64; 3])>,
    /// Seed, number, kind and what happened.
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, kind: &str, outcome: usize) {
        let at = self.kinds.iter().position(|(name, _)| name == kind).unwrap_or_else(|| {
            self.kinds.push((kind.to_owned(), [0; 3]));
            self.kinds.len() - 1
        });
        self.kinds[at].1[outcome] += 1;
    }

    fn merge(&mut self, other: Self) {
        for (kind, counts) in other.kinds {
            (0..3).for_each(|outcome| (0..counts[outcome]).for_each(|_| self.add(&kind, outcome)));
        }
        self.failures.extend(other.failures);
    }

    fn total(&self) -> [u64; 3] {
        self.kinds.iter().fold([0; 3], |sum, (_, counts)| std::array::from_fn(|i| sum[i] + counts[i]))
    }
}

/// The part of the cases that one process does: `first`, `first + stride`, .. below `cases`. Each is announced before it
/// begins, so that whoever listens knows what was under way if nothing more comes.
pub(crate) fn work(plan: &Plan, first: u64, dump: &Path) -> Result<(), String> {
    limit_address_space()?;
    listen_to_panics();
    let mut rooms = Rooms::furnish()?;
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(|e| e.to_string());
    let mut case = first;
    while case < plan.cases {
        say(format!("case {case}\n"))?;
        let (kind, verdict) = run(plan.seed, case, &mut rooms, Some(dump));
        say(match verdict {
            Verdict::Taken => format!("taken {kind}\n"),
            Verdict::Refused(_) => format!("refused {kind}\n"),
            Verdict::Failed(what) => format!("failed {kind} {}\n", what.replace('\n', " ")),
        })?;
        case += plan.jobs;
    }
    Ok(())
}

fn limit_address_space() -> Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::resource::{Resource, setrlimit};
        setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE, ADDRESS_SPACE)
            .map_err(|e| format!("no limit for memory: {e}"))?;
    }
    Ok(())
}

/// Runs all cases in `plan.jobs` processes, prints what failed and a table, and fails if anything did.
pub(crate) fn campaign(plan: &Plan, dump: &Path) -> Result<(), String> {
    let bar = ProgressBar::new(plan.cases);
    let style = "{bar:40} {pos}/{len} cases, {per_sec}, {eta} left{msg}";
    // Where nobody watches, nothing is drawn.
    bar.set_style(ProgressStyle::with_template(style).map_err(|error| error.to_string())?);
    let start = Instant::now();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..plan.jobs)
            .map(|job| {
                scope.spawn({
                    let bar = &bar;
                    move || part(plan, job, dump, bar)
                })
            })
            .collect();
        for part in parts {
            tally.merge(part.join().map_err(|_| "a thread that listens to a process panicked")??);
        }
        Ok::<_, String>(())
    })?;
    bar.finish_and_clear();
    report(plan, &mut tally, start.elapsed(), dump)
}

fn report(plan: &Plan, tally: &mut Tally, took: Duration, dump: &Path) -> Result<(), String> {
    tally.kinds.sort();
    println!("{:<12} {:>9} {:>9} {:>9}", "kind", "taken", "refused", "failed");
    for (kind, [taken, refused, failed]) in &tally.kinds {
        println!("{kind:<12} {taken:>9} {refused:>9} {failed:>9}");
    }
    let [taken, refused, failed] = tally.total();
    let seconds = took.as_secs_f64();
    let tried = taken + refused + failed;
    println!(
        "fuzz: {tried} cases of seed {} in {seconds:.0} s ({:.0} a second): {taken} taken, {refused} refused with a sentence, \
         {failed} failed",
        plan.seed,
        tried as f64 / seconds
    );
    if tally.failures.is_empty() && tried == plan.cases {
        return Ok(());
    }
    tally.failures.iter().for_each(|failure| println!("{failure}"));
    println!("repeat one with: cargo xtask fuzz --seed {} --case N; the inputs are in {}", plan.seed, dump.display());
    Err(format!("{failed} of {} cases failed", plan.cases))
}

/// One process after another until the cases of `job` are done.
fn part(plan: &Plan, job: u64, dump: &Path, bar: &ProgressBar) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut next = job;
    while next < plan.cases {
        let (mut child, lines) = start(plan, next, dump)?;
        let mut under_way = None;
        let hung = loop {
            match lines.recv_timeout(HANG) {
                Ok(line) => {
                    let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
                    if word == "case" {
                        under_way = rest.parse::<u64>().ok();
                        continue;
                    }
                    let (kind, what) = rest.split_once(' ').unwrap_or((rest, ""));
                    let outcome = ["taken", "refused", "failed"].iter().position(|name| *name == word).unwrap_or(2);
                    tally.add(kind, outcome);
                    if let Some(case) = under_way.take() {
                        next = case + plan.jobs;
                        if outcome == 2 {
                            tally.failures.push(format!("seed {} case {case} ({kind}) {what}", plan.seed));
                        }
                    }
                    bar.inc(1);
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if hung {
            // It may have ended by itself in the meantime.
            _ = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if let Some(case) = under_way {
            let what =
                if hung { format!("hung for {} s", HANG.as_secs()) } else { format!("ended its process ({status})") };
            tally.failures.push(format!("seed {} case {case} {what}", plan.seed));
            tally.add("ended", 2);
            bar.inc(1);
            next = case + plan.jobs;
        } else if !status.success() {
            return Err(format!("a process of the campaign failed before any case ({status})"));
        }
        bar.set_message(if tally.failures.is_empty() {
            String::new()
        } else {
            format!(", {} failed", tally.failures.len())
        });
    }
    Ok(tally)
}

fn start(plan: &Plan, first: u64, dump: &Path) -> Result<(Child, Receiver<String>), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args(["--seed", &plan.seed.to_string(), "--cases", &plan.cases.to_string()])
        .args(["--jobs", &plan.jobs.to_string(), "--first", &first.to_string(), "--dump"])
        .arg(dump)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start a process for cases: {error}"))?;
    let out = child.stdout.take().ok_or("a process has no output")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more once the process is given up.
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    Ok((child, receiver))
}

/// Runs one case here and says what came of it.
pub(crate) fn one(seed: u64, case: u64, dump: &Path) -> Result<(), String> {
    listen_to_panics();
    let mut rooms = Rooms::furnish()?;
    let (kind, verdict) = run(seed, case, &mut rooms, Some(dump));
    println!("seed {seed} case {case} ({kind}): {verdict:?}");
    if matches!(verdict, Verdict::Failed(_)) { Err("the case failed".into()) } else { Ok(()) }
}

/// `cases` cases of one kind, here: for looking at a reader closely.
pub(crate) fn of_kind(name: &str, seed: u64, cases: u64, dump: &Path) -> Result<(), String> {
    let kind = KINDS
        .iter()
        .find(|kind| kind.name == name)
        .ok_or_else(|| format!("there is no kind {name}; kinds are {}", KINDS.map(|kind| kind.name).join(", ")))?;
    listen_to_panics();
    let mut rooms = Rooms::furnish()?;
    let (mut counts, start) = ([0u64; 3], Instant::now());
    for case in 0..cases {
        let bytes = bytes_of(seed, case);
        let place = dump.join(format!("{name}-seed-{seed}-case-{case}"));
        match judge(kind, Source::new(&bytes), &mut rooms, Some(place)).1 {
            Verdict::Taken => counts[0] += 1,
            Verdict::Refused(sentence) => {
                counts[1] += 1;
                if cases <= 50 {
                    println!("{sentence}");
                }
            }
            Verdict::Failed(what) => {
                counts[2] += 1;
                println!("case {case}: {what}");
            }
        }
    }
    let [taken, refused, failed] = counts;
    let rate = cases as f64 / start.elapsed().as_secs_f64();
    println!("{name}: {taken} taken, {refused} refused, {failed} failed, {rate:.0} a second");
    if failed > 0 { Err(format!("{failed} of {cases} cases failed")) } else { Ok(()) }
}
