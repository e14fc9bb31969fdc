//! Random numbers on the CPU: the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011).
//!
//! A draw is a pure function of a key and a counter, so it does not matter which thread makes it, or when.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32: four random words for this counter under this key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// What draws are for. Each purpose has its own sequence, so that adding draws to one never shifts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The order of samples in an epoch.
    Shuffle = 1,
    /// Crops and flips of one sample.
    Augment = 2,
    /// Which samples are held out for testing.
    Split = 3,
    /// Initial values of weights (the index is the parameter's place in the model).
    Init = 4,
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

    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
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

    /// Standard normal (Box-Muller, evaluated in f64).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.uniform())).cos()) as f32
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below((last + 1) as u32) as usize;
            items.swap(last, chosen);
        }
    }
}
