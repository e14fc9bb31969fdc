//! How fast pictures are loaded: JPEG files of 500x375 pixels through the recipe of DeiT to batches of 224x224, without a
//! model and without an adapter.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lara_models::data::{Loader, LoaderOptions, Position, Split};
use lara_models::task::{Classify, Task};
use lara_models::train::TrainConfig;
use serde::Serialize;

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
    /// Bytes of a JPEG file, on average.
    bytes_per_image: u64,
    optimized: bool,
}

/// Loads `images` images with `threads` threads, after a batch that nobody counts.
pub(super) fn run(images: usize, threads: usize, json: bool) -> Outcome {
    if images < BATCH {
        return Err(Failure::input(format!("--images is {images}; at least a batch of {BATCH} can be measured")));
    }
    let folder = Folder::write()?;
    let sets = [
        format!("data.path={}", folder.path.display()),
        format!("data.workers={threads}"),
        format!("train.batch_size={BATCH}"),
        "model.num_classes=2".into(),
    ];
    let config = TrainConfig::load("deit_tiny_p16", &sets)?;
    let task = Classify::new(&config)?;
    let options = LoaderOptions::train(BATCH, config.train.seed, threads, task.collate(Split::Train));
    let mut loader = Loader::new(task.open(Split::Train)?, options, Position::default())?;
    let mut next = || loader.next().transpose();
    next()?;
    let start = Instant::now();
    let mut loaded = 0;
    while loaded < images {
        loaded += next()?.map_or(BATCH, |batch| batch.len());
    }
    let report = Report {
        images_per_second: loaded as f64 / start.elapsed().as_secs_f64(),
        images: loaded,
        threads,
        bytes_per_image: folder.bytes / FILES as u64,
        optimized: !cfg!(debug_assertions),
    };
    if json {
        return print_json(&report);
    }
    print(format!(
        "{:.0} images/s with {threads} threads: JPEG files of {}x{} pixels ({} kB), decoded, cropped, augmented as DeiT's \
         recipe says, 224x224",
        report.images_per_second,
        SIZE[0],
        SIZE[1],
        report.bytes_per_image / 1000
    ));
    if !report.optimized {
        print("this build is not optimised; `cargo run --release -- bench loader` shows what an installed lara does");
    }
    Ok(())
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
