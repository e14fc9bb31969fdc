//! Data sets in the formats that others publish them in: CIFAR, tar shards, emoji.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use lara_models::data::picture::{self, CropMode, Interpolation, Preprocess};
use lara_models::data::{Cifar10, Cifar100, Dataset, Emoji, ImageDataset, ImageShape, Shards, Split};

const RGB_4: ImageShape = ImageShape { channels: 3, height: 4, width: 4 };

fn sentence<T: Debug>(result: lara_models::Result<T>, root: &Path) -> String {
    let error = result.unwrap_err();
    assert!(error.is_bad_input(), "{error}");
    error.to_string().replace(&root.display().to_string(), "ROOT")
}

/// Records whose first pixel tells which they are.
fn records(labels: &[&[u8]], first: u8) -> Vec<u8> {
    let record = |(i, labels): (usize, &&[u8])| [labels, &[first + i as u8][..], &[7; 3071]].concat();
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_is_read_from_its_binary_files() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    for (i, name) in Cifar10::file_names(Split::Train).iter().enumerate() {
        fs::write(folder.join(name), records(&[&[i as u8], &[9]], 10 * i as u8)).unwrap();
    }
    let missing = sentence(Cifar10::open(root.path(), Split::Test), root.path());
    assert!(
        missing.starts_with("ROOT/cifar-10-batches-bin: has no file test_batch.bin; cifar10 needs data_batch_1.bin")
    );
    let train = Cifar10::open(root.path(), Split::Train).unwrap();
    assert_eq!((train.len(), train.classes()[3].as_str()), (10, "3"));
    let sample = train.get(6).unwrap();
    assert_eq!((sample.label, sample.pixels[0], sample.pixels[3071]), (3, 30.0 / 255.0, 7.0 / 255.0));
    fs::write(folder.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
    assert_eq!(Cifar10::open(&folder, Split::Train).unwrap().classes()[9], "j");
    let refuse = |bytes: &[u8]| {
        fs::write(folder.join("test_batch.bin"), bytes).unwrap();
        sentence(Cifar10::open(&folder, Split::Test), &folder)
    };
    assert_eq!(
        refuse(&[0; 3072]),
        "ROOT/test_batch.bin: has 3072 bytes, which are no whole number of records of 3073 bytes; fetch it again"
    );
    assert_eq!(refuse(&records(&[&[1], &[10]], 0)), "ROOT/test_batch.bin: label number 1 is 10, but labels are 0 to 9");
    // A hundred classes: the coarse label comes first.
    fs::write(root.path().join("test.bin"), records(&[&[19, 99], &[1, 42]], 5)).unwrap();
    let test = Cifar100::open(root.path(), Split::Test).unwrap();
    assert_eq!((test.len(), test.classes().len(), test.get(1).unwrap().label), (2, 100, 42));
    assert_eq!(test.get(1).unwrap().pixels[0], 6.0 / 255.0);
}

fn png(value: f32) -> Vec<u8> {
    let file = tempfile::NamedTempFile::with_suffix(".png").unwrap();
    picture::save_png(file.path(), &[value; 48], RGB_4).unwrap();
    fs::read(file.path()).unwrap()
}

/// A tar file of members.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend(header);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Two shards of training images and one to test on; their pictures, and the bytes of the first.
fn write_shards(path: &Path) -> (Vec<Vec<u8>>, Vec<u8>) {
    let pictures: Vec<Vec<u8>> = [0.2, 0.4, 0.6, 0.8].map(png).into();
    let first = tar(&[
        ("a/1.jpg.png", &pictures[0]),
        ("a/1.cls", b"2\n"),
        ("a/2.cls", b"0"),
        ("a/2.json", b"{}"),
        ("a/2.png", &pictures[1]),
    ]);
    fs::write(path.join("set-train-000.tar"), &first).unwrap();
    fs::write(path.join("set-train-001.tar"), tar(&[("3.png", &pictures[2]), ("3.cls", b"1")])).unwrap();
    fs::create_dir(path.join("val")).unwrap();
    fs::write(path.join("val/0.tar"), tar(&[("9.cls", b"0"), ("9.png", &pictures[3])])).unwrap();
    (pictures, first)
}

fn open_shards(path: &Path, split: Split) -> lara_models::Result<Shards> {
    Shards::open(path, split, &Preprocess::timm(RGB_4, 1.0, CropMode::Center, Interpolation::Bicubic))
}

#[test]
fn shards_are_read_where_their_pictures_lie() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let open = |split| open_shards(path, split);
    assert_eq!(
        sentence(open(Split::Train), path),
        "ROOT: has no tar files of train: neither in a folder of that name nor named so (*.tar)"
    );
    let (pictures, _) = write_shards(path);
    let train = open(Split::Train).unwrap();
    assert_eq!((train.len(), train.classes().len()), (3, 3));
    for (index, (label, level)) in [(2, 51.0), (0, 102.0), (1, 153.0)].into_iter().enumerate() {
        let sample = train.get(index).unwrap();
        assert_eq!((sample.label, sample.pixels), (label, vec![level / 255.0; 48]), "{index}");
    }
    // Classes are those of the training images, by their names where they have some.
    let test = open(Split::Test).unwrap();
    assert_eq!((test.len(), test.classes().len(), test.get(0).unwrap().pixels[0]), (1, 3, 204.0 / 255.0));
    assert_ne!(train.fingerprint(), test.fingerprint());
    // A run that is resumed notices that a picture has another class.
    let shard = path.join("set-train-001.tar");
    let before = fs::read(&shard).unwrap();
    fs::write(&shard, tar(&[("3.png", &pictures[2]), ("3.cls", b"0")])).unwrap();
    assert_ne!(open(Split::Train).unwrap().fingerprint(), train.fingerprint());
    fs::write(&shard, before).unwrap();
    assert_eq!(open(Split::Train).unwrap().fingerprint(), train.fingerprint());
    fs::write(path.join("classes.txt"), "ant\nbee\n").unwrap();
    assert_eq!(open(Split::Test).unwrap().classes(), ["ant", "bee"]);
    assert_eq!(
        sentence(open(Split::Train), path),
        "ROOT/set-train-000.tar: has class 2 in a/1.jpg.png, but there are 2 classes"
    );
}

#[test]
fn shards_that_are_broken_are_told_by_their_member() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let (pictures, first) = write_shards(path);
    let open = |split| open_shards(path, split);
    let refuse = |bytes: &[u8]| {
        fs::write(path.join("set-train-000.tar"), bytes).unwrap();
        sentence(open(Split::Train), path)
    };
    // Within the first picture, between two members, within the end.
    assert_eq!(
        refuse(&first[..520]),
        "ROOT/set-train-000.tar: is cut short: it ends within the member a/1.jpg.png; fetch it again"
    );
    assert_eq!(
        refuse(&first[..first.len() - 1024]),
        "ROOT/set-train-000.tar: is cut short: after the member a/2.png the end of the archive is missing; fetch it again"
    );
    let damaged = refuse(&[&first[..2048], &[b'x'; 512]].concat());
    assert!(damaged.starts_with("ROOT/set-train-000.tar: is no whole tar file: after the member "), "{damaged}");
    assert_eq!(
        refuse(&tar(&[("1.png", &pictures[0])])),
        "ROOT/set-train-000.tar: has no class for the sample 1: the member 1.cls is missing"
    );
    let far = refuse(&tar(&[("1.png", &pictures[0]), ("1.cls", b"3000000000")]));
    assert!(
        far.ends_with("has \"3000000000\" in the member 1.cls, where a class's number below 65536 is expected"),
        "{far}"
    );
    assert!(refuse(&tar(&[("1.cls", b"1")])).contains("has no picture for the sample 1: "));
    assert_eq!(
        refuse(&tar(&[("1.cls", b"cat")])),
        "ROOT/set-train-000.tar: has \"cat\" in the member 1.cls, where a class's number below 65536 is expected"
    );
    // A damaged picture is told by its name when it is read.
    fs::write(path.join("set-train-000.tar"), tar(&[("b/1.png", &pictures[0][..40]), ("b/1.cls", b"0")])).unwrap();
    let message = sentence(open(Split::Train).unwrap().get(0), path);
    assert!(message.starts_with("ROOT/set-train-000.tar/b/1.png: cannot be read as an image: "), "{message}");
}

/// Ten emoji of one category; number 1 has skin tones, 2 and 3 look the same, everything is drawn twice.
fn write_emoji(root: &Path) {
    let emoji = |i: usize| {
        let tones = if i == 1 { "{\"1F3FB\": {\"image\": \"e1-1.png\"}}" } else { "{}" };
        format!("{{\"image\": \"e{i}.png\", \"category\": \"Things\", \"skin_variations\": {tones}}}")
    };
    let list = (0..10).map(emoji).collect::<Vec<_>>().join(",");
    for (v, vendor) in ["google", "twitter"].into_iter().enumerate() {
        let folder = root.join(vendor).join("img").join(vendor).join("64");
        fs::create_dir_all(&folder).unwrap();
        fs::write(root.join(vendor).join("emoji.json"), format!("[{list}]")).unwrap();
        let draw = |name: &str, level: u8| {
            let picture =
                image::RgbaImage::from_pixel(64, 64, image::Rgba([level, v as u8, 9, if v == 0 { 255 } else { 51 }]));
            picture.save(folder.join(name)).unwrap();
        };
        (0..10).for_each(|i| draw(&format!("e{i}.png"), if i == 3 { 20 } else { 10 * i }));
        draw("e1-1.png", 200);
    }
}

#[test]
fn no_emoji_is_in_both_splits() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(
        sentence(Emoji::open(root.path(), Split::Train), root.path()),
        "ROOT: has neither of the folders google and twitter; `lara data emoji` fetches them"
    );
    write_emoji(root.path());
    let splits = [Split::Train, Split::Test].map(|split| Emoji::open(root.path(), split).unwrap());
    assert_eq!(splits[0].classes(), ["Things"]);
    assert_eq!(splits.each_ref().map(Emoji::len).iter().sum::<usize>(), 22);
    assert!(splits[1].len() >= 4, "{}", splits[1].len());
    let levels = splits.each_ref().map(|split| {
        (0..split.len()).map(|i| (split.get(i).unwrap().pixels[0] * 255.0).round() as u8).collect::<Vec<u8>>()
    });
    // Twitter's is a fifth of the colour on white: 204 + level / 5.
    let emoji = |level: u8| match level {
        200 | 244 | 206 => 1,
        level if level > 203 => (level - 204) / 2,
        level => level / 10,
    };
    for test in &levels[1] {
        assert!(levels[0].iter().all(|train| emoji(*train) != emoji(*test)), "{levels:?}");
    }
    assert!(levels.iter().flatten().any(|&level| level == 204) && levels.iter().flatten().any(|&level| level == 0));
    // Another category is another data set.
    let list = fs::read_to_string(root.path().join("google/emoji.json")).unwrap();
    fs::write(root.path().join("google/emoji.json"), list.replace("Things", "Signs")).unwrap();
    assert_ne!(Emoji::open(root.path(), Split::Test).unwrap().fingerprint(), splits[1].fingerprint());
    // Pictures that are missing are told; those that their vendor never drew are not.
    let open = || Emoji::open(root.path(), Split::Train);
    for name in ["e4.png", "e1-1.png"] {
        fs::remove_file(root.path().join("twitter/img/twitter/64").join(name)).unwrap();
    }
    assert_eq!(
        sentence(open(), root.path()),
        "ROOT: lacks 2 of the 22 pictures that its list has, the first is twitter/img/twitter/64/e1-1.png; delete the \
         folder and fetch it again with `lara data emoji`"
    );
    let never = |list: &str, name: &str| {
        let image = format!("\"image\": \"{name}\"");
        list.replace(&image, &format!("{image}, \"has_img_google\": true, \"has_img_twitter\": false"))
    };
    fs::write(root.path().join("google/emoji.json"), never(&never(&list, "e4.png"), "e1-1.png")).unwrap();
    let held_out = Emoji::open(root.path(), Split::Test).unwrap().len();
    assert_eq!(open().unwrap().len() + held_out, 20);
    fs::write(root.path().join("google/emoji.json"), "{}").unwrap();
    assert!(
        sentence(Emoji::open(root.path(), Split::Train), root.path())
            .starts_with("ROOT/google/emoji.json: is no list of emoji: ")
    );
}
