//! `lara attend`: tensors that go together or not, with options that fit them or not; up to the device, and seldom on it.

use lara_models::attend::{Arrays, Input, Layer, Setting, Want, map, parse_grid, refuse_not_finite};
use lara_models::train::TrainConfig;
use lara_models::weights::TensorFile;
use lara_runtime::attention::{AttentionConfig, Grid, MechanismKind};
use lara_runtime::{Gpu, Mode, Tune};
use pollster::block_on;

use super::tensors::{entry, whole};
use super::{Rooms, configs, sizes};
use crate::case::{Answer, Case, answer};
use crate::source::Source;

/// Settings that go with some tensors.
const SETS: [&str; 34] = [
    "mechanism=softmax",
    "mechanism=ra",
    "mechanism=rfa",
    "mechanism=performer",
    "mechanism=lara",
    "causal=true",
    "num_landmarks=1",
    "num_landmarks=4",
    "num_landmarks=1048576",
    "proposal_gen=pool-mixed",
    "proposal_gen=pool-vmixed",
    "proposal_gen=no-param-pool",
    "proposal_gen=no-param-pool-mixed",
    "proposal_gen=adaptive-1d",
    "pool_module_type=dense",
    "mis_type=mis-bh",
    "mis_type=mis-biased",
    "alpha_coeff=-2.5",
    "use_antithetics=true",
    "use_multisample=true",
    "noise=exact",
    "padding=released",
    "num_samples=0",
    "num_samples=-1",
    "num_samples=3",
    "features=4",
    "features=65536",
    "projection=given",
    "projection=iid",
    "sample_scheme=learnable",
    "kernel=fourier",
    "kernel=mlp-fourier",
    "kernel=dpfp",
    "cos_weighting=true",
];

/// What a user asks for.
struct Wish {
    setting: Setting,
    gradients: bool,
    /// Whether a setting says where projections come from.
    chosen: bool,
}

/// batch, heads, queries, keys, channels.
type Dims = [u64; 5];

/// Any file with any options, up to the device.
pub(super) fn file(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let is_honest = case.source.chance(1, 3);
    let dims: Dims = std::array::from_fn(|_| match case.source.chance(1, 24) && !is_honest {
        true => case.source.word(),
        false => case.source.range(1..=6) as u64,
    });
    let bytes = written(&mut case.source, &dims, is_honest, &[0x00, 0x3f, 0x40, 0x7f, 0x80, 0xff]);
    case.keep("in.safetensors", &bytes);
    match wish(case, &dims) {
        Ok(mut wish) => read(bytes, &mut wish).map(|_| ()),
        Err(refusal) => Err(refusal),
    }
}

/// Tensors of a few sizes, so that the kernels are compiled once, with options that go together more often than not, on
/// a device: what is accepted comes out finite.
pub(super) fn layer(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let [batch, heads] = [1, 2].map(|most| case.source.range(1..=most) as u64);
    let tokens = [1, 4, 16];
    let queries = case.source.pick(&tokens);
    let keys = if case.source.chance(3, 4) { queries } else { case.source.pick(&tokens) };
    let dims = [batch, heads, queries, keys, case.source.pick(&[1, 4, 8])];
    // Zeros of both signs, numbers around 1, and as doubles or integers some around 1e9.
    let bytes = written(&mut case.source, &dims, true, &[0x00, 0x3f, 0x40, 0x42, 0x80, 0xbf]);
    case.keep("in.safetensors", &bytes);
    case.allow(sizes::RECORDINGS);
    let mut wish = wish(case, &dims)?;
    let (input, mut given) = read(bytes, &mut wish)?;
    let gpu = sizes::small(rooms);
    sizes::told(answer(block_on(attend(gpu, &wish, &input, &mut given))))
}

async fn attend(gpu: &Gpu, wish: &Wish, input: &Input, given: &mut Arrays) -> lara_models::Result<()> {
    let (tune, setting) = (Tune::fixed(&[]), &wish.setting);
    let want = if wish.gradients { Want::Gradients } else { Want::Output };
    let layer = Layer::compile(gpu, &tune, setting, want, input.shapes()).await?;
    input.read_weights(layer.weights(), &setting.config, given)?;
    layer.set_weights(given)?;
    let mut results = vec![("out".to_owned(), layer.run(given, 7).await?)];
    if wish.gradients {
        results.extend(layer.gradients(given).await?);
    } else {
        results.push(("weights".to_owned(), map(gpu, &tune, setting, given, 7).await?));
    }
    refuse_not_finite(&results, given)?;
    if setting.config.mechanism == MechanismKind::Softmax {
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let [out, v] = [&results[0].1, &given["v"]].map(|array| largest(&array.values));
        assert!(out <= v * 1.0001, "a mean of values up to {v} came out as {out}");
    }
    Ok(())
}

/// What `lara attend` does with a file before it opens a device.
fn read(bytes: Vec<u8>, wish: &mut Wish) -> Result<(Input, Arrays), (String, bool)> {
    let read = TensorFile::from_bytes("in.safetensors", bytes).and_then(|file| {
        let input = Input::new(file, &mut wish.setting, wish.gradients, wish.chosen)?;
        let given = input.read()?;
        Ok((input, given))
    });
    read.map_err(|error| (error.to_string(), error.is_bad_input()))
}

/// Options, as the command makes them of its words.
fn wish(case: &mut Case<'_>, dims: &Dims) -> Result<Wish, (String, bool)> {
    let source = &mut case.source;
    let mut words = Vec::new();
    let mut sets = Vec::new();
    for _ in 0..source.range(0..=4) {
        sets.push(if source.chance(1, 16) { configs::assignment(source) } else { source.pick(&SETS).to_owned() });
    }
    let prefix = match source.range(0..=15) {
        0 => source.word() as usize,
        1..=3 => 1,
        _ => 0,
    };
    let mut grids = [None, None];
    for (grid, tokens) in grids.iter_mut().zip([dims[2], dims[3]]) {
        if source.chance(1, 3) {
            *grid = Some(sides(source, tokens.saturating_sub(prefix as u64)));
        }
    }
    let (gradients, trains) = (source.chance(1, 3), source.chance(1, 3));
    words.extend(sets.iter().cloned());
    words.push(format!("grids {grids:?}, prefix {prefix}, gradients {gradients}, trains {trains}"));
    case.keep("options.txt", words.join("\n").as_bytes());
    let refused = |error: lara_models::Error| (error.to_string(), error.is_bad_input());
    let config = TrainConfig::attention_from(&AttentionConfig::default(), &sets).map_err(refused)?;
    let [grid, key_grid] = grids.map(|text: Option<String>| text.map(|text| parse_grid(&text)).transpose());
    let [grid, key_grid] = [grid.map_err(refused), key_grid.map_err(refused)];
    let mode = match (trains, gradients) {
        (true, _) => Mode::Train { accumulate: false },
        (false, true) => Mode::Differentiate,
        (false, false) => Mode::Eval,
    };
    let setting = Setting { config, mode, grid: grid?.unwrap_or(Grid::Sequence), key_grid: key_grid?, prefix };
    Ok(Wish { setting, gradients, chosen: sets.iter().any(|set| set.starts_with("projection=")) })
}

/// Sides of a grid: some that have so many cells, or a text.
fn sides(source: &mut Source<'_>, cells: u64) -> String {
    match source.range(0..=7) {
        0 => source.text(12),
        1 => format!("{}x{}", source.number(), source.number()),
        2 => format!("{}x1x1", source.whole()),
        _ => {
            let rows = (1..=cells.min(8)).rev().find(|rows| cells.is_multiple_of(*rows) && rows * rows <= cells);
            let rows = rows.unwrap_or(1);
            format!("{rows}x{}", cells / rows)
        }
    }
}

/// The learned weights of the landmarks.
const LANDMARKS: [&str; 8] = [
    "q_landmarks.linear.weight",
    "q_landmarks.linear.bias",
    "q_landmarks.norm.weight",
    "q_landmarks.norm.bias",
    "k_landmarks.linear.weight",
    "k_landmarks.linear.bias",
    "k_landmarks.norm.weight",
    "k_landmarks.norm.bias",
];

/// A file with q, k and v of these sizes and some of what mechanisms read besides.
fn written(source: &mut Source<'_>, dims: &Dims, is_honest: bool, fills: &[u8]) -> Vec<u8> {
    let &[b, h, n, m, d] = dims;
    let mut tensors = vec![("q", vec![b, h, n, d]), ("k", vec![b, h, m, d]), ("v", vec![b, h, m, d])];
    let draws = n.saturating_mul(source.pick(&[1, 1, 3]));
    let extras = [
        ("key_padding_mask", vec![b, m]),
        ("noise", vec![b, h, draws, d]),
        ("index", vec![b, h, draws]),
        ("projection", vec![h, source.pick(&[4, 4, 64]), d]),
        ("dout", vec![b, h, n, d]),
        ("features.weight", vec![d, d]),
        ("features.bias", vec![d]),
    ];
    tensors.extend(extras.into_iter().filter(|_| source.chance(1, 2)));
    if source.chance(2, 3) {
        // Across heads, or in one.
        let width = if source.chance(1, 4) { h.saturating_mul(d) } else { d };
        let shape = |name: &str| if name.ends_with("linear.weight") { vec![width, width] } else { vec![width] };
        tensors.extend(LANDMARKS.map(|name| (name, shape(name))));
    }
    if !is_honest && source.chance(1, 6) {
        tensors.remove(source.range(0..=tensors.len() - 1));
    }
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, mut shape) in tensors {
        if !is_honest && source.chance(1, 12) {
            let at = source.range(0..=shape.len() - 1);
            match source.range(0..=2) {
                0 => shape[at] = source.word(),
                1 => shape.insert(at, 1),
                _ => _ = shape.remove(at),
            }
        }
        let counts = ["key_padding_mask", "index"].contains(&name);
        let (dtype, width): (_, u64) = match counts || source.chance(1, 8) {
            true => source.pick(&[("U8", 1), ("I32", 4), ("F32", 4)]),
            false => source.pick(&[("F32", 4), ("F32", 4), ("F64", 8), ("F16", 2), ("BF16", 2)]),
        };
        let bytes = shape.iter().try_fold(width, |product, &size| product.checked_mul(size)).unwrap_or(4);
        let fill = if counts && source.chance(7, 8) { 0 } else { source.pick(fills) };
        let from = data.len();
        data.resize(from + bytes.min(1 << 16) as usize, fill);
        if !counts {
            // Numbers of one magnitude that differ in their second byte.
            let numbers = data[from..].chunks_exact_mut(width as usize).enumerate();
            numbers.for_each(|(i, number)| number[(width as usize).saturating_sub(2)] ^= (i * 5 % 128) as u8);
        }
        entries.push(entry(name, dtype, &format!("{shape:?}"), (from as u64, data.len() as u64)));
    }
    whole(&entries, &data)
}
