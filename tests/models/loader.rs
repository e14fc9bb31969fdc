//! The loader: the same batches whatever the number of threads, from wherever it resumes, and errors in their place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lara_models::data::{
    Augment, Batch, Dataset, Digits, ImageDataset, ImageShape, Loader, LoaderOptions, Position, Sample, Split,
};
use lara_models::{Error, Result};

fn augment() -> Augment {
    Augment { mean: vec![0.3], std: vec![0.4], crop_padding: 1, hflip: 0.5 }
}

fn take(options: LoaderOptions<Augment>, position: Position, count: usize) -> Vec<Batch> {
    let loader = Loader::new(Arc::new(Digits::new(Split::Test)), options, position).unwrap();
    loader.take(count).map(|batch| batch.unwrap()).collect()
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers() {
    // 360 images in batches of 50: 7 full ones an epoch; 16 batches reach into the third epoch.
    let batches = |workers| take(LoaderOptions::train(50, 11, workers, augment()), Position::default(), 16);
    let reference = batches(0);
    assert_eq!(reference.len(), 16);
    assert!(reference.iter().all(|batch| batch.len() == 50 && batch.images.len() == 50 * 64));
    for workers in [1, 2, 5] {
        assert_eq!(batches(workers), reference, "{workers} workers");
    }
}

#[test]
fn epochs_are_different_orders_of_all_images_and_the_seed_decides_them() {
    let orders = |seed| {
        let batches = take(LoaderOptions::train(60, seed, 2, augment()), Position::default(), 12);
        let epoch = |begin: usize| batches[begin..begin + 6].iter().flat_map(|batch| batch.indices.clone()).collect();
        let epochs: [Vec<u32>; 2] = [epoch(0), epoch(6)];
        assert_eq!(batches[6].position, Position { epoch: 1, batch: 0 });
        epochs
    };
    let [first, second] = orders(1);
    for order in [&first, &second] {
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 360);
    }
    assert_ne!(first, second);
    assert_ne!(first, orders(2)[0]);
}

#[test]
fn a_loader_resumes_anywhere() {
    let options = |workers| LoaderOptions::train(50, 3, workers, augment());
    let all = take(options(2), Position::default(), 20);
    for (begin, workers) in [(1, 0), (6, 2), (7, 1), (13, 3)] {
        let mut loader = Loader::new(Arc::new(Digits::new(Split::Test)), options(1), Position::default()).unwrap();
        loader.by_ref().take(begin).for_each(drop);
        let position = loader.position();
        assert_eq!(position, all[begin].position);
        assert_eq!(take(options(workers), position, 4), all[begin..begin + 4]);
    }
    let text = serde_json::to_string(&all[9].position).unwrap();
    assert_eq!(text, r#"{"epoch":1,"batch":2}"#);
    assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), all[9].position);
}

#[test]
fn evaluation_sees_every_image_once_in_order() {
    for workers in [0, 2] {
        let plain = Augment { mean: vec![0.0], std: vec![1.0], crop_padding: 0, hflip: 0.0 };
        let batches = take(LoaderOptions::eval(100, workers, plain), Position::default(), usize::MAX);
        assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [100, 100, 100, 60]);
        let indices: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, (0..360).collect::<Vec<_>>());
        let digits = Digits::new(Split::Test);
        assert_eq!(batches[3].images[..64], digits.get(300).unwrap().pixels);
        assert_eq!(batches[3].labels[7], digits.get(307).unwrap().label);
    }
}

/// A 9x9 picture whose pixels are all different, so that what augmentation did to it can be told from the result.
struct Gradient;

impl ImageDataset for Gradient {
    fn classes(&self) -> &[String] {
        const { &[String::new()] }
    }
    fn image_shape(&self) -> ImageShape {
        ImageShape { channels: 1, height: 9, width: 9 }
    }
}

impl Dataset for Gradient {
    type Item = Sample;

    fn name(&self) -> &str {
        "gradient"
    }
    fn len(&self) -> usize {
        40
    }
    fn get(&self, _index: usize) -> Result<Sample> {
        Ok(Sample { pixels: (1..=81).map(|value| value as f32).collect(), label: 0 })
    }
}

#[test]
fn augmentation_is_new_for_every_image_and_every_epoch() {
    // Padding 4 and the flip make 162 ways; all 40 images of both epochs are the same picture.
    let wide = Augment { mean: vec![0.0], std: vec![1.0], crop_padding: 4, hflip: 0.5 };
    let loader = Loader::new(Arc::new(Gradient), LoaderOptions::train(40, 1, 0, wide), Position::default()).unwrap();
    let mut epochs = loader.take(2).map(|batch| {
        let batch = batch.unwrap();
        let mut images: Vec<_> = batch.indices.iter().zip(batch.images.chunks(81).map(<[f32]>::to_vec)).collect();
        images.sort_by_key(|(index, _)| **index);
        images.into_iter().map(|(_, image)| image).collect::<Vec<_>>()
    });
    let (first, second) = (epochs.next().unwrap(), epochs.next().unwrap());
    let different = |images: &[Vec<f32>]| {
        images
            .iter()
            .map(|image| image.iter().map(|pixel| pixel.to_bits()).collect())
            .collect::<BTreeSet<Vec<u32>>>()
            .len()
    };
    // 40 draws from 162 ways give 35.5 different ones on average, with a standard deviation of 1.8.
    assert!(different(&first) > 26 && different(&second) > 26);
    let same = first.iter().zip(&second).filter(|(one, two)| one == two).count();
    assert!(same < 5, "{same} of 40 images are augmented alike in both epochs");
}

/// Ten images; number `bad` cannot be read, panics or has a label that no class has. Slow at the beginning, so that
/// threads overtake.
struct Faulty {
    bad: usize,
    how: Fault,
    reads: AtomicUsize,
    classes: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Unreadable,
    Panic,
    Label,
}

impl ImageDataset for Faulty {
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn image_shape(&self) -> ImageShape {
        ImageShape { channels: 1, height: 1, width: 1 }
    }
}

impl Dataset for Faulty {
    type Item = Sample;

    fn name(&self) -> &str {
        "faulty"
    }
    fn len(&self) -> usize {
        10
    }
    fn get(&self, index: usize) -> Result<Sample> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10u64.saturating_sub(index as u64)));
        let label = match self.how {
            _ if index != self.bad => 0,
            Fault::Label => 2,
            Fault::Panic => panic!("a panic that the loader must survive"),
            Fault::Unreadable => return Err(Error::BadInput("image 6 is torn".into())),
        };
        Ok(Sample { pixels: vec![index as f32], label })
    }
}

fn faulty(how: Fault) -> Arc<Faulty> {
    Arc::new(Faulty { bad: 6, how, reads: AtomicUsize::new(0), classes: vec!["a".into(), "b".into()] })
}

fn one_by_one(workers: usize) -> LoaderOptions<Augment> {
    let plain = Augment { mean: vec![0.0], std: vec![1.0], crop_padding: 0, hflip: 0.0 };
    LoaderOptions::eval(1, workers, plain)
}

#[test]
fn an_error_arrives_in_its_place_and_ends_the_loader() {
    let torn = "image 6 is torn";
    let label = "image 6 of the data set faulty has label 2, but its 2 classes have labels 0 to 1";
    let panic = "a loader thread panicked in batch 6 of epoch 0 of the data set faulty";
    for (how, workers, expected) in [
        (Fault::Unreadable, 0, torn),
        (Fault::Unreadable, 1, torn),
        (Fault::Unreadable, 4, torn),
        (Fault::Label, 2, label),
        (Fault::Panic, 3, panic),
    ] {
        let mut loader = Loader::new(faulty(how), one_by_one(workers), Position::default()).unwrap();
        for index in 0..6 {
            assert_eq!(loader.next().unwrap().unwrap().images, [index as f32]);
        }
        let error = loader.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_bad_input(), how != Fault::Panic);
        assert!(loader.next().is_none());
    }
}

#[test]
fn workers_stop_at_the_prefetch_and_end_with_the_loader() {
    let dataset = faulty(Fault::Unreadable);
    let options = LoaderOptions { prefetch: 3, ..one_by_one(2) };
    let mut loader = Loader::new(dataset.clone(), options, Position::default()).unwrap();
    loader.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(150));
    // One taken, three ahead.
    assert_eq!(dataset.reads.load(Ordering::Relaxed), 4);
    drop(loader);
    // The threads held the only other handles to the data set.
    assert_eq!(Arc::strong_count(&dataset), 1);
}

#[test]
fn impossible_batches_are_refused_with_the_numbers() {
    let refuse = |options: LoaderOptions<Augment>, position| {
        let error = Loader::new(Arc::new(Digits::new(Split::Test)), options, position).err().unwrap();
        assert!(error.is_bad_input());
        error.to_string()
    };
    let too_large = "cannot make batches of 361 from the 360 samples of the data set digits; \
                     set train.batch_size between 1 and 360";
    assert_eq!(refuse(LoaderOptions::train(361, 1, 2, augment()), Position::default()), too_large);
    assert!(refuse(LoaderOptions::eval(0, 0, augment()), Position::default()).starts_with("cannot make batches of 0"));
    assert_eq!(take(LoaderOptions::eval(361, 0, augment()), Position::default(), 2)[0].len(), 360);
    assert_eq!(
        refuse(LoaderOptions::train(100, 1, 0, augment()), Position { epoch: 2, batch: 3 }),
        "cannot go on at batch 3 of an epoch of 3 batches; the data set or the batch size has changed since"
    );
    assert_eq!(
        refuse(LoaderOptions::train(100, 1, 0, augment()), Position { epoch: u64::MAX / 2, batch: 0 }),
        "cannot go on at epoch 9223372036854775807: so many batches cannot be counted; the checkpoint is damaged, use another"
    );
    let three = Augment { mean: vec![0.1, 0.2, 0.3], ..augment() };
    assert_eq!(
        refuse(LoaderOptions::train(10, 1, 0, three), Position::default()),
        "data.mean has 3 values for images of 1 channels; give one value, or one for each channel"
    );
    let flat = Augment { std: vec![0.0], ..augment() };
    assert_eq!(
        refuse(LoaderOptions::train(10, 1, 0, flat), Position::default()),
        "data.std holds 0; images are divided by it, so it must be above 0"
    );
}
