//! Metrics: JSON lines that survive a crash, and TensorBoard events whose every byte is checked.

use std::fs;
use std::path::Path;

use lara_models::train::MetricsLog;
use lara_models::train::tensorboard::{EventWriter, crc32c, masked_crc32c};
use serde_json::{Value, json};

fn lines(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn steps(dir: &Path) -> Vec<u64> {
    lines(dir).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn each_step_is_a_json_line() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("runs/new");
    let mut log = MetricsLog::open(&dir, None, false).unwrap();
    log.log(1, &[("train/loss", 2.25), ("lr \"peak\"", 1e-3)]).unwrap();
    log.log(2, &[("train/loss", f64::NAN)]).unwrap();
    let lines = lines(&dir);
    assert_eq!((&lines[0]["train/loss"], &lines[0]["lr \"peak\""]), (&json!(2.25), &json!(1e-3)));
    assert_eq!(lines[1]["train/loss"], Value::Null);
    assert!(lines[0]["time"].as_f64().unwrap() > 1.7e9);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    // The order is the order given, with the step first.
    assert!(fs::read_to_string(dir.join("metrics.jsonl")).unwrap().starts_with("{\"step\":1,\"time\":"));
}

#[test]
fn resuming_drops_what_will_be_written_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut log = MetricsLog::open(dir, None, false).unwrap();
    (1..=6).for_each(|step| log.log(step * 10, &[("loss", 1.0)]).unwrap());
    drop(log);
    // A crash in the middle of a line.
    let path = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"step\":35,\"ti")).unwrap();
    let mut log = MetricsLog::open(dir, Some(40), false).unwrap();
    assert_eq!(steps(dir), [10, 20, 30, 40]);
    log.log(50, &[("loss", 0.5)]).unwrap();
    assert_eq!(steps(dir), [10, 20, 30, 40, 50]);
    drop(log);
    // Resuming where nothing was logged is no error.
    fs::remove_file(&path).unwrap();
    drop(MetricsLog::open(dir, Some(40), false).unwrap());
    assert!(steps(dir).is_empty());
}

#[test]
fn a_new_run_keeps_the_metrics_of_an_old_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    for step in [1, 2, 3] {
        MetricsLog::open(dir, None, false).unwrap().log(step, &[]).unwrap();
    }
    assert_eq!(steps(dir), [3]);
    for (name, step) in [("metrics.1.jsonl", "{\"step\":1,"), ("metrics.2.jsonl", "{\"step\":2,")] {
        assert!(fs::read_to_string(dir.join(name)).unwrap().starts_with(step));
    }
}

#[test]
fn checksums_match_the_published_ones() {
    // RFC 3720, appendix B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|i| i as u8)), 0x46dd_794e);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    // What TensorBoard's own masked_crc32c makes of it.
    assert_eq!(masked_crc32c(b"123456789"), 0xc78a_b0e5);
}

/// A protobuf message as (field number, wire type, number or bytes).
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, 0, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, key & 7, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    found
}

/// The records of an event file, both checksums of each verified.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&bytes[8..12]), masked_crc32c(&bytes[..8]));
        let data = &bytes[12..12 + length];
        assert_eq!(word(&bytes[12 + length..16 + length]), masked_crc32c(data));
        found.push(data.to_vec());
        bytes = &bytes[16 + length..];
    }
    found
}

#[test]
fn tensorboard_events_say_what_was_logged() {
    let root = tempfile::tempdir().unwrap();
    let mut log = MetricsLog::open(root.path(), Some(299), true).unwrap();
    log.log(300, &[("train/loss", 0.75), ("lr", 1e-3)]).unwrap();
    drop(log);
    let names = || fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path());
    let event_files =
        || names().filter(|path| path.to_string_lossy().contains("events.out.tfevents.")).collect::<Vec<_>>();
    let events: Vec<_> = records(&fs::read(&event_files()[0]).unwrap()).iter().map(|record| fields(record)).collect();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event[0].0 == 1 && event[0].1 == 1));
    let step = |event: &[(u64, u64, Vec<u8>)]| u64::from_le_bytes(event[1].2.clone().try_into().unwrap());
    assert_eq!(events[0][2], (3, 2, b"brain.Event:2".to_vec()));
    assert_eq!((step(&events[1]), &events[1][2]), (300, &(7, 2, vec![8, 1])));
    assert_eq!(step(&events[2]), 300);
    let values = fields(&events[2][2].2);
    assert_eq!(values.len(), 2);
    let scalar = |tag: &str, value: f32| vec![(1, 2, tag.as_bytes().to_vec()), (2, 5, value.to_le_bytes().to_vec())];
    assert_eq!(fields(&values[0].2), scalar("train/loss", 0.75));
    assert_eq!(fields(&values[1].2), scalar("lr", 1e-3));
    // A second file of the same second and process has its own name.
    EventWriter::create(root.path(), 0).unwrap();
    assert_eq!(event_files().len(), 2);
}
