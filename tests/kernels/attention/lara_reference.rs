//! LARA in float64, proposal by proposal and query by query (spec 1.4 to 1.6, 1.9), with all its options.

use lara_runtime::attention::{
    AttentionConfig, Context, Grid, MechanismKind, MisType, Padding, PoolModule, Pooling, ProposalGen, Qkv, mechanism,
};
use lara_runtime::{Tape, Tensor};
use lara_tests::{Case, Real, Reference, random};

use super::landmarks::members;

/// One way to use LARA, and its reference.
#[derive(Clone, Debug)]
pub(super) struct Lara {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) prefix: usize,
    pub(super) grid: Grid,
    /// Tokens after the prefix.
    pub(super) tokens: usize,
    /// Number of keys, if they are not as many as queries.
    pub(super) keys: Option<usize>,
    pub(super) config: AttentionConfig,
    /// [batch, heads, C or 2 C, dim], or nothing.
    pub(super) noise: Vec<f64>,
    /// [batch, keys], or nothing.
    pub(super) mask: Vec<f64>,
}

/// Names of the learned parts of a landmark generator, with their number of dimensions.
const LEARNED: [(&str, usize); 4] = [("linear.weight", 2), ("linear.bias", 1), ("norm.weight", 1), ("norm.bias", 1)];

impl Lara {
    pub(super) fn new([batch, heads, tokens, dim]: [usize; 4], num_landmarks: usize) -> Lara {
        let config = AttentionConfig {
            mechanism: MechanismKind::Lara,
            num_landmarks,
            proposal_gen: ProposalGen::NoParamPool,
            ..AttentionConfig::default()
        };
        let (noise, mask) = (vec![], vec![]);
        Lara { batch, heads, dim, prefix: 0, grid: Grid::Sequence, tokens, keys: None, config, noise, mask }
    }

    pub(super) fn on_grid([batch, heads, dim]: [usize; 3], grid: [usize; 2], num_landmarks: usize) -> Lara {
        let lara = Lara::new([batch, heads, grid[0] * grid[1], dim], num_landmarks);
        Lara { grid: Grid::Plane(grid), ..lara }
    }

    /// The same with other settings.
    pub(super) fn with(&self, change: impl FnOnce(&mut AttentionConfig)) -> Lara {
        let mut lara = self.clone();
        change(&mut lara.config);
        lara
    }

    pub(super) fn pooling(&self, tokens: usize) -> Pooling {
        let (adaptive, wanted) = (self.config.proposal_gen == ProposalGen::Adaptive1d, self.config.num_landmarks);
        let root = |power: u32| (1..).take_while(|r: &usize| r.pow(power) <= wanted).count();
        match self.grid {
            Grid::Plane(grid) if !adaptive && tokens == self.tokens => Pooling::Grid { grid, side: root(2) },
            Grid::Volume(grid) if !adaptive && tokens == self.tokens => Pooling::Volume { grid, side: root(3) },
            Grid::Plane(_) if !adaptive => Pooling::Segments { tokens, landmarks: root(2).pow(2) },
            _ => Pooling::Segments { tokens, landmarks: wanted.min(self.tokens).min(self.keys() - self.prefix) },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.prefix + self.tokens
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.unwrap_or(self.len())
    }

    fn landmarks(&self) -> usize {
        self.pooling(self.tokens).landmarks()
    }

    fn is_doubled(&self) -> bool {
        !self.noise.is_empty() && (self.config.use_antithetics || self.config.use_multisample)
    }

    /// Length of the noise that the settings take.
    pub(super) fn noise_len(&self) -> usize {
        let copies = if self.config.use_multisample { 2 } else { 1 };
        copies * self.batch * self.heads * self.landmarks() * self.dim
    }

    /// Whether landmarks are projected, and how wide the projection is.
    fn projected(&self) -> Option<usize> {
        use ProposalGen::{Adaptive1d, NoParamPool, NoParamPoolMixed};
        let on_sequence = matches!(self.pooling(self.tokens), Pooling::Segments { .. });
        match self.config.proposal_gen {
            Adaptive1d => Some(self.dim),
            NoParamPool | NoParamPoolMixed => None,
            _ if on_sequence => None,
            _ if self.config.pool_module_type == PoolModule::Dense => Some(self.heads * self.dim),
            _ => Some(self.dim),
        }
    }

    /// q, k and v of the given case, the noise and the mask if there are some, and the learned parameters.
    pub(super) fn case<'a>(&self, build: lara_tests::Build<'a>) -> Case<'a> {
        let Lara { batch, heads, dim, .. } = *self;
        let mut case = Case::new(format!("{self:?}"), build).tolerance(2e-5);
        for (seed, tokens) in [(1, self.len()), (2, self.keys()), (3, self.keys())] {
            let values = random(seed, batch * heads * tokens * dim).into_iter().map(|x| 1.5 * x).collect();
            case = case.variable([batch, heads, tokens, dim], values);
        }
        if !self.noise.is_empty() {
            case = case.constant([batch, heads, self.noise.len() / (batch * heads * dim), dim], self.noise.clone());
        }
        if !self.mask.is_empty() {
            case = case.constant([batch, self.keys()], self.mask.clone());
        }
        let Some(d) = self.projected() else { return case };
        let sides = ["q_landmarks", "k_landmarks"].iter().flat_map(|side| LEARNED.map(|l| (side, l)));
        for (at, (side, (name, rank))) in sides.enumerate() {
            let identity =
                |i: usize| f64::from(u8::from(name == "norm.weight" || rank == 2 && i.is_multiple_of(d + 1)));
            let values = random(20 + at as u32, d.pow(rank as u32)).into_iter().enumerate();
            let values = values.map(|(i, x)| f64::from((identity(i) + 0.3 * x) as f32)).collect();
            case = case.parameter(format!("{side}.{name}"), &vec![d; rank][..], values);
        }
        case
    }

    pub(super) fn context(&self, x: &[Tensor]) -> Context {
        let noise = (!self.noise.is_empty()).then(|| x[3]);
        let key_padding_mask = (!self.mask.is_empty()).then(|| x[x.len() - 1]);
        Context { grid: self.grid, prefix: self.prefix, noise, key_padding_mask, ..Context::default() }
    }

    pub(super) fn record(&self, tape: &mut Tape<'_>, x: &[Tensor]) -> Tensor {
        mechanism(&self.config).unwrap().attend(tape, Qkv { q: x[0], k: x[1], v: x[2] }, &self.context(x))
    }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::of(0.0), |sum, (&a, &b)| sum + a * b)
}

/// phi(x, w) = s w.x - (s / 2) |x|^2
fn phi<R: Real>(x: &[R], w: &[R]) -> R {
    R::of(1.0 / (x.len() as f64).sqrt()) * (dot(x, w) - R::of(0.5) * dot(x, x))
}

type Rows<R> = Vec<Vec<R>>;

/// softmax of the logits times the rows of v.
fn average<R: Real>(logits: &[R], v: &[Vec<R>]) -> Vec<R> {
    let total = super::lse(logits);
    let mut y = vec![R::of(0.0); v[0].len()];
    for (&l, v) in logits.iter().zip(v) {
        y.iter_mut().zip(v).for_each(|(y, &v)| *y += (l - total).exp() * v);
    }
    y
}

/// LN(Linear(x)) of one row, with weight, bias, gain and shift.
fn project<R: Real>(row: &[R], p: &[Vec<R>]) -> Vec<R> {
    let dim = row.len();
    let linear: Vec<R> = (0..dim).map(|o| dot(row, &p[0][o * dim..(o + 1) * dim]) + p[1][o]).collect();
    let mean = linear.iter().fold(R::of(0.0), |sum, &x| sum + x) / R::of(dim as f64);
    let variance = linear.iter().fold(R::of(0.0), |s, &x| s + (x - mean) * (x - mean)) / R::of(dim as f64);
    let deviation = (variance + R::of(1e-5)).sqrt();
    (0..dim).map(|i| (linear[i] - mean) / deviation * p[2][i] + p[3][i]).collect()
}

/// What a head sees.
struct Head<R> {
    q: Rows<R>,
    k: Rows<R>,
    v: Rows<R>,
    /// Which queries the normaliser t runs over.
    counted: Vec<bool>,
    visible: Vec<bool>,
    queries: Rows<R>,
    means: Rows<R>,
    samples: Rows<R>,
}

impl<R: Real> Head<R> {
    /// f(w_c) and log-sum-exp of the visible keys' features.
    fn seen(&self, w: &[R]) -> Option<(Vec<R>, R)> {
        let keys = (0..self.k.len()).filter(|&m| self.visible[m]);
        let (logits, values): (Vec<R>, Rows<R>) = keys.map(|m| (phi(&self.k[m], w), self.v[m].clone())).unzip();
        (!logits.is_empty()).then(|| (average(&logits, &values), super::lse(&logits)))
    }

    /// t_nc [queries][C] (spec 1.4).
    fn specific(&self) -> Rows<R> {
        let scale = R::of(1.0 / (self.q[0].len() as f64).sqrt());
        let logit = |n: usize, c: usize| scale * dot(&self.queries[c], &self.q[n]);
        let counted: Vec<usize> = (0..self.q.len()).filter(|&n| self.counted[n]).collect();
        let totals: Vec<R> = (0..self.queries.len())
            .map(|c| super::lse(&counted.iter().map(|&n| logit(n, c)).collect::<Vec<R>>()))
            .collect();
        let t = |n: usize, c: usize| if self.counted[n] { (logit(n, c) - totals[c]).exp() } else { R::of(0.0) };
        (0..self.q.len()).map(|n| (0..totals.len()).map(|c| t(n, c)).collect()).collect()
    }

    fn attend(&self, config: &AttentionConfig) -> Vec<R> {
        let seen = self.samples.iter().map(|w| self.seen(w)).collect::<Option<Vec<_>>>();
        let Some(seen) = seen.filter(|seen| !seen.is_empty()) else {
            return vec![R::of(0.0); self.q.len() * self.q[0].len()];
        };
        let scale = R::of(1.0 / (self.q[0].len() as f64).sqrt());
        let m: Rows<R> = self.samples.iter().map(|w| self.means.iter().map(|mu| phi(mu, w)).collect()).collect();
        let balance: Vec<R> = m.iter().map(|row| super::lse(row)).collect();
        let (t, count) = (self.specific(), self.samples.len());
        let values: Rows<R> = seen.iter().map(|s| s.0.clone()).collect();
        let logit = |n: usize, c: usize| {
            let mean = t[n].iter().fold(R::of(0.0), |sum, &t| sum + t) / R::of(count as f64);
            let (log_a, log_q) = match config.mis_type {
                MisType::MisBh => (R::of(0.0), balance[c]),
                MisType::MisBiased => (scale * dot(&self.means[c], &self.q[n]), balance[c]),
                MisType::MisOpt => {
                    let a = (m[c][c] - balance[c]).exp() + R::of(f64::from(config.alpha_coeff)) * (t[n][c] - mean);
                    (if a.value() > 1e-8 { a } else { R::of(1e-8) }.ln(), m[c][c])
                }
            };
            log_a + phi(&self.q[n], &self.samples[c]) + seen[c].1 - log_q
        };
        let row = |n: usize| average(&(0..count).map(|c| logit(n, c)).collect::<Vec<R>>(), &values);
        (0..self.q.len()).flat_map(row).collect()
    }
}

impl Lara {
    /// The mask of sample `b`: whether each token is real.
    fn real(&self, b: usize, tokens: usize) -> Vec<bool> {
        if self.mask.is_empty() || tokens != self.keys() {
            return vec![true; tokens];
        }
        self.mask[b * tokens..(b + 1) * tokens].iter().map(|&p| p == 0.0).collect()
    }

    fn rows<R: Real>(&self, x: &[R], z: usize, tokens: usize) -> Rows<R> {
        x[z * tokens * self.dim..(z + 1) * tokens * self.dim].chunks(self.dim).map(<[R]>::to_vec).collect()
    }

    /// Real tokens of each landmark: bins of the box of the real cells, or `kept` segments of the real tokens.
    fn members(&self, real: &[bool], kept: usize) -> Vec<Vec<usize>> {
        let pooling = self.pooling(real.len() - self.prefix);
        let real: Vec<usize> = (self.prefix..real.len()).filter(|&n| real[n]).collect();
        let [height, width] = match pooling {
            Pooling::Grid { grid, .. } => grid,
            Pooling::Volume { grid, .. } => [grid[1], grid[2]],
            Pooling::Segments { .. } => {
                let tokens = real.len();
                let segments = if kept == 0 { vec![] } else { members(Pooling::Segments { tokens, landmarks: kept }) };
                return segments.into_iter().map(|of| of.into_iter().map(|i| real[i]).collect()).collect();
            }
        };
        let place = |n: &usize| {
            let cell = n - self.prefix;
            [cell / width / height, cell / width % height, cell % width]
        };
        let side = |axis: usize| {
            let places = real.iter().map(|n| place(n)[axis]);
            let (first, last) = (places.clone().min().unwrap_or(0), places.max().unwrap_or(0));
            (first, last + 1 - first)
        };
        let [(frame, frames), (row, rows), (column, columns)] = [0, 1, 2].map(side);
        let boxed = match pooling {
            Pooling::Volume { side, .. } => Pooling::Volume { grid: [frames, rows, columns], side },
            Pooling::Grid { side, .. } => Pooling::Grid { grid: [rows, columns], side },
            Pooling::Segments { .. } => pooling,
        };
        let token = |cell: usize| {
            let (f, r, c) = (cell / columns / rows + frame, cell / columns % rows + row, cell % columns + column);
            self.prefix + (f * height + r) * width + c
        };
        let counted = |cells: Vec<usize>| cells.into_iter().map(token).filter(|n| real.contains(n)).collect();
        members(boxed).into_iter().map(counted).collect()
    }

    /// The same for queries and keys, without the landmarks that one of them does not have.
    fn landmark_members(&self, q_real: &[bool], k_real: &[bool]) -> [Vec<Vec<usize>>; 2] {
        let count = |real: &[bool]| real[self.prefix..].iter().filter(|real| **real).count();
        let on_grid = |real: &[bool]| !matches!(self.pooling(real.len() - self.prefix), Pooling::Segments { .. });
        let kept = match on_grid(q_real) || on_grid(k_real) {
            true => self.landmarks(),
            false => self.landmarks().min(count(q_real)).min(count(k_real)),
        };
        let [queries, keys] = [q_real, k_real].map(|real| self.members(real, kept));
        queries.into_iter().zip(keys).filter(|(q, k)| !q.is_empty() && !k.is_empty()).unzip().into()
    }

    /// The means of those rows.
    fn pooled<R: Real>(&self, rows: &[Vec<R>], members: &[Vec<usize>]) -> Rows<R> {
        let mean = |counted: &Vec<usize>| {
            let size = R::of(counted.len().max(1) as f64);
            (0..self.dim).map(|d| counted.iter().fold(R::of(0.0), |sum, &n| sum + rows[n][d]) / size).collect()
        };
        members.iter().map(mean).collect()
    }

    /// Landmarks of all heads of a sample.
    fn generate<R: Real>(&self, heads: &[Rows<R>], members: &[Vec<usize>], learned: &[Vec<R>]) -> Vec<Rows<R>> {
        if self.config.proposal_gen == ProposalGen::Adaptive1d {
            let each = |rows: &Rows<R>| rows.iter().map(|row| project(row, learned)).collect::<Rows<R>>();
            return heads.iter().map(|rows| self.pooled(&each(rows), members)).collect();
        }
        let pooled: Vec<Rows<R>> = heads.iter().map(|rows| self.pooled(rows, members)).collect();
        let Some(width) = self.projected() else { return pooled };
        if width == self.dim && self.config.pool_module_type == PoolModule::Light {
            return pooled.iter().map(|rows| rows.iter().map(|row| project(row, learned)).collect()).collect();
        }
        let merged = |c: usize| project(&pooled.iter().flat_map(|rows| rows[c].clone()).collect::<Vec<R>>(), learned);
        let merged: Rows<R> = (0..members.len()).map(merged).collect();
        let of_head = |h: usize| merged.iter().map(|row| row[h * self.dim..(h + 1) * self.dim].to_vec()).collect();
        (0..self.heads).map(of_head).collect()
    }

    fn mixed<R: Real>(&self, keys: &Rows<R>, values: &Rows<R>) -> Rows<R> {
        use ProposalGen::{NoParamPoolMixed, PoolMixed, PoolVmixed};
        if !matches!(self.config.proposal_gen, PoolMixed | PoolVmixed | NoParamPoolMixed) {
            return keys.clone();
        }
        let scale = R::of(1.0 / (self.dim as f64).sqrt());
        let weigh = |j: usize| match self.config.proposal_gen {
            PoolVmixed => (dot(&values[j], &values[j]).sqrt() + R::of(1e-4)).ln(),
            _ => R::of(0.0),
        };
        let mix = |row: &Vec<R>| {
            let logits: Vec<R> = keys.iter().enumerate().map(|(j, k)| scale * dot(row, k) + weigh(j)).collect();
            average(&logits, keys)
        };
        keys.iter().map(mix).collect()
    }

    fn samples<R: Real>(&self, means: &Rows<R>, z: usize) -> (Rows<R>, Rows<R>) {
        let own = self.noise.len() / (self.batch * self.heads);
        let noise = &self.noise[z * own..(z + 1) * own];
        let moved = |sign: f64, from: usize| -> Rows<R> {
            let row = |(c, mu): (usize, &Vec<R>)| {
                let at = from + c * self.dim;
                let noise = |d: usize| R::of(sign * noise.get(at + d).copied().unwrap_or(0.0));
                mu.iter().enumerate().map(|(d, &mu)| mu + noise(d)).collect()
            };
            means.iter().enumerate().map(row).collect()
        };
        if !self.is_doubled() {
            return (means.clone(), moved(1.0, 0));
        }
        let second = if self.config.use_multisample { moved(1.0, own / 2) } else { moved(-1.0, 0) };
        ([means.clone(), means.clone()].concat(), [moved(1.0, 0), second].concat())
    }
}

impl Reference for Lara {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let learned = if self.projected().is_some() { &x[x.len() - 8..] } else { &[] };
        let released = self.config.padding == Padding::Released;
        let mut out = Vec::new();
        for b in 0..self.batch {
            let (q_real, k_real) = (self.real(b, self.len()), self.real(b, self.keys()));
            let zeroed = |mut rows: Rows<R>, real: &[bool]| {
                let padded = rows.iter_mut().zip(real).filter(|(_, real)| released && !**real);
                padded.for_each(|(row, _)| row.fill(R::of(0.0)));
                rows
            };
            let heads = |i: usize, tokens: usize, real: &[bool]| -> Vec<Rows<R>> {
                (0..self.heads).map(|h| zeroed(self.rows(&x[i], b * self.heads + h, tokens), real)).collect()
            };
            let (q, k) = (heads(0, self.len(), &q_real), heads(1, self.keys(), &k_real));
            let v = heads(2, self.keys(), &k_real);
            let counts = |real: &Vec<bool>| if released { vec![true; real.len()] } else { real.clone() };
            let [of_queries, of_keys] = self.landmark_members(&counts(&q_real), &counts(&k_real));
            let queries = self.generate(&q, &of_queries, learned.get(..4).unwrap_or(&[]));
            let keys = self.generate(&k, &of_keys, learned.get(4..).unwrap_or(&[]));
            for h in 0..self.heads {
                let keys = self.mixed(&keys[h], &self.pooled(&v[h], &of_keys));
                let sum = |(a, b): (&Vec<R>, &Vec<R>)| a.iter().zip(b).map(|(&a, &b)| a + b).collect();
                let means: Rows<R> = queries[h].iter().zip(&keys).map(sum).collect();
                let (means, samples) = self.samples(&means, b * self.heads + h);
                let own = queries[h].clone();
                let queries = if means.len() > own.len() { [own.clone(), own].concat() } else { own };
                let [q, k, v] = [&q[h], &k[h], &v[h]].map(Clone::clone);
                let (counted, visible) = (counts(&q_real), k_real.clone());
                let mut seen = Head { q, k, v, counted, visible, queries, means, samples }.attend(&self.config);
                let hidden = q_real.iter().enumerate().filter(|(_, real)| !released && !**real);
                hidden.for_each(|(n, _)| seen[n * self.dim..(n + 1) * self.dim].fill(R::of(0.0)));
                out.extend(seen);
            }
        }
        vec![out]
    }
}
