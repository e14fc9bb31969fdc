//! Several variants of a kernel, and a measured choice between them, remembered per adapter, driver and shader text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cost::{LONGEST_DISPATCH, Speed};
use crate::gpu::Gpu;
use crate::recorder::Recorder;
use crate::variant::Variant;

/// Chooses variants. Clones share what was learned.
#[derive(Clone, Debug, Default)]
pub struct Tune {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    gpu: Option<Gpu>,
    forced: Vec<Variant>,
    file: Option<PathBuf>,
    choices: BTreeMap<String, String>,
    /// Choices of a resumed run: they come first, and stay out of the cache, for they may be another adapter's.
    adopted: BTreeMap<String, String>,
    /// Floating-point operations of the longest dispatch, if there is a limit.
    most_flops: Option<f64>,
}

impl State {
    /// The candidate that was chosen for `key` before: by a resumed run (older ones keep keys without candidates), or here.
    fn known(&self, key: &str, candidates: &[Variant]) -> Option<Variant> {
        let full = with_candidates(key, candidates);
        let told = [self.adopted.get(&full), self.adopted.get(key), self.choices.get(&full)];
        told.into_iter().flatten().find_map(|choice| candidates.iter().find(|c| c.name() == choice).copied())
    }
}

/// Keys round sizes, candidates depend on the exact ones: what was chosen among others is no answer.
fn with_candidates(key: &str, candidates: &[Variant]) -> String {
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name()).collect();
    format!("{key} [{}]", names.join(" "))
}

impl Tune {
    /// Never measures: takes the first candidate that is in `preferred`, else the first.
    pub fn fixed(preferred: &[Variant]) -> Self {
        let state = State { forced: preferred.to_vec(), ..State::default() };
        Tune { shared: Arc::new(Mutex::new(state)) }
    }

    /// Measures on `gpu` and remembers the answers in the user's cache folder (`LARA_CACHE` overrides it).
    pub fn measured(gpu: &Gpu) -> Self {
        Self::measured_in(gpu, cache_folder().as_deref())
    }

    /// As [`Tune::measured`], remembering in `folder`, or only as long as the program runs.
    pub fn measured_in(gpu: &Gpu, folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(cache_name(gpu)));
        let choices = file.as_deref().map(load).unwrap_or_default();
        let most_flops = Some(LONGEST_DISPATCH * Speed::of_kind(&gpu.report().kind).flops);
        let state = State { gpu: Some(gpu.clone()), file, choices, most_flops, ..State::default() };
        Tune { shared: Arc::new(Mutex::new(state)) }
    }

    /// The same tuner, under which dispatches of more than `flops` floating-point operations are cut where they can be.
    #[must_use]
    pub fn with_most_flops(self, flops: f64) -> Self {
        self.lock().most_flops = Some(flops);
        self
    }

    pub(crate) fn most_flops(&self) -> f64 {
        self.lock().most_flops.unwrap_or(f64::INFINITY)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All choices made so far, to be stored with a run so that it resumes with the same kernels.
    pub fn choices(&self) -> BTreeMap<String, String> {
        let state = self.lock();
        state.choices.iter().chain(&state.adopted).map(|(key, choice)| (key.clone(), choice.clone())).collect()
    }

    /// Takes over choices stored with a run.
    pub fn adopt(&self, choices: BTreeMap<String, String>) {
        self.lock().adopted.extend(choices);
    }

    /// Whether the adapter that is measured on runs kernels with subgroups of 8; yes where none is measured on, for then such
    /// a variant is only taken when asked for.
    pub(crate) fn allows_lanes(&self) -> bool {
        self.lock().gpu.as_ref().is_none_or(Gpu::has_lanes)
    }

    /// The best of `candidates` for `key` (operation, layout, sizes). `record` appends one variant to an empty recorder.
    ///
    /// # Panics
    /// If there is no candidate: a bug in an operation.
    pub fn choose(&self, key: &str, candidates: &[Variant], record: &dyn Fn(&mut Recorder, Variant)) -> Variant {
        let first = candidates[0];
        let gpu = {
            let state = self.lock();
            if let Some(&forced) = candidates.iter().find(|c| state.forced.contains(c)) {
                return forced;
            }
            if let Some(known) = state.known(key, candidates) {
                return known;
            }
            if candidates.len() == 1 {
                return first;
            }
            state.gpu.clone()
        };
        let Some(gpu) = gpu else { return first };
        let best = self.measure(&gpu, key, candidates, record);
        let mut state = self.lock();
        // Another thread may have measured the same meanwhile: the first answer stays.
        if let Some(known) = state.known(key, candidates) {
            return known;
        }
        state.choices.insert(with_candidates(key, candidates), best.name().to_owned());
        save(&state);
        best
    }

    /// A browser cannot wait for a measurement, so there the order of the candidates decides.
    #[cfg(target_arch = "wasm32")]
    fn measure(&self, _: &Gpu, _: &str, candidates: &[Variant], _: &dyn Fn(&mut Recorder, Variant)) -> Variant {
        candidates[0]
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn measure(
        &self,
        gpu: &Gpu,
        key: &str,
        candidates: &[Variant],
        record: &dyn Fn(&mut Recorder, Variant),
    ) -> Variant {
        let timed = candidates.iter().filter_map(|&variant| {
            let seconds = self.time(gpu, &|rec| record(rec, variant))?;
            tracing::debug!(key, variant = variant.name(), milliseconds = seconds * 1e3, "measured");
            Some((variant, seconds))
        });
        timed.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(candidates[0], |best| best.0)
    }

    /// Seconds of one run, the least of several after a warm-up; `None` if the variant does not compile here. What is
    /// measured may itself consist of operations with variants: they are chosen in the same way first.
    #[cfg(not(target_arch = "wasm32"))]
    fn time(&self, gpu: &Gpu, record: &dyn Fn(&mut Recorder)) -> Option<f64> {
        use std::time::{Duration, Instant};
        let mut rec = Recorder::new(self.clone());
        record(&mut rec);
        let parameters = crate::Parameters::new(gpu);
        let plan = crate::Plan::compile_blocking(gpu, rec, &parameters).ok()?;
        let once = || {
            let start = Instant::now();
            plan.run().steps().submit().ok()?;
            gpu.wait_blocking();
            Some(start.elapsed().as_secs_f64())
        };
        once()?;
        let begun = Instant::now();
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            best = best.min(once()?);
            if begun.elapsed() > Duration::from_millis(60) {
                break;
            }
        }
        Some(best)
    }
}

/// None in a browser.
fn cache_folder() -> Option<PathBuf> {
    #[cfg(target_arch = "wasm32")]
    return None;
    #[cfg(not(target_arch = "wasm32"))]
    std::env::var_os("LARA_CACHE").map(PathBuf::from).or_else(|| dirs::cache_dir().map(|d| d.join("lara")))
}

fn cache_name(gpu: &Gpu) -> String {
    let report = gpu.report();
    let mut identity = format!("{} {} {}", report.name, report.backend, report.driver);
    for module in lara_shaders::MODULES {
        identity.push_str(&module.source());
    }
    // FNV-1a, 64 bit: a name for the file, not a defence.
    let hash =
        identity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("tune-{hash:016x}.json")
}

/// Adds to what other processes have learnt meanwhile, which stays as it is. A cache that cannot be written only costs the next start seconds.
fn save(state: &State) {
    let Some(file) = &state.file else { return };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(file.parent().unwrap_or(file))?;
        let mut all = state.choices.clone();
        all.extend(load(file));
        let partial = file.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&partial, serde_json::to_string_pretty(&all)?)?;
        std::fs::rename(partial, file)
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "the tuning cache was not written");
    }
}

/// An unreadable cache is an empty one.
fn load(file: &Path) -> BTreeMap<String, String> {
    std::fs::read_to_string(file).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}
