//! What is checked: an operation, its inputs and how it is run.

use lara_runtime::{Header, Mode, Shape, Tape, Tensor};

/// Records the operation under test from its inputs (without parameters) and returns its outputs.
pub type Build<'a> = &'a dyn Fn(&mut Tape<'_>, &[Tensor]) -> Vec<Tensor>;

/// What an input is to the tape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Its gradient is checked.
    Variable,
    /// It gets no gradient.
    Constant,
    /// A named parameter of the model; its gradient is checked.
    Parameter(String),
}

/// Shape, values and kind of an input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) shape: Shape,
    pub(crate) values: Vec<f64>,
    pub(crate) kind: Kind,
}

impl Input {
    pub(crate) fn has_gradient(&self) -> bool {
        self.kind != Kind::Constant
    }
}

/// What [`crate::check`] runs. The reference sees variables, constants and parameters in the order of their addition.
#[derive(Clone)]
pub struct Case<'a> {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) seeded: Option<Vec<usize>>,
    pub(crate) tolerance: f64,
    pub(crate) mode: Mode,
    pub(crate) header: Header,
    pub(crate) build: Build<'a>,
}

impl<'a> Case<'a> {
    /// A case without inputs yet, named in failures.
    pub fn new(name: impl Into<String>, build: Build<'a>) -> Self {
        Case {
            name: name.into(),
            inputs: Vec::new(),
            seeded: None,
            tolerance: 5e-6,
            mode: Mode::Differentiate,
            header: Header::default(),
            build,
        }
    }

    fn add(mut self, shape: Shape, values: Vec<f64>, kind: Kind) -> Self {
        assert_eq!(shape.len(), values.len(), "{}: {shape} does not hold the values", self.name);
        self.inputs.push(Input { shape, values, kind });
        self
    }

    /// An input whose gradient is checked.
    pub fn variable(self, shape: impl Into<Shape>, values: Vec<f64>) -> Self {
        self.add(shape.into(), values, Kind::Variable)
    }

    /// An input without gradient.
    pub fn constant(self, shape: impl Into<Shape>, values: Vec<f64>) -> Self {
        self.add(shape.into(), values, Kind::Constant)
    }

    /// The value of the parameter that the operation declares under this name; its gradient is checked.
    pub fn parameter(self, name: impl Into<String>, shape: impl Into<Shape>, values: Vec<f64>) -> Self {
        self.add(shape.into(), values, Kind::Parameter(name.into()))
    }

    /// Only these outputs receive a gradient; without this call all do.
    pub fn gradients_of(mut self, outputs: &[usize]) -> Self {
        self.seeded = Some(outputs.to_vec());
        self
    }

    /// Error allowed, relative to the largest value (5e-6 without this call).
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// What the recording is for ([`Mode::Differentiate`] without this call).
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The step header of the runs.
    pub fn header(mut self, header: Header) -> Self {
        self.header = header;
        self
    }

    /// Values of all inputs and parameters, as the reference sees them.
    pub fn values(&self) -> Vec<Vec<f64>> {
        self.inputs.iter().map(|input| input.values.clone()).collect()
    }

    /// Replaces the values of an input.
    pub fn set(&mut self, input: usize, values: Vec<f64>) {
        self.inputs[input].values = values;
    }

    /// The case for an operation that learns nothing.
    pub fn without_parameters(mut self) -> Self {
        self.inputs.retain(|input| !matches!(input.kind, Kind::Parameter(_)));
        self
    }

    pub(crate) fn has_gradients(&self) -> bool {
        self.mode != Mode::Eval && self.inputs.iter().any(Input::has_gradient)
    }

    pub(crate) fn is_seeded(&self, output: usize) -> bool {
        self.seeded.as_ref().is_none_or(|s| s.contains(&output))
    }
}
