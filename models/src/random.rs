//! Random numbers on the CPU: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011).
//!
//! A draw is a pure function of a key and a counter, so it does not matter which thread makes it, or when.

use lara_runtime::random::philox;

/// What draws are for. Each purpose has its own sequence, so that adding draws to one never shifts another.
///
/// The device counts its streams (dropout, noise, drawn keys) upwards from 1 under the same seed, so what is drawn in
/// training has the highest bit, which no count reaches. `Split` is drawn once, under a seed of its own, and keeps the
/// number that decided which images are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The order of samples in an epoch.
    Shuffle = 0x8000_0001,
    /// Crops and flips of one sample.
    Augment = 0x8000_0002,
    /// Which operations change the colours and the shape of one sample.
    RandAugment = 0x8000_0003,
    /// Brightness, contrast and saturation of one sample.
    ColorJitter = 0x8000_0004,
    /// What is erased of one sample.
    Erasing = 0x8000_0005,
    /// How the samples of a batch are mixed.
    Mixup = 0x8000_0006,
    /// Which samples are held out for testing.
    Split = 3,
}

/// The sequence of draws for one (seed, purpose, epoch, index).
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    /// Block number, index, epoch, purpose.
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Draws {
    /// Starts the sequence. `epoch` and `index` count modulo 2^32.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Self { key, counter: [0, index as u32, epoch as u32, purpose as u32], block: [0; 4], used: 4 }
    }

    /// The sequence of copy number `copy` of the same sample: its first 2^28 draws are its own. Copies count modulo 64.
    #[must_use]
    pub fn of_copy(mut self, copy: u32) -> Self {
        self.counter[0] = copy << 26;
        self
    }

    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), on the grid of 2^-24 that f32 holds exactly.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 24) as f32
    }

    /// Uniform over 0..n without bias (Lemire's multiplication with rejection); 0 if `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let reject_under = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.bits()) * u64::from(n);
            if product as u32 >= reject_under {
                return (product >> 32) as u32;
            }
        }
    }

    /// Uniform in `low` .. `high`, on a grid of 2^-53 of their difference.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        let bits = u64::from(self.bits()) << 32 | u64::from(self.bits());
        low + (high - low) * ((bits >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// True with probability `probability`.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// Normal, with mean 0 and standard deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        // Above 0, so that its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.between(0.0, 1.0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.between(0.0, 1.0)).cos()
    }

    /// From the beta distribution with both parameters `alpha`, above 0.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.log_gamma_variate(alpha), self.log_gamma_variate(alpha));
        // Of the logarithms: for a small alpha both may be too small for an f64.
        1.0 / (1.0 + (b - a).exp())
    }

    /// The logarithm of a draw from the gamma distribution with this shape (Marsaglia and Tsang 2000).
    fn log_gamma_variate(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.between(0.0, 1.0)).ln() / shape;
            return self.log_gamma_variate(shape + 1.0) + boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.between(0.0, 1.0);
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below((last + 1) as u32) as usize;
            items.swap(last, chosen);
        }
    }
}
