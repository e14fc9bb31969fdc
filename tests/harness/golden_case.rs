//! The cases of `tests/golden/attention.json` as attention modules, run without blocking: natively, and in a browser.

use lara_runtime::attention::{
    Attention, AttentionConfig, Context, Grid, JoinHeads, MechanismKind, Padding, ProposalGen, Qkv, Softmax, mechanism,
};
use lara_runtime::{Gpu, Header, Mode, Parameters, Plan, Role, Shape, Tape, Tensor, Tune, Variant};

use crate::golden::golden_inputs;

/// A golden case, read from its name: `softmax`, `lara2d_<mis>_<proposals>_a<alpha>_<mode>`,
/// `lara1d_n<N>_<mis>_<mask>_eval` or `ra_ns<samples>_<mode>`.
#[derive(Debug)]
pub struct GoldenCase {
    name: String,
    config: AttentionConfig,
    tokens: usize,
    grid: Grid,
    /// Standard normal noise a token or landmark, or none.
    noise_rows: usize,
    padded: bool,
    indexed: bool,
}

/// Allowed error, relative to the largest value of a case: that of f32 against float64.
pub const GOLDEN_TOLERANCE: f64 = 2e-5;

/// The variants of attention and of its softmax that every golden case is run with.
pub const GOLDEN_VARIANTS: [&[&str]; 3] = [&["streamed"], &["slabs", "forward"], &["slabs", "forward_rows"]];

impl GoldenCase {
    /// The case of this name.
    ///
    /// # Errors
    /// With the name, if it is not made as described above.
    pub fn parse(name: &str) -> Result<GoldenCase, String> {
        let parts: Vec<&str> = name.split('_').collect();
        let mut case = GoldenCase {
            name: name.to_owned(),
            config: AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() },
            tokens: 16,
            grid: Grid::Sequence,
            noise_rows: 0,
            padded: name.contains("pad5"),
            indexed: name.contains("idx"),
        };
        let known = match parts[0] {
            "softmax" => Some(()),
            "lara2d" => case.set_plane(&parts),
            "lara1d" => case.set_sequence(&parts),
            "ra" => case.set_ra(&parts),
            _ => None,
        };
        known.map(|()| case).ok_or_else(|| format!("no golden case is named like {name}"))
    }

    fn set_lara(&mut self, weighting: &str, proposals: &str) -> Option<()> {
        let named = |text: &str| serde_json::Value::String(text.to_owned());
        self.config.mechanism = MechanismKind::Lara;
        self.config.num_landmarks = 4;
        self.config.padding = Padding::Released;
        self.config.mis_type = serde_json::from_value(named(weighting)).ok()?;
        self.config.proposal_gen = serde_json::from_value(named(proposals)).ok()?;
        self.config.use_antithetics = self.name.ends_with("antithetics");
        self.config.use_multisample = self.name.ends_with("multisample");
        let landmarks = if self.config.use_multisample { 8 } else { 4 };
        self.noise_rows = if self.name.contains("train") { landmarks } else { 0 };
        Some(())
    }

    fn set_plane(&mut self, parts: &[&str]) -> Option<()> {
        let [_, weighting, proposals, alpha, ..] = *parts else { return None };
        self.grid = Grid::Plane([4, 4]);
        self.config.alpha_coeff = alpha.strip_prefix('a')?.parse().ok()?;
        self.set_lara(weighting, proposals)
    }

    fn set_sequence(&mut self, parts: &[&str]) -> Option<()> {
        let [_, tokens, weighting, ..] = *parts else { return None };
        self.tokens = tokens.strip_prefix('n')?.parse().ok()?;
        self.set_lara(weighting, "adaptive-1d")
    }

    fn set_ra(&mut self, parts: &[&str]) -> Option<()> {
        self.config.mechanism = MechanismKind::Ra;
        self.config.num_samples = parts.get(1)?.strip_prefix("ns")?.parse().ok()?;
        self.noise_rows = if self.name.contains("train") { 16 } else { 0 };
        Some(())
    }

    /// The output [2, N, 16] on `gpu` with the `preferred` variants, on buffers that were full of NaN.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn output(&self, gpu: &Gpu, preferred: &[&str]) -> Result<Vec<f64>, lara_runtime::Error> {
        let mut parameters = Parameters::new(gpu);
        let preferred = preferred.iter().map(|name| Variant::named(name)).collect::<Result<Vec<_>, _>>()?;
        let mut tape = Tape::new(&mut parameters, &Tune::fixed(&preferred), Mode::Eval);
        let mut given = Vec::new();
        let mut input = |tape: &mut Tape<'_>, shape: Shape, values: Vec<f64>| {
            let tensor = tape.input("x", shape);
            given.push((tensor, values.iter().map(|&x| x as f32).collect::<Vec<f32>>()));
            tensor
        };
        let tokens = self.tokens;
        let [q, k, v] = golden_inputs(tokens).map(|values| input(&mut tape, [2, 2, tokens, 8].into(), values));
        let mut optional =
            |shape: Shape, values: Vec<f64>| (!values.is_empty()).then(|| input(&mut tape, shape, values));
        let context = Context {
            grid: self.grid,
            noise: optional([2, 2, self.noise_rows.max(1), 8].into(), self.noise()),
            key_padding_mask: optional([2, tokens].into(), self.padding()),
            index: optional([2, 2, tokens].into(), self.index()),
            ..Context::default()
        };
        let heads = match self.config.mechanism {
            MechanismKind::Softmax => Softmax::default().attend(&mut tape, Qkv { q, k, v }, &context),
            _ => mechanism(&self.config).unwrap().attend(&mut tape, Qkv { q, k, v }, &context),
        };
        let out: Tensor = tape.apply(JoinHeads, &[heads]);
        tape.rec.pin(out);
        let recording = tape.finish()?;
        parameters.allocate(gpu, &[Role::Weight]).await?;
        let plan = Plan::compile(gpu, recording, &parameters).await?;
        plan.poison();
        self.set_parameters(gpu, &parameters);
        given.iter().try_for_each(|(tensor, values)| plan.write(*tensor, values))?;
        plan.run().header(Header::default()).steps().submit()?;
        Ok(plan.read(out).await?.into_iter().map(f64::from).collect())
    }

    fn noise(&self) -> Vec<f64> {
        (0..32 * self.noise_rows).map(|i| 2.0_f64.sqrt() * (2.399 * i as f64 + 0.3).sin()).collect()
    }

    /// The last five keys of the second sample.
    fn padding(&self) -> Vec<f64> {
        let padded = |i: usize| i >= self.tokens && i + 5 >= 2 * self.tokens;
        let count = if self.padded { 2 * self.tokens } else { 0 };
        (0..count).map(|i| f64::from(u8::from(padded(i)))).collect()
    }

    fn index(&self) -> Vec<f64> {
        let count = if self.indexed { 2 * 2 * self.tokens } else { 0 };
        (0..count).map(|i| ((5 * i + 3) % self.tokens) as f64).collect()
    }

    /// The weights that landmark generators had in the authors' code, where there are any.
    fn set_parameters(&self, gpu: &Gpu, parameters: &Parameters) {
        if self.config.mechanism != MechanismKind::Lara || self.config.proposal_gen == ProposalGen::NoParamPool {
            return;
        }
        for (index, entry) in parameters.entries().iter().enumerate() {
            let phase = if entry.name.starts_with("q_landmarks") { 0.0 } else { 0.6 };
            let value = |i: usize| {
                let (row, column) = ((i / 8) as f64, (i % 8) as f64);
                match entry.name.split_once('.').map(|(_, name)| name) {
                    Some("linear.weight") => {
                        f64::from(u8::from(row == column)) + 0.1 * (0.9 * row + 0.4 * column + phase).sin()
                    }
                    Some("linear.bias") => 0.05 * (column + phase).cos(),
                    Some("norm.weight") => 1.0 + 0.1 * (column + phase).sin(),
                    _ => 0.02 * column - 0.05,
                }
            };
            let values: Vec<f32> = (0..entry.shape.len()).map(|i| value(i) as f32).collect();
            parameters.write(gpu, Role::Weight, index, &values).unwrap();
        }
    }
}

/// Largest difference, relative to the largest of `want` (at least 1e-3); infinite where the lengths differ or a value
/// is not a number.
pub fn relative_error(want: &[f64], got: &[f64]) -> f64 {
    if want.len() != got.len() || got.iter().any(|x| x.is_nan()) {
        return f64::INFINITY;
    }
    let scale = want.iter().fold(1e-3_f64, |m, w| m.max(w.abs()));
    want.iter().zip(got).fold(0.0, |m: f64, (w, g)| m.max((w - g).abs())) / scale
}
