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

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below((last + 1) as u32) as usize;
            items.swap(last, chosen);
        }
    }
}
