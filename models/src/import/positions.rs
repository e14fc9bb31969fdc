//! Position tables on another grid, as the libraries compute them.

/// How a position table is brought to another grid. Both are PyTorch's `interpolate(mode="bicubic", align_corners=False)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resampling {
    /// With `antialias=True`, as timm does: Catmull-Rom (a = -0.5), widened where the grid shrinks.
    #[default]
    Antialiased,
    /// Without, as DeiT and Hugging Face's ViTs do: a = -0.75, four neighbours clamped to the edge.
    Plain,
}

/// One place of the new grid: the first neighbour, and the weights from there on.
type Taps = (usize, Vec<f32>);

/// The cubic convolution kernel (Keys 1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

impl Resampling {
    /// What it is called in files.
    pub fn name(self) -> &'static str {
        match self {
            Resampling::Antialiased => "antialiased",
            Resampling::Plain => "plain",
        }
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Resampling::Antialiased, Resampling::Plain].into_iter().find(|how| how.name() == name)
    }

    /// The neighbours of every one of `to` places among `from`.
    fn taps(self, from: usize, to: usize) -> Vec<Taps> {
        let scale = from as f64 / to as f64;
        (0..to)
            .map(|at| match self {
                Resampling::Antialiased => {
                    let (stretch, center) = (scale.max(1.0), scale * (at as f64 + 0.5));
                    let first = (center - 2.0 * stretch + 0.5).max(0.0) as usize;
                    let end = ((center + 2.0 * stretch + 0.5) as usize).min(from);
                    let weight = |j: usize| cubic((j as f64 - center + 0.5) / stretch, -0.5);
                    let weights: Vec<f64> = (first..end).map(weight).collect();
                    let sum: f64 = weights.iter().sum();
                    (first, weights.iter().map(|weight| (weight / sum) as f32).collect())
                }
                Resampling::Plain => {
                    let center = scale * (at as f64 + 0.5) - 0.5;
                    let (begin, mut weights) = (center.floor(), vec![0.0; from]);
                    for offset in -1..=2 {
                        let place = begin + f64::from(offset);
                        let clamped = place.clamp(0.0, (from - 1) as f64) as usize;
                        weights[clamped] += cubic(center - place, -0.75) as f32;
                    }
                    (0, weights)
                }
            })
            .collect()
    }

    /// A table [rows x columns, dim] of the grid `from` (row-major) on the grid `to`.
    pub fn apply(self, table: &[f32], dim: usize, from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
        let [rows, columns] = [0, 1].map(|axis| self.taps(from[axis], to[axis]));
        let mut wide = vec![0.0; from[0] * to[1] * dim];
        for (line, out) in table.chunks(from[1] * dim).zip(wide.chunks_mut(to[1] * dim)) {
            for ((first, weights), out) in columns.iter().zip(out.chunks_mut(dim)) {
                gather(line, *first, weights, out);
            }
        }
        let mut result = vec![0.0; to[0] * to[1] * dim];
        for ((first, weights), out) in rows.iter().zip(result.chunks_mut(to[1] * dim)) {
            gather(&wide, *first, weights, out);
        }
        result
    }
}

/// Adds up rows of `out`'s length with weights.
fn gather(rows: &[f32], first: usize, weights: &[f32], out: &mut [f32]) {
    for (weight, row) in weights.iter().zip(rows.chunks(out.len()).skip(first)) {
        out.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
}
