//! The file that `lara attend` reads: which tensors there must and may be, of what shapes, and what came of their numbers.

use lara_runtime::attention::{AttentionConfig, Grid, Need, Projection};

use super::{Array, Arrays, Setting, Shapes, Sizes};
use crate::weights::TensorFile;
use crate::{Error, Result};

/// Most cells of a grid.
const MOST_CELLS: usize = 1 << 24;

/// Inputs up to this magnitude give finite outputs under every mechanism.
const SAFE: f32 = 1e4;

/// What the user gave: a file, and what is known of its tensors before they are read.
#[derive(Debug)]
pub struct Input {
    file: TensorFile,
    shapes: Shapes,
    sizes: Sizes,
}

/// What a mechanism or `--grad` reads; any other name may be a learned weight's, which is known when it is recorded.
const INPUTS: [&str; 8] = ["q", "k", "v", "key_padding_mask", "noise", "index", "projection", "dout"];

impl Input {
    /// Settles which tensors of the file are used, and that their shapes go together. A projection that the file brings is
    /// used, by a change of `setting`, unless the user has `chosen` where projections come from.
    ///
    /// # Errors
    /// Names the tensor that is missing or does not fit, and the option that contradicts it.
    pub fn new(file: TensorFile, setting: &mut Setting, gradients: bool, chosen: bool) -> Result<Input> {
        let mut shapes: Shapes =
            file.names().filter_map(|name| Some((name.to_owned(), file.shape(name)?.to_vec()))).collect();
        if let Some(name) = ["q", "k", "v"].into_iter().find(|name| !shapes.contains_key(*name)) {
            let there: Vec<&str> = file.names().collect();
            let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
            return Err(bad(format!(
                "{} has no tensor {name}; attend reads q [batch, heads, N, D], k and v [batch, heads, M, D], and it has \
                 {there}",
                file.path().display()
            )));
        }
        if gradients && !shapes.contains_key("dout") {
            return Err(bad(format!(
                "--grad needs the gradient of the output, and {} has no tensor dout; add one of q's shape",
                file.path().display()
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
                tracing::warn!("{name} in {} is not used: {why}", file.path().display());
            }
        }
        sizes.check_extras(&shapes, &setting.config)?;
        Ok(Input { file, shapes, sizes })
    }

    /// Shapes of every tensor that may be used.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// Reads the tensors that are no weights, all of whose values must be finite.
    ///
    /// # Errors
    /// Names the first value that is not, or that a mask or a drawn key cannot have, and its place.
    pub fn read(&self) -> Result<Arrays> {
        let names = INPUTS.into_iter().filter(|name| self.shapes.contains_key(*name));
        let given: Arrays = names.map(|name| Ok((name.to_owned(), self.array(name)?))).collect::<Result<_>>()?;
        self.sizes.check_values(&given)?;
        Ok(given)
    }

    /// Adds the learned weights that the mechanism turned out to have, and says which tensors are not used.
    ///
    /// # Errors
    /// Names the first value that is not finite.
    pub fn read_weights<'a>(
        &self,
        wanted: impl Iterator<Item = &'a str>,
        config: &AttentionConfig,
        given: &mut Arrays,
    ) -> Result<()> {
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
    fn array(&self, name: &str) -> Result<Array> {
        let (shape, values) = self.file.numbers(name)?;
        let array = Array { shape, values };
        match array.not_finite() {
            None => Ok(array),
            Some((value, place)) => Err(bad(format!(
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

fn check_grids(sizes: &Sizes, setting: &Setting) -> Result<()> {
    let (prefix, queries, keys) = (setting.prefix, sizes.queries, sizes.keys);
    if prefix >= queries || prefix >= keys {
        return Err(bad(format!(
            "--prefix is {prefix} but there are {queries} queries and {keys} keys; a token must be left behind the prefix"
        )));
    }
    let mut grids = vec![("--grid", setting.grid, "queries", queries)];
    grids.extend(setting.key_grid.map(|grid| ("--key-grid", grid, "keys", keys)));
    for (option, grid, what, tokens) in grids {
        let Some(cells) = cells(grid) else { continue };
        if cells + prefix != tokens {
            let behind = if prefix > 0 { format!(" with --prefix {prefix}") } else { String::new() };
            return Err(bad(format!(
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

/// Whether every value that came out is finite, given what went in.
///
/// # Errors
/// Names the first that is not. Bad input if a tensor of the input has values that large.
pub fn refuse_not_finite(results: &[(String, Array)], given: &Arrays) -> Result<()> {
    let first = |(name, array): &(String, Array)| Some((name.clone(), array.not_finite()?));
    let Some((name, (value, place))) = results.iter().find_map(first) else { return Ok(()) };
    let came = format!("{name} came out as {value} at {place:?} and nothing was written");
    let largest = |array: &Array| array.values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let (most, from) = given
        .iter()
        .map(|(name, array)| (largest(array), name))
        .fold((0.0, ""), |all, (most, name)| if most > all.0 { (most, name.as_str()) } else { all });
    if most > SAFE {
        return Err(bad(format!("{came}: {from} has values up to {most:e}; bring them below {SAFE:e}")));
    }
    Err(Error::Failed(format!("{came}, though no input is larger than {most:e}: this is a bug in lara")))
}

/// `14x14` (rows and columns) or `8x14x14` (frames, rows and columns).
///
/// # Errors
/// Says what to write, or how many cells a grid may have.
pub fn parse_grid(text: &str) -> Result<Grid> {
    let sides: Option<Vec<usize>> = text.split(['x', 'X']).map(|side| side.trim().parse().ok()).collect();
    let product = |sides: &[usize]| sides.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
    match sides.as_deref() {
        Some(sides) if sides.contains(&0) || product(sides).is_none_or(|cells| cells > MOST_CELLS) => {
            Err(bad(format!("a grid has between 1 and {MOST_CELLS} cells")))
        }
        Some(&[rows, columns]) => Ok(Grid::Plane([rows, columns])),
        Some(&[frames, rows, columns]) => Ok(Grid::Volume([frames, rows, columns])),
        _ => Err(bad("write ROWSxCOLUMNS, such as 14x14, or FRAMESxROWSxCOLUMNS, such as 8x14x14".to_owned())),
    }
}

fn bad(sentence: String) -> Error {
    Error::BadInput(sentence)
}
