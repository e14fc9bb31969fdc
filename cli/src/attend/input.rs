//! The input of `lara attend`: which tensors there must and may be, and of what shapes.

use std::path::Path;

use lara_models::weights::TensorFile;
use lara_runtime::attention::{AttentionConfig, FeatureMap, Grid, MechanismKind, Projection, SampleScheme};

use super::layer::{Array, Arrays, Setting};
use crate::fail::{Failure, Outcome};

/// The widest head that the kernels hold in workgroup memory.
const MOST_CHANNELS: usize = 256;
/// From these integers on f32 skips some.
const EXACT_INTEGERS: usize = 1 << 24;

/// Reads and checks every tensor that this run uses; says which others are in the file.
pub(super) fn read(path: &Path, setting: &mut Setting, gradients: bool, chosen: bool) -> Outcome<Arrays> {
    let file = TensorFile::open(path)?;
    let has = |name: &str| file.shape(name).is_some();
    if let Some(name) = ["q", "k", "v"].into_iter().find(|name| !has(name)) {
        let there: Vec<&str> = file.names().collect();
        let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
        return Err(Failure::input(format!(
            "{} has no tensor {name}; attend reads q [batch, heads, N, D], k and v [batch, heads, M, D], and it has {there}",
            path.display()
        )));
    }
    if gradients && !has("dout") {
        return Err(Failure::input(format!(
            "--grad needs the gradient of the output, and {} has no tensor dout; add one of q's shape",
            path.display()
        )));
    }
    // Who brings a projection wants it used, unless a --set says otherwise.
    if has("projection") && !chosen && takes_projection(&setting.config) && !learns_projection(&setting.config) {
        setting.config.projection = Projection::Given;
    }
    let mut given = Arrays::new();
    for name in file.names() {
        if is_used(name, &setting.config, gradients) {
            given.insert(name.to_owned(), Array::read(&file, name)?);
        }
    }
    let sizes = Sizes::of(&given)?;
    sizes.check_grids(setting)?;
    sizes.check_extras(&given, setting)?;
    for name in file.names().filter(|name| !given.contains_key(*name)) {
        tracing::warn!("{name} in {} is not used: {}", path.display(), why_unused(name, &setting.config));
    }
    Ok(given)
}

/// Names that are no weights.
const INPUTS: [&str; 8] = ["q", "k", "v", "key_padding_mask", "noise", "index", "projection", "dout"];

/// Says of every tensor that could have been a weight that the mechanism never asked for it.
pub(super) fn warn_of_unused_weights(given: &Arrays, asked: &[&str], config: &AttentionConfig) {
    for name in given.keys().map(String::as_str).filter(|name| !INPUTS.contains(name) && !asked.contains(name)) {
        let mechanism = config.mechanism.name();
        tracing::warn!("{name} is not used: {mechanism} with these settings has no such tensor");
    }
}

fn takes_projection(config: &AttentionConfig) -> bool {
    let random = matches!(config.kernel, FeatureMap::Favorp | FeatureMap::Fourier | FeatureMap::Relu);
    config.mechanism == MechanismKind::Rfa || (config.mechanism == MechanismKind::Performer && random)
}

/// Whether `projection` names a weight that is trained.
pub(super) fn learns_projection(config: &AttentionConfig) -> bool {
    let waves = config.mechanism == MechanismKind::Performer && config.kernel == FeatureMap::MlpFourier;
    let learnable = config.sample_scheme == SampleScheme::Learnable && config.projection != Projection::Given;
    waves || (learnable && takes_projection(config))
}

fn is_used(name: &str, config: &AttentionConfig, gradients: bool) -> bool {
    use MechanismKind::{Lara, Ra};
    match name {
        "q" | "k" | "v" | "key_padding_mask" => true,
        "noise" => matches!(config.mechanism, Lara | Ra),
        "index" => config.mechanism == Ra && config.num_samples > 0,
        "projection" => learns_projection(config) || takes_projection(config) && config.projection == Projection::Given,
        "dout" => gradients,
        // Parameters are declared when the mechanism is recorded; until then anything else may be one.
        _ => true,
    }
}

fn why_unused(name: &str, config: &AttentionConfig) -> String {
    let mechanism = config.mechanism.name();
    match name {
        "dout" => "only --grad takes it".to_owned(),
        "noise" => format!("{mechanism} adds no noise; lara and ra do"),
        "index" => format!(
            "{mechanism} with num_samples = {} draws no keys; ra with num_samples >= 1 does",
            config.num_samples
        ),
        _ if takes_projection(config) => "projection is set to something else than \"given\"".to_owned(),
        _ => format!("{mechanism} with these settings has no random projection"),
    }
}

/// batch, heads, N, M and D.
struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
}

impl Sizes {
    fn of(given: &Arrays) -> Outcome<Sizes> {
        let [q, k, v] = ["q", "k", "v"].map(|name| &given[name].shape);
        for (name, shape) in [("q", q), ("k", k), ("v", v)] {
            if shape.len() != 4 || shape.contains(&0) {
                return Err(Failure::input(format!(
                    "{name} has shape {shape:?}; it must have four sizes of at least 1, [batch, heads, tokens, D]"
                )));
            }
        }
        if [q[0], q[1], q[3]] != [k[0], k[1], k[3]] {
            return Err(Failure::input(format!(
                "q {q:?} and k {k:?} do not go together; batch, heads and D must be the same"
            )));
        }
        if k != v {
            return Err(Failure::input(format!(
                "k {k:?} and v {v:?} do not go together; their shapes must be the same"
            )));
        }
        if q[3] > MOST_CHANNELS {
            return Err(Failure::input(format!(
                "q {q:?} has heads of {} channels; {MOST_CHANNELS} are the most. Split them into more heads",
                q[3]
            )));
        }
        Ok(Sizes { batch: q[0], heads: q[1], queries: q[2], keys: k[2], dim: q[3] })
    }

    /// Mask, drawn keys, projection and the output's gradient; the shape of noise is the mechanism's to know.
    fn check_extras(&self, given: &Arrays, setting: &Setting) -> Outcome {
        let Sizes { batch, heads, queries, keys, dim } = *self;
        let config = &setting.config;
        let draws = queries * usize::try_from(config.num_samples).unwrap_or(1).max(1);
        // One that is learned is a weight, whose shape the mechanism knows.
        let projection = match given.get("projection") {
            Some(array) if learns_projection(config) => array.shape.clone(),
            _ => vec![heads, config.features, dim],
        };
        for (name, shape, meaning) in [
            ("key_padding_mask", vec![batch, keys], "[batch, M]"),
            ("index", vec![batch, heads, draws], "[batch, heads, N x num_samples]"),
            ("projection", projection, "[heads, features, D]"),
            ("dout", vec![batch, heads, queries, dim], "q's shape"),
        ] {
            if let Some(array) = given.get(name).filter(|array| array.shape != shape) {
                let found = &array.shape;
                return Err(Failure::input(format!("{name} has shape {found:?} but must be {shape:?}, {meaning}")));
            }
        }
        self.check_values(given)
    }

    fn check_values(&self, given: &Arrays) -> Outcome {
        if let Some(mask) = given.get("key_padding_mask")
            && let Some(at) = mask.values.iter().position(|&x| x != 0.0 && x != 1.0)
        {
            let (value, place) = (mask.values[at], mask.place(at));
            return Err(Failure::input(format!(
                "key_padding_mask is {value} at {place:?}; it must be 1 where a key is padding and 0 elsewhere"
            )));
        }
        let keys = self.keys.min(EXACT_INTEGERS) as f32;
        if let Some(index) = given.get("index")
            && let Some(at) = index.values.iter().position(|&x| x.fract() != 0.0 || x < 0.0 || x >= keys)
        {
            let (value, place) = (index.values[at], index.place(at));
            return Err(Failure::input(format!(
                "index is {value} at {place:?}; it must name a key, a whole number from 0 to {}",
                self.keys - 1
            )));
        }
        Ok(())
    }

    fn check_grids(&self, setting: &Setting) -> Outcome {
        let prefix = setting.prefix;
        if prefix >= self.queries || prefix >= self.keys {
            return Err(Failure::input(format!(
                "--prefix is {prefix} but there are {} queries and {} keys; a token must be left behind the prefix",
                self.queries, self.keys
            )));
        }
        let mut grids = vec![("--grid", setting.grid, "queries", self.queries)];
        grids.extend(setting.key_grid.map(|grid| ("--key-grid", grid, "keys", self.keys)));
        for (option, grid, what, tokens) in grids {
            let Some(cells) = cells(grid) else { continue };
            if cells + prefix != tokens {
                let behind = if prefix > 0 { format!(" with --prefix {prefix}") } else { String::new() };
                return Err(Failure::input(format!(
                    "{option} has {cells} cells{behind}, but there are {tokens} {what}; the two must agree"
                )));
            }
        }
        Ok(())
    }
}

/// Tokens of a grid; any number for a sequence.
fn cells(grid: Grid) -> Option<usize> {
    match grid {
        Grid::Sequence => None,
        Grid::Plane(sides) => Some(sides.iter().product()),
        Grid::Volume(sides) => Some(sides.iter().product()),
    }
}

/// `14x14` (rows and columns) or `8x14x14` (frames, rows and columns).
pub(crate) fn parse_grid(text: &str) -> Result<Grid, String> {
    let sides: Option<Vec<usize>> = text.split(['x', 'X']).map(|side| side.trim().parse().ok()).collect();
    let product = |sides: &[usize]| sides.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
    match sides.as_deref() {
        Some(sides) if sides.contains(&0) || product(sides).is_none_or(|cells| cells > EXACT_INTEGERS) => {
            Err(format!("a grid has between 1 and {EXACT_INTEGERS} cells"))
        }
        Some(&[rows, columns]) => Ok(Grid::Plane([rows, columns])),
        Some(&[frames, rows, columns]) => Ok(Grid::Volume([frames, rows, columns])),
        _ => Err("write ROWSxCOLUMNS, such as 14x14, or FRAMESxROWSxCOLUMNS, such as 8x14x14".to_owned()),
    }
}
