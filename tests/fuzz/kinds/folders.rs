//! Folders: of pictures by class, and of runs.

use std::fs;

use lara_models::data::picture::{CropMode, Interpolation, Preprocess};
use lara_models::data::{Dataset, ImageFolder, ImageShape, Split};

use super::{Rooms, runs, worst};
use crate::case::{Answer, Case, answer};

pub(super) fn any(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    if case.source.chance(2, 3) { runs::folder(case, rooms) } else { pictures(case, rooms) }
}

fn pictures(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let root = rooms.empty();
    let mut log = String::new();
    for split in ["train", "val", "test"] {
        if case.source.chance(1, 8) {
            continue;
        }
        for class in ["ant", "bee", "Zoë", ".hidden", "a b\n"] {
            if case.source.chance(1, 3) {
                continue;
            }
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).expect("a folder of a case cannot be made");
            for name in ["1.png", "2.JPEG", "notes.txt", ".cache.png"].iter().take(case.source.range(0..=4)) {
                let mut bytes = case.source.pick(&[0, 1, 2, 3]).min(rooms.pictures.png.len() - 1);
                let mut picture = rooms.pictures.png[bytes].clone();
                if case.source.chance(1, 3) {
                    case.source.damage(&mut picture);
                    bytes = 99;
                }
                log += &format!("{split}/{class}/{name}: picture {bytes}\n");
                fs::write(folder.join(name), picture).expect("a file of a case cannot be written");
            }
        }
        if case.source.chance(1, 8) {
            // A folder may stand there already; then the file does not.
            _ = fs::write(root.join(split).join("cat"), "no folder");
        }
    }
    case.keep("folders.txt", log.as_bytes());
    let shape = ImageShape { channels: case.source.pick(&[1, 3]), height: 8, width: 8 };
    let fitting = Preprocess::timm(shape, 0.875, CropMode::Center, Interpolation::Bicubic);
    let open = |split| ImageFolder::open(&root, split, &fitting);
    worst([Split::Train, Split::Test].into_iter().flat_map(|split| match open(split) {
        Ok(folder) => (0..folder.len()).map(|index| answer(folder.get(index))).collect(),
        Err(error) => vec![answer::<()>(Err(error))],
    }))
}
