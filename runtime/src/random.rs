//! Philox4x32-10 (Salmon et al., SC 2011) on the CPU: the same numbers as `shaders/common/philox.wgsl`.

/// Ten rounds of Philox: 128 random bits for a counter under a key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xd251_1f53;
        let p1 = u64::from(c[2]) * 0xcd9e_8d57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// Uniform in (0, 1) from 32 random bits, as the device computes it.
pub fn uniform_open(bits: u32) -> f32 {
    ((bits >> 9) as f32 + 0.5) * 1.192_092_9e-7
}

/// Two independent normal numbers from 64 random bits (Box and Muller).
pub fn normal_pair(bits: [u32; 2]) -> [f32; 2] {
    let radius = (-2.0 * uniform_open(bits[0]).ln()).sqrt();
    let angle = std::f32::consts::TAU * uniform_open(bits[1]);
    [radius * angle.cos(), radius * angle.sin()]
}

/// FNV-1a: the number of the random stream that belongs to a name.
pub(crate) fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// A stream of numbers for initial values, keyed by a seed and a name.
#[derive(Debug)]
pub struct Stream {
    key: [u32; 2],
    name: u32,
    at: u32,
    bits: Vec<u32>,
    ready: Option<f32>,
}

impl Stream {
    /// The stream of `seed` for `name`; different names give independent numbers.
    pub fn new(seed: u64, name: &str) -> Self {
        Stream { key: [seed as u32, (seed >> 32) as u32], name: hash(name), at: 0, bits: Vec::new(), ready: None }
    }

    fn bits(&mut self) -> u32 {
        if self.bits.is_empty() {
            self.bits.extend(philox([self.at, 0, self.name, u32::MAX], self.key));
            self.at += 1;
        }
        self.bits.pop().unwrap_or_default()
    }

    /// The next number, uniform in (0, 1).
    pub fn uniform(&mut self) -> f32 {
        uniform_open(self.bits())
    }

    /// The next standard normal number.
    pub fn normal(&mut self) -> f32 {
        if let Some(ready) = self.ready.take() {
            return ready;
        }
        let pair = normal_pair([self.bits(), self.bits()]);
        self.ready = Some(pair[1]);
        pair[0]
    }

    /// `rows` rows of `dim` numbers, in blocks of `dim` orthogonal, each row distributed as a standard normal vector: a
    /// Gaussian matrix made orthonormal, times the lengths of independent Gaussian vectors.
    pub(crate) fn orthogonal_rows(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        let mut gaussian = |len: usize| (0..len).map(|_| f64::from(self.normal())).collect::<Vec<f64>>();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut all: Vec<Vec<f64>> = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut w = gaussian(dim);
            // Twice, since once leaves what rounding brought back.
            for other in all[row / dim * dim..].iter().chain(&all[row / dim * dim..]) {
                let along = product(other, &w);
                w.iter_mut().zip(other).for_each(|(w, o)| *w -= along * o);
            }
            let length = product(&w, &w).sqrt().max(f64::MIN_POSITIVE);
            w.iter_mut().for_each(|w| *w /= length);
            all.push(w);
        }
        let scaled = all.into_iter().flat_map(|w| {
            let length = gaussian(dim);
            let length = product(&length, &length).sqrt();
            w.into_iter().map(move |w| (length * w) as f32)
        });
        scaled.collect()
    }
}
