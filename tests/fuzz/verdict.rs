//! The verdict on a case: whether its reader took the input or refused it, within the time and memory that it has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use peak_alloc::PeakAlloc;

use crate::case::{Case, is_sentence};
use crate::kinds::{self, Rooms};
use crate::source::{Source, bytes_of};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a reader may take beside 16 times its input.
const ALLOWANCE: usize = 48 << 20;
/// How long a case may compute. A process that waits for the processor meanwhile is not at fault.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the last panic said, and where: a panic is told by the verdict, with the case's number.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps what panics say instead of printing it.
pub(crate) fn listen_to_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut said) = PANIC.lock() {
            *said = panic.to_string().replace('\n', " ");
        }
    }));
}

/// What became of a case.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The reader took the input.
    Taken,
    /// It refused it, with one sentence.
    Refused(String),
    /// Neither, and what happened instead.
    Failed(String),
}

/// The kind of case number `case`, and what became of it.
pub(crate) fn run(seed: u64, case: u64, rooms: &mut Rooms, dump: Option<&Path>) -> (&'static str, Verdict) {
    let bytes = bytes_of(seed, case);
    let mut source = Source::new(&bytes);
    let kind = kinds::choose(&mut source);
    let (name, verdict) =
        judge(kind, source, rooms, dump.map(|folder| folder.join(format!("seed-{seed}-case-{case}"))));
    (name, verdict)
}

/// Runs a kind on given choices.
pub(crate) fn judge(
    kind: &kinds::Kind,
    source: Source<'_>,
    rooms: &mut Rooms,
    dump: Option<PathBuf>,
) -> (&'static str, Verdict) {
    let mut case = Case { source, input: Vec::new(), allowance: ALLOWANCE };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let start = computed();
    let outcome = catch_unwind(AssertUnwindSafe(|| (kind.run)(&mut case, rooms)));
    let (took, used) = (computed().saturating_sub(start), MEMORY.peak_usage().saturating_sub(before));
    let verdict = match outcome {
        Err(_) => {
            Verdict::Failed(PANIC.lock().map_or_else(|_| "panicked".into(), |mut said| std::mem::take(&mut *said)))
        }
        Ok(_) if took > PATIENCE => Verdict::Failed(format!("took {:.1} s", took.as_secs_f64())),
        Ok(_) if used > case.allowance => Verdict::Failed(format!(
            "took {} MiB of memory and not {} for an input of {} bytes",
            used >> 20,
            case.allowance >> 20,
            case.input.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
        )),
        Ok(Ok(())) => Verdict::Taken,
        Ok(Err((sentence, _))) if !is_sentence(&sentence) => {
            Verdict::Failed(format!("answered with what is no sentence: {sentence:?}"))
        }
        Ok(Err((sentence, false))) => Verdict::Failed(format!("bad input counts as a failure: {sentence}")),
        Ok(Err((sentence, true))) => Verdict::Refused(sentence),
    };
    if let Some(folder) = dump.filter(|_| matches!(verdict, Verdict::Failed(_))) {
        // Whoever repeats the case has its input in any case, so this may fail.
        _ = std::fs::create_dir_all(&folder);
        for (name, bytes) in &case.input {
            _ = std::fs::write(folder.join(name.replace('/', "-")), bytes);
        }
    }
    (kind.name, verdict)
}

/// What this process has computed so far, where the system says it; else the time.
fn computed() -> Duration {
    #[cfg(target_os = "linux")]
    if let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID) {
        return time.into();
    }
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}
