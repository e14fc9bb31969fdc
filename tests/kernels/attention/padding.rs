//! `padding = exact`: a sample's real tokens get, forward and backward, what they get without the padded ones, wherever in
//! the sample these lie and whatever stands there.

use lara_runtime::attention::{
    AttentionConfig, Context, FeatureMap, Grid, MechanismKind, MisType, NoiseScale, PoolModule, ProposalGen, Qkv,
    SampleScheme, mechanism,
};
use lara_runtime::{Header, Mode, Parameters, Plan, Role, Tape, Tensor};
use lara_tests::{adapter, random, tune};

const HEADS: usize = 2;
const DIM: usize = 8;

/// Norm of the difference over the norm.
const TOLERANCE: f64 = 2e-6;

/// Where the tokens of one side lie, and which of them are real.
#[derive(Clone, Debug)]
struct Side {
    grid: Grid,
    tokens: usize,
    /// For every sample the places of its real tokens, in order.
    real: Vec<Vec<usize>>,
}

impl Side {
    /// `n` tokens and nothing else.
    fn alone(grid: Grid, n: usize) -> Side {
        Side { grid, tokens: n, real: vec![(0..n).collect()] }
    }

    /// `n` tokens among `tokens`: padded right, padded left, with holes, and a sample without any.
    fn sequence(n: usize, tokens: usize) -> Side {
        let more = tokens - n;
        let holes = (0..n).map(|i| i + (i * more).div_ceil(n)).collect();
        let real = vec![(0..n).collect(), (more..tokens).collect(), holes, vec![]];
        Side { grid: Grid::Sequence, tokens, real }
    }

    /// A prefix and a small grid with these cells, at corners and in the middle of a larger one, and one without cells.
    fn plane(prefix: usize, [height, width]: [usize; 2], [rows, columns]: [usize; 2], cells: &[usize]) -> Side {
        let at = |[row, column]: [usize; 2]| {
            let cell = |c: &usize| prefix + (c / width + row) * columns + c % width + column;
            (0..prefix).chain(cells.iter().map(cell)).collect()
        };
        let [down, right] = [rows - height, columns - width];
        let real = vec![at([0, 0]), at([down, right]), at([down / 2, right]), vec![]];
        Side { grid: Grid::Plane([rows, columns]), tokens: prefix + rows * columns, real }
    }

    /// A small video with these cells, in corners of a larger one, and one without cells.
    fn volume([frames, height, width]: [usize; 3], [times, rows, columns]: [usize; 3], cells: &[usize]) -> Side {
        let at = |[time, row, column]: [usize; 3]| {
            let cell = |c: &usize| {
                let (frame, place) = (c / (height * width), c % (height * width));
                ((frame + time) * rows + place / width + row) * columns + place % width + column
            };
            cells.iter().map(cell).collect()
        };
        let [later, down, right] = [times - frames, rows - height, columns - width];
        let real = vec![at([0, 0, 0]), at([later, down, right]), at([later, 0, right / 2]), vec![]];
        Side { grid: Grid::Volume([times, rows, columns]), tokens: times * rows * columns, real }
    }

    fn batch(&self) -> usize {
        self.real.len()
    }

    fn is_full(&self) -> bool {
        self.real.iter().all(|real| real.len() == self.tokens)
    }

    fn mask(&self) -> Vec<f64> {
        let of =
            |real: &Vec<usize>| (0..self.tokens).map(|n| f64::from(u8::from(!real.contains(&n)))).collect::<Vec<_>>();
        self.real.iter().flat_map(of).collect()
    }

    /// Rows [batch, heads, tokens, D] whose real ones are the first of `values` [heads, n, D]; the others are garbage.
    fn spread(&self, values: &[f64], seed: u32) -> Vec<f64> {
        let mut rows: Vec<f64> =
            random(seed, self.batch() * HEADS * self.tokens * DIM).into_iter().map(|x| 3.0 * x).collect();
        let own = values.len() / HEADS / DIM;
        for (b, real) in self.real.iter().enumerate() {
            for head in 0..HEADS {
                for (i, n) in real.iter().enumerate() {
                    let to = ((b * HEADS + head) * self.tokens + n) * DIM;
                    rows[to..to + DIM].copy_from_slice(&values[(head * own + i) * DIM..][..DIM]);
                }
            }
        }
        rows
    }

    /// The real rows of a sample, and the others.
    fn gather(&self, rows: &[f64], b: usize) -> [Vec<f64>; 2] {
        let mut found = [vec![], vec![]];
        for head in 0..HEADS {
            let row = |n: usize| &rows[((b * HEADS + head) * self.tokens + n) * DIM..][..DIM];
            self.real[b].iter().for_each(|&n| found[0].extend(row(n)));
            let padded = (0..self.tokens).filter(|n| !self.real[b].contains(n));
            padded.for_each(|n| found[1].extend(row(n)));
        }
        found
    }
}

/// One way to attend.
#[derive(Clone, Debug)]
struct Setting {
    config: AttentionConfig,
    prefix: usize,
    mode: Mode,
    /// Queries and keys are the same tokens.
    own: bool,
}

/// Output, dq, dk, dv, and the gradients of the parameters.
struct Computed {
    rows: [Vec<f64>; 4],
    learned: Vec<Vec<f32>>,
}

impl Setting {
    fn of(mechanism: MechanismKind) -> Setting {
        let config = AttentionConfig { mechanism, num_landmarks: 5, features: 6, ..AttentionConfig::default() };
        Setting { config, prefix: 0, mode: Mode::Differentiate, own: true }
    }

    fn lara(proposal_gen: ProposalGen, mis_type: MisType) -> Setting {
        let setting = Setting::of(MechanismKind::Lara);
        Setting { config: AttentionConfig { proposal_gen, mis_type, alpha_coeff: 2.0, ..setting.config }, ..setting }
    }

    fn with(&self, change: impl FnOnce(&mut AttentionConfig)) -> Setting {
        let mut setting = self.clone();
        change(&mut setting.config);
        setting
    }

    fn training(&self) -> Setting {
        Setting { mode: Mode::Train { accumulate: false }, ..self.clone() }
    }

    /// Runs on q, k, v and the output's gradient, each spread over its side.
    fn run(&self, [queries, keys]: [&Side; 2], given: [&[f64]; 4]) -> Computed {
        let gpu = adapter();
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, &tune(&[]), self.mode);
        let shape = |side: &Side| [side.batch(), HEADS, side.tokens, DIM];
        let [q, k, v] = [("q", queries), ("k", keys), ("v", keys)].map(|(name, side)| tape.variable(name, shape(side)));
        let dout = tape.input("dout", shape(queries));
        let mut masks = Vec::new();
        let mut mask = |tape: &mut Tape<'_>, side: &Side| {
            (!side.is_full()).then(|| {
                let mask = tape.input("mask", [side.batch(), side.tokens]);
                masks.push((mask, side.mask()));
                mask
            })
        };
        let key_padding_mask = mask(&mut tape, keys);
        let query_padding_mask = if self.own { None } else { mask(&mut tape, queries) };
        let key_grid = (!self.own).then_some(keys.grid);
        let (grid, prefix) = (queries.grid, self.prefix);
        let context = Context { grid, key_grid, prefix, key_padding_mask, query_padding_mask, ..Context::default() };
        let out =
            mechanism(&self.config).expect("settings that fit together").attend(&mut tape, Qkv { q, k, v }, &context);
        tape.backward(&[(out, dout)]);
        let results = [Some(out), tape.gradient(q), tape.gradient(k), tape.gradient(v)];
        results.iter().flatten().for_each(|&t| tape.rec.pin(t));
        let rec = tape.finish().unwrap_or_else(|e| panic!("{self:?}: {e}"));
        parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).expect("a few numbers");
        parameters.initialize(gpu, 7).unwrap();
        let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap_or_else(|e| panic!("{self:?}: {e}"));
        plan.poison();
        let sides = [(q, queries), (k, keys), (v, keys), (dout, queries)];
        let spread = sides.iter().zip(given).enumerate().map(|(i, ((t, side), x))| (*t, side.spread(x, 50 + i as u32)));
        for (tensor, values) in spread.chain(masks) {
            plan.write(tensor, &values.iter().map(|&x| x as f32).collect::<Vec<f32>>()).expect("a tensor of the plan");
        }
        let header = Header { step: 3, seed: [5, 6], ..Header::default() };
        plan.run().header(header).steps().submit().unwrap_or_else(|e| panic!("{self:?}: {e}"));
        let read = |t: Option<Tensor>| t.map_or(vec![], |t| plan.read_blocking(t).expect("a pinned tensor"));
        let rows = results.map(|t| read(t).into_iter().map(f64::from).collect());
        Computed { rows, learned: pollster::block_on(parameters.read(gpu, Role::Grad)).expect("gradients") }
    }

    /// Compares samples with padding to the one without; sides are [alone, padded] for queries and for keys.
    fn check(&self, queries: [&Side; 2], keys: [&Side; 2]) {
        let given = [(1, queries[0]), (2, keys[0]), (3, keys[0]), (4, queries[0])].map(|(seed, side)| {
            random(seed, HEADS * side.real[0].len() * DIM).into_iter().map(|x| 1.5 * x).collect::<Vec<f64>>()
        });
        let given = [0, 1, 2, 3].map(|i| &given[i][..]);
        let alone = self.run([queries[0], keys[0]], given);
        let padded = self.run([queries[1], keys[1]], given);
        // While training the place in the batch numbers the random draws.
        let alike = if self.mode == Mode::Differentiate { queries[1].batch() } else { 1 };
        for (what, (i, side)) in ["out", "dq", "dk", "dv"].iter().zip(
            [queries, keys, keys]
                .iter()
                .enumerate()
                .flat_map(|(i, side)| if i == 0 { vec![(0, side), (1, side)] } else { vec![(i + 1, side)] }),
        ) {
            if alone.rows[i].is_empty() {
                continue;
            }
            let want = side[0].gather(&alone.rows[i], 0)[0].clone();
            for b in 0..alike {
                let [real, hidden] = side[1].gather(&padded.rows[i], b);
                assert!(
                    hidden.iter().all(|&x| x == 0.0),
                    "{self:?}: {what} of sample {b} is not zero at padded tokens"
                );
                if !real.is_empty() {
                    close(&format!("{self:?}: {what} of sample {b}"), &want, &real);
                }
            }
        }
        // Samples that are all alike give as much each.
        let copies = queries[1].real.iter().filter(|real| !real.is_empty()).count() as f64;
        if self.mode == Mode::Differentiate {
            for (one, many) in alone.learned.iter().zip(&padded.learned) {
                let [one, many] = [(one, copies), (many, 1.0)]
                    .map(|(x, factor)| x.iter().map(|&x| factor * f64::from(x)).collect::<Vec<f64>>());
                close(&format!("{self:?}: a parameter's gradient"), &one, &many);
            }
        }
    }

    /// Sequences: longer than the landmarks, shorter, of one token.
    fn check_sequences(&self) {
        for (n, tokens) in [(13, 20), (3, 9), (1, 4)] {
            self.check_sequence(n, tokens);
        }
    }

    fn check_sequence(&self, n: usize, tokens: usize) {
        let sides = [&Side::alone(Grid::Sequence, n), &Side::sequence(n, tokens)];
        self.check(sides, sides);
    }
}

fn close(name: &str, want: &[f64], got: &[f64]) {
    assert_eq!(want.len(), got.len(), "{name}");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut want.iter().zip(got).map(|(a, b)| a - b));
    let size = norm(&mut want.iter().copied());
    assert!(difference <= TOLERANCE * size.max(1e-3), "{name}: {difference:.1e} off, of {size:.1e}");
}

const GENERATORS: [ProposalGen; 6] = [
    ProposalGen::NoParamPool,
    ProposalGen::NoParamPoolMixed,
    ProposalGen::Pool,
    ProposalGen::PoolMixed,
    ProposalGen::PoolVmixed,
    ProposalGen::Adaptive1d,
];
const WEIGHTINGS: [MisType; 3] = [MisType::MisOpt, MisType::MisBh, MisType::MisBiased];

#[test]
fn lara_on_sequences() {
    for proposal_gen in GENERATORS {
        for mis_type in WEIGHTINGS {
            Setting::lara(proposal_gen, mis_type).check_sequence(13, 20);
        }
    }
    for mis_type in WEIGHTINGS {
        Setting::lara(ProposalGen::PoolVmixed, mis_type).check_sequences();
    }
}

#[test]
fn lara_on_grids() {
    let whole: Vec<usize> = (0..12).collect();
    for proposal_gen in GENERATORS {
        for mis_type in WEIGHTINGS {
            let setting = Setting { prefix: 1, ..Setting::lara(proposal_gen, mis_type) };
            let padded = Side::plane(1, [3, 4], [5, 6], &whole);
            // adaptive-1d cuts segments.
            let sides = [&Side::alone(Grid::Plane([3, 4]), 13), &padded];
            setting.check(sides, sides);
        }
    }
    // Cells missing in the middle: the smallest grid that holds the others is the one without padding.
    for (proposal_gen, module) in [(ProposalGen::PoolMixed, PoolModule::Dense), (ProposalGen::Pool, PoolModule::Light)]
    {
        let setting =
            Setting::lara(proposal_gen, MisType::MisOpt).with(|c| (c.pool_module_type, c.num_landmarks) = (module, 9));
        let cells = [0, 3, 5, 11];
        let small = Side {
            real: vec![Side::plane(0, [3, 4], [3, 4], &cells).real.swap_remove(0)],
            grid: Grid::Plane([3, 4]),
            tokens: 12,
        };
        let sides = [&small, &Side::plane(0, [3, 4], [5, 6], &cells)];
        setting.check(sides, sides);
    }
}

#[test]
fn lara_on_videos() {
    let whole: Vec<usize> = (0..24).collect();
    for (proposal_gen, mis_type) in [
        (ProposalGen::NoParamPool, MisType::MisOpt),
        (ProposalGen::Pool, MisType::MisBh),
        (ProposalGen::PoolVmixed, MisType::MisOpt),
    ] {
        let setting = Setting::lara(proposal_gen, mis_type).with(|c| c.num_landmarks = 8);
        let alone = Side::alone(Grid::Volume([2, 3, 4]), 24);
        let sides = [&alone, &Side::volume([2, 3, 4], [3, 4, 6], &whole)];
        setting.check(sides, sides);
    }
    // Every frame and row and column has a cell, but not every cell is there.
    let cells = [0, 5, 10, 15, 23];
    let small = Side { grid: Grid::Volume([2, 3, 4]), tokens: 24, real: vec![cells.to_vec()] };
    let sides = [&small, &Side::volume([2, 3, 4], [2, 5, 5], &cells)];
    Setting::lara(ProposalGen::PoolMixed, MisType::MisOpt).with(|c| c.num_landmarks = 27).check(sides, sides);
}

#[test]
fn lara_with_the_noise_of_training() {
    for mis_type in WEIGHTINGS {
        for (antithetics, multisample) in [(false, false), (true, false), (false, true)] {
            let setting = Setting::lara(ProposalGen::Adaptive1d, mis_type).training();
            let setting = setting.with(|c| (c.use_antithetics, c.use_multisample) = (antithetics, multisample));
            setting.check_sequences();
        }
    }
}

#[test]
fn ra() {
    for num_samples in [-1, 0, 1, 3] {
        let setting =
            Setting::of(MechanismKind::Ra).with(|c| (c.num_samples, c.noise) = (num_samples, NoiseScale::Exact));
        setting.check_sequences();
        setting.training().check_sequences();
    }
}

#[test]
fn random_features() {
    Setting::of(MechanismKind::Rfa).check_sequences();
    for kernel in [
        FeatureMap::Favorp,
        FeatureMap::Fourier,
        FeatureMap::Relu,
        FeatureMap::ReluOnly,
        FeatureMap::SigmoidOnly,
        FeatureMap::MlpFourier,
    ] {
        for cos_weighting in [false, true] {
            let setting = Setting::of(MechanismKind::Performer);
            let fixed = |c: &mut AttentionConfig| {
                (c.kernel, c.cos_weighting, c.sample_scheme) = (kernel, cos_weighting, SampleScheme::Fixed);
            };
            setting.with(fixed).check_sequence(13, 20);
        }
    }
    for cos_weighting in [false, true] {
        let dpfp = |c: &mut AttentionConfig| {
            (c.kernel, c.cos_weighting, c.features) = (FeatureMap::Dpfp, cos_weighting, 4 * DIM);
        };
        Setting::of(MechanismKind::Performer).with(dpfp).check_sequences();
    }
}

/// Queries and keys of different sequences, each with a mask of its own, as many or not.
#[test]
fn between_sequences() {
    for mechanism in [MechanismKind::Lara, MechanismKind::Ra, MechanismKind::Rfa, MechanismKind::Performer] {
        for (n, m, tokens) in [(13, 9, [20, 15]), (3, 11, [12, 12])] {
            let setting = Setting { own: false, ..Setting::of(mechanism) };
            let setting = setting.with(|c| c.proposal_gen = ProposalGen::NoParamPoolMixed);
            let [queries, keys] = [(n, tokens[0]), (m, tokens[1])]
                .map(|(n, tokens)| [Side::alone(Grid::Sequence, n), Side::sequence(n, tokens)]);
            setting.check(queries.each_ref(), keys.each_ref());
        }
    }
}
