//! TensorBoard event files: scalars in TFRecords of hand-written protobuf (tensorflow/core/util/event.proto,
//! summary.proto).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::clock::seconds_since_1970;
use crate::error::{Error, Result};

/// Writes one `events.out.tfevents.*` file.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates a new file in `dir`. `first_step` is the step that will be logged first: TensorBoard then forgets what
    /// earlier files of the folder say about it and later steps.
    pub fn create(dir: impl AsRef<Path>, first_step: u64) -> Result<Self> {
        let dir = dir.as_ref();
        let now = seconds_since_1970();
        let process = std::process::id();
        // Readers order files by name; the counter keeps two files of one second and process apart.
        let (path, file) = (0..)
            .map(|count| dir.join(format!("events.out.tfevents.{:010}.lara.{process}.{count}", now as u64)))
            .find_map(|path| match File::create_new(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                result => Some(result.map_err(Error::io("create", &path)).map(|file| (path, file))),
            })
            .unwrap_or_else(|| Err(Error::Failed(format!("no free name for an event file in {}", dir.display()))))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut version = event(now, 0);
        bytes_field(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        let mut restart = event(now, first_step);
        // SessionLog { status: START }
        bytes_field(&mut restart, 7, &[0x08, 0x01]);
        writer.record(&restart)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds scalars (tag, value) at a step; kept in memory until [`flush`](Self::flush).
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut scalar = Vec::new();
            bytes_field(&mut scalar, 1, tag.as_bytes());
            scalar.push(key(2, FIXED32));
            scalar.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &scalar);
        }
        let mut message = event(seconds_since_1970(), step);
        bytes_field(&mut message, 5, &summary);
        self.record(&message)
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    /// A TFRecord: length, its checksum, data, its checksum.
    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(data.len() + 16);
        bytes.extend(length);
        bytes.extend(masked_crc32c(&length).to_le_bytes());
        bytes.extend(data);
        bytes.extend(masked_crc32c(data).to_le_bytes());
        self.file.write_all(&bytes).map_err(Error::io("write", &self.path))
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

/// The beginning of an Event: wall_time = 1 (double), step = 2 (int64).
fn event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut out = vec![key(1, FIXED64)];
    out.extend(wall_time.to_le_bytes());
    out.push(key(2, VARINT));
    varint(&mut out, step);
    out
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(key(field, BYTES));
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// CRC-32C (Castagnoli, reflected 0x82F63B78).
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}

/// TFRecord's mask, which keeps a checksum of data that holds checksums from cancelling out.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}
