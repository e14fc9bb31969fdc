//! Readers that hold no more than a file's header honestly promises, and sentences that are fit for a terminal.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use lara_models::data::{Dataset, Mnist, Split};
use lara_models::train::TrainConfig;
use lara_models::weights::TensorFile;

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_zipped_file_is_unpacked_as_far_as_its_header_promises() {
    let root = tempfile::tempdir().unwrap();
    let labels = [&[0, 0, 8, 1, 0, 0, 0, 2, 3, 4][..], &vec![0; 1 << 20]].concat();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7, 8]].concat();
    let write = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();
    let refused = || {
        let error = Mnist::open(root.path(), Split::Train).expect_err("this must be refused");
        assert!(error.is_bad_input());
        error.to_string().replace(&format!("{}/", root.path().display()), "")
    };
    write("train-images-idx3-ubyte.gz", &zipped(&images));
    write("train-labels-idx1-ubyte.gz", &zipped(&labels));
    assert_eq!(refused(), "train-labels-idx1-ubyte.gz: has more than the 2 bytes that its header promises (sizes [2])");
    // No file of this length holds four thousand million labels, however it is packed.
    let promise = zipped(&[0, 0, 8, 1, 255, 255, 255, 255, 3, 4]);
    write("train-labels-idx1-ubyte.gz", &promise);
    assert_eq!(
        refused(),
        format!(
            "train-labels-idx1-ubyte.gz: is truncated: its header promises sizes [4294967295] but no more than {} bytes can \
             be in a file of this length; fetch it again",
            promise.len() * 1032 - 8
        )
    );
    write("train-labels-idx1-ubyte.gz", &zipped(&labels[..10]));
    assert_eq!(Mnist::open(root.path(), Split::Train).unwrap().get(1).unwrap().label, 4);
}

/// A safetensors file with this header and as many bytes of data.
fn file(header: &str, data: usize) -> lara_models::Result<TensorFile> {
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
    TensorFile::from_bytes("m.safetensors", bytes)
}

fn refused<T>(result: lara_models::Result<T>) -> String {
    let error = result.err().expect("this must be refused");
    assert!(error.is_bad_input());
    error.to_string()
}

#[test]
fn a_header_is_no_longer_than_the_format_allows() {
    let long = [&100_000_001u64.to_le_bytes()[..], b"{"].concat();
    assert_eq!(
        refused(TensorFile::from_bytes("m.safetensors", long)),
        "m.safetensors: is not a safetensors file: its header would have 100000001 bytes, and the format allows 100000000"
    );
    #[cfg(target_os = "linux")]
    assert_eq!(refused(TensorFile::open("/dev/zero")), "/dev/zero: is not a safetensors file");
}

#[test]
fn tensors_come_once_and_lie_one_behind_the_other() {
    let tensor = |name: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{to}]}}"#)
    };
    let of = |tensors: &[String]| file(&format!("{{{}}}", tensors.join(",")), 8);
    assert!(of(&[tensor("a", 4, 8), tensor("b", 0, 4)]).is_ok());
    let twice = refused(of(&[tensor("a", 0, 4), tensor("a", 4, 8)]));
    assert!(
        twice.starts_with("m.safetensors: is a damaged safetensors file (its header cannot be read: a comes twice"),
        "{twice}"
    );
    let overlap = refused(of(&[tensor("a", 0, 4), tensor("b", 0, 4), tensor("c", 4, 8)]));
    assert!(overlap.starts_with("m.safetensors: is a damaged safetensors file ("), "{overlap}");
    let sizes = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#;
    assert!(refused(file(sizes, 8)).starts_with("m.safetensors: is a damaged safetensors file ("));
}

#[test]
fn what_a_file_says_moves_no_cursor() {
    let sets = ["model.\u{1b}[2Jdepth\n=1".to_owned(), format!("train.lr=\"{}\"", "x".repeat(100_000))];
    let [escape, long] = sets.map(|set| refused(TrainConfig::load("digits", &[set])));
    assert!(escape.starts_with(r"unknown key `model.\u{1b}[2Jdepth` ("), "{escape}");
    assert!(long.len() < 1400 && long.ends_with("but must be a number"), "{}", long.len());
}
