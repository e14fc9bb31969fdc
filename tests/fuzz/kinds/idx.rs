//! MNIST's files, plain and zipped: magic numbers, sizes and contents that do not belong together, and bombs.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lara_models::data::{Dataset, Mnist, Split};

use super::{Rooms, worst};
use crate::case::{Answer, Case, answer};
use crate::source::Source;

pub(super) fn files(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let folder = rooms.empty();
    let count = case.source.range(0..=4);
    let [images_name, labels_name] = Mnist::file_names(Split::Train);
    let sizes = [count, case.source.range(0..=5), case.source.range(0..=5)];
    write(case, &folder, images_name, 3, &sizes);
    write(case, &folder, labels_name, 1, &sizes[..1]);
    match Mnist::open(&folder, Split::Train) {
        Ok(data) => worst((0..data.len()).map(|index| answer(data.get(index)))),
        Err(error) => answer::<()>(Err(error)),
    }
}

fn write(case: &mut Case<'_>, folder: &Path, name: &str, dimensions: u8, sizes: &[usize]) {
    let source = &mut case.source;
    let mut bytes = vec![0, 0, 8, dimensions];
    let is_honest = source.chance(1, 2);
    if !is_honest && source.chance(1, 8) {
        bytes = (source.word() as u32).to_be_bytes().to_vec();
    }
    for &size in sizes {
        let size = if !is_honest && source.chance(1, 4) { source.word() as u32 } else { size as u32 };
        bytes.extend(size.to_be_bytes());
    }
    let length: usize = sizes.iter().product();
    bytes.extend((0..length).map(|i| (i % 10) as u8));
    if !is_honest {
        source.damage(&mut bytes);
    }
    let (name, bytes) = match source.range(0..=9) {
        0 => return,
        1..=4 => (format!("{name}.gz"), zipped(source, &bytes)),
        _ => (name.to_owned(), bytes),
    };
    fs::write(folder.join(&name), &bytes).expect("a file of a case cannot be written");
    case.keep(&name, &bytes);
}

fn zipped(source: &mut Source<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    _ = encoder.write_all(bytes);
    if source.chance(1, 200) {
        // Two hundred MiB that compress to almost nothing.
        let zeros = vec![0; 1 << 20];
        (0..200).for_each(|_| _ = encoder.write_all(&zeros));
    }
    let mut zipped = encoder.finish().unwrap_or_default();
    if source.chance(1, 3) {
        source.damage(&mut zipped);
    }
    zipped
}
