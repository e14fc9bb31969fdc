//! The input of `lara attend`: which tensors there must and may be, and of what shapes.

use std::path::Path;

use lara_models::attend::{Array, Arrays, Setting, Shapes, Sizes};
use lara_models::weights::TensorFile;
use lara_runtime::attention::{AttentionConfig, Grid, Need, Projection};

use crate::fail::{Failure, Outcome};

/// Most cells of a grid.
const MOST_CELLS: usize = 1 << 24;

/// What the user gave: a file, and what is known of its tensors before they are read.
pub(super) struct Input {
    file: TensorFile,
    /// Of every tensor that may be used.
    pub(super) shapes: Shapes,
    sizes: Sizes,
}

/// What a mechanism or `--grad` reads; any other name may be a learned weight's, which is known when it is recorded.
const INPUTS: [&str; 8] = ["q", "k", "v", "key_padding_mask", "noise", "index", "projection", "dout"];

impl Input {
    /// Opens the file and settles which of its tensors are used, and that their shapes go together.
    pub(super) fn open(path: &Path, setting: &mut Setting, gradients: bool, chosen: bool) -> Outcome<Input> {
        let file = TensorFile::open(path)?;
        let mut shapes: Shapes =
            file.names().filter_map(|name| Some((name.to_owned(), file.shape(name)?.to_vec()))).collect();
        if let Some(name) = ["q", "k", "v"].into_iter().find(|name| !shapes.contains_key(*name)) {
            let there: Vec<&str> = file.names().collect();
            let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
            return Err(Failure::input(format!(
                "{} has no tensor {name}; attend reads q [batch, heads, N, D], k and v [batch, heads, M, D], and it has \
                 {there}",
                path.display()
            )));
        }
        if gradients && !shapes.contains_key("dout") {
            return Err(Failure::input(format!(
                "--grad needs the gradient of the output, and {} has no tensor dout; add one of q's shape",
                path.display()
            )));
        }
        let sizes = Sizes::of(&shapes)?;
        check_grids(&sizes, setting)?;
        // Who brings a projection wants it used, unless a --set says otherwise.
        if shapes.contains_key("projection") && !chosen && need(&setting.config, &sizes, "projection").is_none() {
            let given = AttentionConfig { projection: Projection::Given, ..setting.config.clone() };
            if need(&given, &sizes, "projection").is_some() {
                setting.config = given;
            }
        }
        for name in INPUTS {
            let is_used = match name {
                "q" | "k" | "v" => true,
                "dout" => gradients,
                _ => need(&setting.config, &sizes, name).is_some(),
            };
            if !is_used && shapes.remove(name).is_some() {
                let why = why_unused(name, &setting.config);
                tracing::warn!("{name} in {} is not used: {why}", path.display());
            }
        }
        sizes.check_extras(&shapes, &setting.config)?;
        Ok(Input { file, shapes, sizes })
    }

    /// Reads the tensors that are no weights, all of whose values must be finite.
    pub(super) fn read(&self) -> Outcome<Arrays> {
        let names = INPUTS.into_iter().filter(|name| self.shapes.contains_key(*name));
        let given: Arrays = names.map(|name| Ok((name.to_owned(), self.array(name)?))).collect::<Outcome<_>>()?;
        self.sizes.check_values(&given)?;
        Ok(given)
    }

    /// Adds the learned weights that the mechanism turned out to have, and says which tensors are not used.
    pub(super) fn read_weights<'a>(
        &self,
        wanted: impl Iterator<Item = &'a str>,
        config: &AttentionConfig,
        given: &mut Arrays,
    ) -> Outcome {
        for name in wanted {
            if !given.contains_key(name) {
                given.insert(name.to_owned(), self.array(name)?);
            }
        }
        for name in self.shapes.keys().filter(|name| !given.contains_key(*name)) {
            let mechanism = config.mechanism.name();
            tracing::warn!("{name} is not used: {mechanism} with these settings has no such tensor");
        }
        Ok(())
    }

    /// A tensor of the file, all of whose values are finite.
    fn array(&self, name: &str) -> Outcome<Array> {
        let (shape, values) = self.file.numbers(name)?;
        let array = Array { shape, values };
        match array.not_finite() {
            None => Ok(array),
            Some((value, place)) => Err(Failure::input(format!(
                "{name} in {} is {value} at {place:?}; every value must be a finite number of f32",
                self.file.path().display(),
            ))),
        }
    }
}

/// How the mechanism comes by a tensor, if it reads one of this name.
fn need(config: &AttentionConfig, sizes: &Sizes, name: &str) -> Option<Need> {
    config.extras(sizes.output(), sizes.keys).into_iter().find(|extra| extra.name == name).map(|extra| extra.need)
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
        _ => format!("{mechanism} with these settings takes none; rfa and performer with projection = given do"),
    }
}

fn check_grids(sizes: &Sizes, setting: &Setting) -> Outcome {
    let (prefix, queries, keys) = (setting.prefix, sizes.queries, sizes.keys);
    if prefix >= queries || prefix >= keys {
        return Err(Failure::input(format!(
            "--prefix is {prefix} but there are {queries} queries and {keys} keys; a token must be left behind the prefix"
        )));
    }
    let mut grids = vec![("--grid", setting.grid, "queries", queries)];
    grids.extend(setting.key_grid.map(|grid| ("--key-grid", grid, "keys", keys)));
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
        Some(sides) if sides.contains(&0) || product(sides).is_none_or(|cells| cells > MOST_CELLS) => {
            Err(format!("a grid has between 1 and {MOST_CELLS} cells"))
        }
        Some(&[rows, columns]) => Ok(Grid::Plane([rows, columns])),
        Some(&[frames, rows, columns]) => Ok(Grid::Volume([frames, rows, columns])),
        _ => Err("write ROWSxCOLUMNS, such as 14x14, or FRAMESxROWSxCOLUMNS, such as 8x14x14".to_owned()),
    }
}
