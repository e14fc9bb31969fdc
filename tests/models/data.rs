//! Data sets: the digits as they were published, IDX and picture files, and every way in which those can be wrong.

use std::fs;
use std::path::Path;

use lara_models::data::picture::{self, CropMode, Interpolation, Preprocess};
use lara_models::data::{Augment, Dataset, Digits, ImageDataset, ImageFolder, ImageShape, Mnist, Split};
use lara_models::random::{Draws, Purpose};
use lara_models::train::TrainConfig;
use lara_models::train::tensorboard::crc32c;

const GREY_4: ImageShape = ImageShape { channels: 1, height: 4, width: 4 };
const RGB_4: ImageShape = ImageShape { channels: 3, height: 4, width: 4 };

/// What went wrong, with the folder cut out; checks that it counts as bad input.
fn sentence<T>(result: lara_models::Result<T>, root: &Path) -> String {
    let error = result.err().expect("this must be refused");
    assert!(error.is_bad_input(), "{error}");
    error.to_string().replace(&format!("{}", root.display()), "ROOT").replace('\\', "/")
}

#[test]
fn digits_are_the_published_ones_split_once_for_all() {
    let (train, test) = (Digits::new(Split::Train), Digits::new(Split::Test));
    assert_eq!((train.len(), test.len()), (1437, 360));
    assert_eq!(train.image_shape().to_string(), "1x8x8");
    assert_eq!(train.classes(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let mut all = [0; 10];
    let mut held_out = [0; 10];
    let mut sum = 0.0f64;
    for (split, counts) in [(&train, &mut [0; 10]), (&test, &mut held_out)] {
        for i in 0..split.len() {
            let sample = split.get(i).unwrap();
            assert!(sample.pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
            sum += sample.pixels.iter().map(|&pixel| f64::from(pixel) * 16.0).sum::<f64>();
            counts[sample.label as usize] += 1;
            all[sample.label as usize] += 1;
        }
    }
    // Counts of optdigits.tes as its documentation lists them, and the sum of all pixels of scikit-learn's copy.
    assert_eq!(all, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    assert_eq!(sum, 561_718.0);
    assert!(held_out.iter().zip(all).all(|(&test, all)| (test * 5_i32).abs_diff(all) <= 5), "{held_out:?}");
    // The first image of the file is a zero; its second row is 0 0 13 15 10 15 5 0.
    let zero = [0.0, 0.0, 13.0, 15.0, 10.0, 15.0, 5.0, 0.0].map(|value| value / 16.0);
    let first = [&train, &test].map(|split| split.get(0).unwrap());
    assert!(first.iter().any(|sample| sample.label == 0 && sample.pixels[8..16] == zero));
    // Which images are held out must never change: results would not compare any more.
    let labels: Vec<u8> = (0..test.len()).map(|i| test.get(i).unwrap().label as u8).collect();
    assert_eq!(crc32c(&labels), 0xf4d3_1c61, "the split has changed");
    assert!(!train.get(1437).unwrap_err().is_bad_input());
}

/// The four files, three training images of 2x3 and two test images.
fn write_mnist(root: &Path) {
    let images = |count: u8| {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend((0..count * 6).map(|value| value * 10));
        bytes
    };
    fs::write(root.join("train-images-idx3-ubyte"), images(3)).unwrap();
    fs::write(root.join("train-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 9]).unwrap();
    fs::write(root.join("t10k-images-idx3-ubyte"), images(2)).unwrap();
    fs::write(root.join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 2, 1, 2]).unwrap();
}

#[test]
fn mnist_reads_idx_files() {
    let root = tempfile::tempdir().unwrap();
    write_mnist(root.path());
    let train = Mnist::open(root.path(), Split::Train).unwrap();
    assert_eq!((train.len(), train.image_shape().to_string()), (3, "1x2x3".to_string()));
    let sample = train.get(1).unwrap();
    assert_eq!(sample.label, 0);
    assert_eq!(sample.pixels, [60.0, 70.0, 80.0, 90.0, 100.0, 110.0].map(|value: f32| value / 255.0));
    let test = Mnist::open(root.path(), Split::Test).unwrap();
    assert_eq!((test.len(), test.get(1).unwrap().label), (2, 2));
}

#[test]
fn mnist_reads_gzipped_files() {
    let root = tempfile::tempdir().unwrap();
    write_mnist(root.path());
    let plain = root.path().join("train-labels-idx1-ubyte");
    let bytes = fs::read(&plain).unwrap();
    fs::remove_file(&plain).unwrap();
    // Gzip with one stored block: header, block header, data, CRC-32 of the data (from zlib), length.
    let mut zipped = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 11, 0, !11, 255];
    zipped.extend(&bytes);
    zipped.extend(0x7157_c6cb_u32.to_le_bytes());
    zipped.extend(11u32.to_le_bytes());
    fs::write(root.path().join("train-labels-idx1-ubyte.gz"), &zipped).unwrap();
    assert_eq!(Mnist::open(root.path(), Split::Train).unwrap().get(2).unwrap().label, 9);
    fs::write(root.path().join("train-labels-idx1-ubyte.gz"), &zipped[..20]).unwrap();
    let message = sentence(Mnist::open(root.path(), Split::Train), root.path());
    assert!(message.starts_with("ROOT/train-labels-idx1-ubyte.gz: is not a whole gzip file ("), "{message}");
}

#[test]
fn mnist_says_what_is_wrong_with_which_file() {
    let root = tempfile::tempdir().unwrap();
    let refuse = |name: &str, bytes: &[u8]| {
        write_mnist(root.path());
        fs::write(root.path().join(name), bytes).unwrap();
        sentence(Mnist::open(root.path(), Split::Train), root.path())
    };
    let (images, labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    assert_eq!(
        sentence(Mnist::open(root.path(), Split::Train), root.path()),
        "ROOT: has no file train-images-idx3-ubyte (nor train-images-idx3-ubyte.gz); MNIST needs train-images-idx3-ubyte, \
         train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte. `lara data mnist` fetches them"
    );
    assert_eq!(
        refuse(labels, &[0, 0, 8, 1, 0, 0, 0, 3, 5, 10, 9]),
        "ROOT/train-labels-idx1-ubyte: label number 1 is 10, but labels are 0 to 9"
    );
    assert_eq!(
        refuse(labels, &[0, 0, 8, 1, 0, 0, 0, 2, 5, 1]),
        "ROOT/train-labels-idx1-ubyte: has 2 labels for the 3 images of ROOT/train-images-idx3-ubyte; \
         the two files do not belong together"
    );
    assert_eq!(
        refuse(labels, &[0, 0, 8, 1, 0, 0, 0, 3, 5, 1]),
        "ROOT/train-labels-idx1-ubyte: is truncated: its header promises sizes [3] but only 2 bytes follow; fetch it again"
    );
    assert_eq!(
        refuse(labels, &[0, 0, 8, 1, 0, 0, 0, 1, 5, 1]),
        "ROOT/train-labels-idx1-ubyte: has 2 bytes after its header, which promises 1 (sizes [1])"
    );
    assert_eq!(
        refuse(images, &[0, 0, 8, 3, 0, 0]),
        "ROOT/train-images-idx3-ubyte: is truncated: its 6 bytes end inside the IDX header; fetch it again"
    );
    assert_eq!(
        refuse(images, &[0, 0, 8, 1, 0, 0, 0, 3, 5, 1, 1]),
        "ROOT/train-images-idx3-ubyte: is not an IDX file of images: it begins with 0x00000801 instead of 0x00000803"
    );
    let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
    assert!(refuse(images, &huge).contains("is truncated"));
    assert!(
        refuse(images, &[0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]).contains("has 3 labels for the 0 images")
    );
}

/// As timm fits pictures, with nothing subtracted.
fn fitting(shape: ImageShape, crop_pct: f64) -> Preprocess {
    Preprocess::timm(shape, crop_pct, CropMode::Center, Interpolation::Bicubic)
}

/// A picture whose pixels all have the value given.
fn plain(path: &Path, value: f32, shape: ImageShape) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture::save_png(path, &vec![value; shape.len()], shape).unwrap();
}

fn write_folder(root: &Path) {
    for (split, names) in [("train", ["a1.png", "a2.PNG"]), ("val", ["v1.png", "v2.png"])] {
        for (class, value) in [("cat", 0.2), ("ant", 0.4)] {
            names.iter().for_each(|name| plain(&root.join(split).join(class).join(name), value, RGB_4));
        }
    }
    fs::create_dir_all(root.join("train/.cache")).unwrap();
    fs::write(root.join("train/ant/notes.txt"), "not a picture").unwrap();
}

#[test]
fn image_folder_lists_classes_and_files_in_order() {
    let root = tempfile::tempdir().unwrap();
    write_folder(root.path());
    let train = ImageFolder::open(root.path(), Split::Train, &fitting(RGB_4, 1.0)).unwrap();
    assert_eq!(train.classes(), ["ant", "cat"]);
    assert_eq!(train.len(), 4);
    assert!(train.path(1).unwrap().ends_with("train/ant/a2.PNG"));
    assert!(train.path(2).unwrap().ends_with("train/cat/a1.png"));
    let sample = train.get(2).unwrap();
    assert_eq!((sample.label, sample.pixels), (1, vec![51.0 / 255.0; 48]));
    assert!(
        ImageFolder::open(root.path(), Split::Test, &fitting(RGB_4, 1.0))
            .unwrap()
            .path(0)
            .unwrap()
            .ends_with("val/ant/v1.png")
    );
    fs::rename(root.path().join("val"), root.path().join("test")).unwrap();
    assert!(
        ImageFolder::open(root.path(), Split::Test, &fitting(GREY_4, 1.0))
            .unwrap()
            .path(3)
            .unwrap()
            .ends_with("test/cat/v2.png")
    );
}

#[test]
fn a_fingerprint_tells_a_data_set_from_one_with_other_samples() {
    let [root, moved] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    write_folder(root.path());
    write_folder(moved.path());
    let of = |root: &Path| ImageFolder::open(root, Split::Train, &fitting(RGB_4, 1.0)).unwrap().fingerprint();
    let first = of(root.path());
    assert_eq!((first.samples, of(moved.path())), (4, first), "the folder may move");
    assert_ne!(ImageFolder::open(root.path(), Split::Test, &fitting(RGB_4, 1.0)).unwrap().fingerprint(), first);
    let added = root.path().join("train/ant/a3.png");
    plain(&added, 0.4, RGB_4);
    let second = of(root.path());
    assert_eq!(second.samples, 5);
    fs::remove_file(&added).unwrap();
    assert_eq!(of(root.path()), first);
    // As many, but under other names, and so in another order.
    fs::rename(root.path().join("train/ant/a1.png"), root.path().join("train/cat/a3.png")).unwrap();
    let third = of(root.path());
    assert!(third.samples == 4 && third.names != first.names, "{third:?}");
    assert_eq!(Digits::new(Split::Train).fingerprint(), Digits::new(Split::Train).fingerprint());
    assert_ne!(Digits::new(Split::Train).fingerprint(), Digits::new(Split::Test).fingerprint());
}

#[test]
fn image_folder_says_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let refuse = |split| sentence(ImageFolder::open(path, split, &fitting(RGB_4, 1.0)), path);
    assert_eq!(
        refuse(Split::Train),
        "ROOT: has no folder train; an image folder has train/CLASS/*.png and val/CLASS/*.png"
    );
    fs::create_dir(path.join("train")).unwrap();
    assert_eq!(refuse(Split::Test), "ROOT: has no folder val (nor test); images to test with go to val/CLASS/*.png");
    assert_eq!(
        refuse(Split::Train),
        "ROOT/train: has no sub-folders; each class has its images in a sub-folder named after it"
    );
    write_folder(path);
    fs::create_dir(path.join("train/bee")).unwrap();
    assert_eq!(
        refuse(Split::Train),
        "ROOT/train/bee: holds no picture (PNG, JPEG, WebP, GIF or BMP); give the class images or remove its folder"
    );
    fs::create_dir(path.join("val/eel")).unwrap();
    assert_eq!(
        refuse(Split::Test),
        "ROOT/val: has not the 3 classes of train: it lacks bee and it has eel, which train has not"
    );
    fs::remove_dir(path.join("train/bee")).unwrap();
    let broken = path.join("train/ant/a1.png");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let train = ImageFolder::open(path, Split::Train, &fitting(RGB_4, 1.0)).unwrap();
    let message = sentence(train.get(0), path);
    assert!(message.starts_with("ROOT/train/ant/a1.png: cannot be read as an image: "), "{message}");
    fs::write(&broken, "plain text").unwrap();
    assert_eq!(
        sentence(train.get(0), path),
        "ROOT/train/ant/a1.png: is not an image of a known format; PNG, JPEG, WebP, GIF and BMP are read"
    );
    fs::remove_file(&broken).unwrap();
    assert!(sentence(train.get(0), path).starts_with("cannot read ROOT/train/ant/a1.png: "));
}

#[test]
fn pictures_keep_their_values_and_are_fitted_as_timm_does() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("picture.png");
    // A picture of the right size is not touched: every grey value comes back as it was.
    let shape = ImageShape { channels: 1, height: 16, width: 16 };
    let values: Vec<f32> = (0..=255u8).map(|value| f32::from(value) / 255.0).collect();
    picture::save_png(&path, &values, shape).unwrap();
    assert_eq!(fitting(shape, 1.0).read(&path).unwrap(), values);
    // Colour planes are not mixed up.
    let colors: Vec<f32> = (0..48).map(|i| (i / 16) as f32 * 0.4).collect();
    picture::save_png(&path, &colors, RGB_4).unwrap();
    assert_eq!(fitting(RGB_4, 1.0).read(&path).unwrap(), colors);
    // 8 rows of 24 columns, left third black, middle grey, right white: the centre crop is the middle third.
    let wide = ImageShape { channels: 1, height: 8, width: 24 };
    let thirds: Vec<f32> = (0..8 * 24).map(|i| (i % 24 / 8) as f32 * 102.0 / 255.0).collect();
    picture::save_png(&path, &thirds, wide).unwrap();
    let eight = ImageShape { channels: 1, height: 8, width: 8 };
    assert_eq!(fitting(eight, 1.0).read(&path).unwrap(), vec![102.0 / 255.0; 64]);
    // Half the size: columns away from the edges between thirds keep their value.
    let four = fitting(GREY_4, 1.0).read(&path).unwrap();
    assert!((four[5] - 0.4).abs() < 0.005 && (four[6] - 0.4).abs() < 0.005, "{four:?}");
    // crop_pct 0.5 of 8x24 resized to 8x24 leaves the centre 4x4: all of it grey.
    assert_eq!(fitting(GREY_4, 0.5).read(&path).unwrap(), vec![102.0 / 255.0; 16]);
}

#[test]
fn jpeg_files_are_read_whatever_their_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("photo.png");
    // 16x16 pixels of one colour, written by Pillow, from (200, 60, 20) and read back by it as (199, 60, 19).
    fs::write(&path, include_bytes!("fixtures/orange.jpg")).unwrap();
    let rgb = fitting(RGB_4, 1.0).read(&path).unwrap();
    for (value, expected) in rgb.iter().zip([200.0f32, 60.0, 20.0].iter().flat_map(|level| [level / 255.0; 16])) {
        assert!((value - expected).abs() <= 1.01 / 255.0, "{value} {expected}");
    }
    let grey = fitting(GREY_4, 1.0).read(&path).unwrap()[0];
    assert!((grey * 255.0 - (0.299 * 200.0 + 0.587 * 60.0 + 0.114 * 20.0)).abs() < 1.6, "{grey}");
    let two = ImageShape { channels: 2, height: 4, width: 4 };
    assert_eq!(
        sentence(fitting(two, 1.0).read(&path), root.path()),
        "pictures are read as grey or RGB: model.in_chans must be 1 or 3, not 2"
    );
}

#[test]
fn augmentation_crops_flips_and_normalises_by_its_draws() {
    let shape = ImageShape { channels: 2, height: 3, width: 3 };
    let pixels: Vec<f32> = (1..=18).map(|value| value as f32).collect();
    let apply = |augment: &Augment, index| {
        let mut out = vec![f32::NAN; 18];
        augment.apply(&pixels, shape, &mut Draws::new(1, Purpose::Augment, 0, index), &mut out);
        out
    };
    let still = Augment { mean: vec![1.0, 10.0], std: vec![2.0, 0.5], crop_padding: 0, hflip: 0.0 };
    let normalised: Vec<f32> = (0..18).map(|i| if i < 9 { i as f32 / 2.0 } else { (i - 9) as f32 * 2.0 }).collect();
    assert_eq!(apply(&still, 0), normalised);
    let mirror = Augment { mean: vec![0.0], std: vec![1.0], crop_padding: 0, hflip: 1.0 };
    assert_eq!(apply(&mirror, 0)[..6], [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    // All 9 places of a crop with padding 1 and both directions occur, and nothing else.
    let random = Augment { crop_padding: 1, hflip: 0.5, ..mirror };
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..400 {
        let out = apply(&random, index);
        let expected = |top: i32, left: i32, flip: bool| -> Vec<f32> {
            let at = |c: i32, y: i32, x: i32| {
                let (y, x) = (y + top, if flip { 2 - x } else { x } + left);
                let inside = (0..3).contains(&y) && (0..3).contains(&x);
                if inside { pixels[(c * 9 + y * 3 + x) as usize] } else { 0.0 }
            };
            (0..18).map(|i| at(i / 9, i / 3 % 3, i % 3)).collect()
        };
        let places = (0..18).map(|i| (i / 6 - 1, i / 2 % 3 - 1, i % 2 == 1));
        let found: Vec<_> = places.filter(|&(top, left, flip)| expected(top, left, flip) == out).collect();
        assert_eq!(found.len(), 1, "{out:?}");
        seen.insert(found[0]);
    }
    assert_eq!(seen.len(), 18);
}

#[test]
fn a_data_set_that_does_not_fit_the_model_is_refused() {
    let refuse = |preset: &str, sets: &[&str]| {
        let config = TrainConfig::load(preset, sets).unwrap();
        sentence(config.open_data(Split::Train).map(|_| ()), Path::new("/no/such/folder"))
    };
    assert_eq!(
        refuse("digits", &["in_chans=3"]),
        "the data set digits has images of 1x8x8 but the model takes 3x8x8 (model.in_chans = 3, model.image_size = 8); \
         make the two agree"
    );
    assert_eq!(
        refuse("digits", &["num_classes=12"]),
        "the data set digits has 10 classes but model.num_classes is 12; set model.num_classes=10"
    );
    assert_eq!(
        refuse("digits", &["dataset=folder"]),
        "the data set `folder` is read from a folder: set data.path (--set data.path=FOLDER)"
    );
    assert!(refuse("mnist", &["data.path=/no/such/folder"]).starts_with("ROOT: has no file train-images-idx3-ubyte"));
    let config = TrainConfig::load("digits", &[] as &[&str]).unwrap();
    assert_eq!(config.open_data(Split::Test).unwrap().len(), 360);
}
