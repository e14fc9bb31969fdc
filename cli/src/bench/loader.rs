//! How fast pictures are loaded: JPEG files of 500x375 pixels through the recipe of DeiT to batches of 224x224, without a
//! model and without an adapter.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lara_models::data::{Loader, LoaderOptions, Position, Split};
use lara_models::task::{Classify, Task};
use lara_models::train::TrainConfig;
use serde::Serialize;

use super::loader_stages::{self, Stage, processor_time};
use crate::fail::{Failure, Outcome, print, print_json};

/// Different files; more would be read from the disk's cache as well.
const FILES: usize = 32;
const SIZE: [u32; 2] = [500, 375];
const BATCH: usize = 16;

#[derive(Serialize)]
struct Report {
    images_per_second: f64,
    images: usize,
    threads: usize,
    /// What an image takes of the processor in all threads together; none where nobody counts it.
    processor_milliseconds_per_image: Option<f64>,
    /// The same, stage by stage in one thread.
    stages: Vec<Stage>,
    /// Bytes of a file, on average; none for pictures of the user's own.
    bytes_per_image: Option<u64>,
    optimized: bool,
}

/// Loads `images` images with `threads` threads, after a batch that nobody counts: those of the folder `data`, or made-up
/// ones.
pub(super) fn run(images: usize, threads: usize, data: Option<&Path>, json: bool) -> Outcome {
    if images < BATCH {
        return Err(Failure::input(format!("--images is {images}; at least a batch of {BATCH} can be measured")));
    }
    let made_up = if data.is_none() { Some(Folder::write()?) } else { None };
    let folder = made_up.as_ref().map(|folder| folder.path.as_path()).or(data).unwrap_or(Path::new("."));
    let sets = [
        format!("data.path={}", folder.display()),
        format!("data.workers={threads}"),
        format!("train.batch_size={BATCH}"),
    ];
    let config = TrainConfig::load("deit_tiny_p16", &sets)?;
    let task = Classify::new(&config)?;
    // How many classes there are is not the loader's concern.
    let dataset = config.data.open(config.model.image_shape(), Split::Train)?;
    let recipe = task.collate(Split::Train);
    let stages = loader_stages::measure(&*dataset, &recipe, config.train.seed, images)?;
    let options = LoaderOptions::train(BATCH, config.train.seed, threads, recipe);
    let mut loader = Loader::new(dataset, options, Position::default())?;
    let mut next = || loader.next().transpose();
    next()?;
    let (start, worked) = (Instant::now(), processor_time());
    let mut loaded = 0;
    while loaded < images {
        loaded += next()?.map_or(BATCH, |batch| batch.len());
    }
    let elapsed = start.elapsed().as_secs_f64();
    let worked = processor_time().zip(worked).map(|(end, start)| end.saturating_sub(start));
    let report = Report {
        images_per_second: loaded as f64 / elapsed,
        images: loaded,
        threads,
        processor_milliseconds_per_image: worked.map(|time| time.as_secs_f64() * 1e3 / loaded as f64),
        stages,
        bytes_per_image: made_up.map(|folder| folder.bytes / FILES as u64),
        optimized: !cfg!(debug_assertions),
    };
    if json {
        return print_json(&report);
    }
    show(&report);
    Ok(())
}

fn show(report: &Report) {
    let what = match report.bytes_per_image {
        Some(bytes) => format!("made-up JPEG files of {}x{} pixels ({} kB)", SIZE[0], SIZE[1], bytes / 1000),
        None => "these pictures".into(),
    };
    let threads = report.threads;
    print(format!(
        "{:.0} images/s with {threads} threads: {what}, decoded, cropped, augmented as DeiT's recipe says, 224x224",
        report.images_per_second,
    ));
    if let Some(worked) = report.processor_milliseconds_per_image {
        print(format!(
            "{worked:.2} ms of processor time an image: {:.0} images/s on two processors that do nothing else",
            2e3 / worked
        ));
    }
    report.stages.iter().for_each(|stage| print(format!("  {:<20} {:>6.3} ms", stage.name, stage.milliseconds)));
    if !report.optimized {
        print("this build is not optimised; `cargo run --release -- bench loader` shows what an installed lara does");
    }
}

/// Made-up photos in a folder of two classes, which goes when they do.
struct Folder {
    path: PathBuf,
    bytes: u64,
}

impl Folder {
    fn write() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("lara-bench-loader-{}", std::process::id()));
        let mut folder = Self { path, bytes: 0 };
        for class in ["even", "odd"] {
            let class = folder.path.join("train").join(class);
            std::fs::create_dir_all(&class)
                .map_err(|e| Failure::failed(format!("cannot create {}: {e}", class.display())))?;
        }
        for number in 0..FILES {
            let class = if number % 2 == 0 { "even" } else { "odd" };
            folder.bytes += photo(number, &folder.path.join("train").join(class).join(format!("{number}.jpg")))?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind it would do no harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Waves of several lengths and some grain, which take about as many bytes as a photo; returns how many.
fn photo(number: usize, path: &Path) -> Outcome<u64> {
    let mut grain = number as u32;
    let picture = image::RgbImage::from_fn(SIZE[0], SIZE[1], |x, y| {
        grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y, phase) = (x as f32, y as f32, number as f32);
        let wave = |length: f32, c: f32| ((x * (1.0 + c) + y * 0.7) / length + phase).sin();
        image::Rgb([0.0, 0.3, 0.6].map(|c| {
            let value = 128.0 + 50.0 * wave(90.0, c) + 25.0 * wave(17.0, c) + 12.0 * wave(5.0, c);
            (value + (grain >> 24) as f32 / 16.0) as u8
        }))
    });
    let failed = |e: String| Failure::failed(format!("cannot write {}: {e}", path.display()));
    picture.save(path).map_err(|e| failed(e.to_string()))?;
    Ok(std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len())
}
