use lara_runtime::ops::{Channels, Linear, Unfold, Windows};
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

/// A grid of cells and what slides over it.
#[derive(Clone, Copy, Debug)]
struct Layout {
    batch: usize,
    channels: usize,
    grid: [usize; 3],
    windows: Windows,
    last: bool,
}

impl Layout {
    fn plane(batch: usize, channels: usize, grid: [usize; 2], windows: Windows) -> Self {
        Layout { batch, channels, grid: [1, grid[0], grid[1]], windows, last: true }
    }

    fn op(&self) -> Unfold {
        let channels = if self.last { Channels::Last(self.grid) } else { Channels::First };
        Unfold { windows: self.windows, channels }
    }

    fn cells(&self) -> usize {
        self.grid.iter().product()
    }

    fn len(&self) -> usize {
        self.batch * self.channels * self.cells()
    }

    fn shape(&self) -> Vec<usize> {
        let [frames, height, width] = self.grid;
        match (self.last, frames) {
            (true, _) => vec![self.batch, self.cells(), self.channels],
            (false, 1) => vec![self.batch, self.channels, height, width],
            (false, _) => vec![self.batch, self.channels, frames, height, width],
        }
    }

    /// Where a cell lies along each side, if it is not padding: window + place - padding.
    fn cell(&self, window: [usize; 3], place: [usize; 3]) -> Option<usize> {
        let mut cell = 0;
        for side in 0..3 {
            let at =
                (window[side] * self.windows.stride[side] + place[side]).checked_sub(self.windows.padding[side])?;
            if at >= self.grid[side] {
                return None;
            }
            cell = cell * self.grid[side] + at;
        }
        Some(cell)
    }

    fn element(&self, b: usize, cell: usize, c: usize) -> usize {
        if self.last {
            (b * self.cells() + cell) * self.channels + c
        } else {
            (b * self.channels + c) * self.cells() + cell
        }
    }
}

/// All places of a grid, the last side fastest.
fn places(sides: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [frames, rows, columns] = sides;
    (0..frames).flat_map(move |f| (0..rows).flat_map(move |r| (0..columns).map(move |c| [f, r, c])))
}

impl Reference for Layout {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let mut y = Vec::new();
        for b in 0..self.batch {
            for window in places(self.windows.count(self.grid)) {
                for c in 0..self.channels {
                    for place in places(self.windows.kernel) {
                        let cell = self.cell(window, place);
                        y.push(cell.map_or(R::of(0.0), |cell| x[0][self.element(b, cell, c)]));
                    }
                }
            }
        }
        vec![y]
    }
}

/// Windows that overlap, that touch, that leave cells out, that see padding only; sides that differ everywhere.
fn layouts() -> Vec<Layout> {
    let square = Windows::square;
    let oblong = Windows { kernel: [1, 3, 2], stride: [1, 1, 3], padding: [0, 2, 0] };
    let planes = [
        Layout::plane(1, 1, [1, 1], square(1, 1, 0)),
        Layout::plane(2, 3, [14, 18], square(7, 4, 3)),
        Layout::plane(2, 5, [7, 9], square(3, 2, 1)),
        Layout::plane(1, 65, [6, 5], square(3, 1, 1)),
        Layout::plane(3, 2, [8, 12], square(4, 4, 0)),
        Layout::plane(1, 4, [11, 10], square(2, 5, 0)),
        Layout::plane(2, 1, [2, 3], square(5, 1, 2)),
        Layout::plane(1, 3, [1, 2], square(1, 1, 2)),
        Layout::plane(2, 7, [5, 8], oblong),
    ];
    let clip = |channels, windows| Layout { batch: 2, channels, grid: [4, 5, 6], windows, last: true };
    let tubes = Windows { kernel: [2, 4, 3], stride: [2, 4, 3], padding: [0; 3] };
    let overlapping = Windows { kernel: [3, 2, 3], stride: [1, 2, 2], padding: [1, 0, 1] };
    let channels_last = planes.into_iter().chain([clip(3, tubes), clip(2, overlapping)]);
    channels_last.flat_map(|layout| [layout, Layout { last: false, ..layout }]).collect()
}

#[test]
fn rows_are_windows_and_their_gradient_goes_back() {
    for layout in layouts() {
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(layout.op(), x)];
        let case = Case::new(format!("{layout:?}"), &build).variable(&layout.shape()[..], random(1, layout.len()));
        check(&case.tolerance(1e-6), &layout, &[&[]]);
    }
}

/// A convolution written as its definition: sums over channels and places, with PyTorch's weight.
struct Convolution {
    layout: Layout,
    outputs: usize,
}

impl Reference for Convolution {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let Convolution { layout, outputs } = *self;
        let kernel: usize = layout.windows.kernel.iter().product();
        let mut y = Vec::new();
        for b in 0..layout.batch {
            for window in places(layout.windows.count(layout.grid)) {
                for out in 0..outputs {
                    let mut sum = x[2][out];
                    for c in 0..layout.channels {
                        for (tap, place) in places(layout.windows.kernel).enumerate() {
                            let weight = x[1][(out * layout.channels + c) * kernel + tap];
                            if let Some(cell) = layout.cell(window, place) {
                                sum += weight * x[0][layout.element(b, cell, c)];
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
        vec![y]
    }
}

#[test]
fn a_linear_layer_of_windows_is_a_convolution() {
    for layout in layouts().into_iter().filter(|layout| layout.len() > 1) {
        let outputs = 6;
        let kernel = layout.windows.kernel;
        let row = layout.channels * kernel.iter().product::<usize>();
        let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
            let rows = tape.apply(layout.op(), &x[..1]);
            vec![tape.apply(Linear, &[rows, x[1].reshape([outputs, row]), x[2]])]
        };
        let weight = [outputs, layout.channels, kernel[0], kernel[1], kernel[2]];
        let case = Case::new(format!("convolution {layout:?}"), &build)
            .variable(&layout.shape()[..], random(1, layout.len()))
            .variable(weight, random(2, outputs * row))
            .variable([outputs], random(3, outputs));
        check(&case, &Convolution { layout, outputs }, &[&["tiles"], &["rows"]]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let tokens = Channels::Last([1, 4, 5]);
    let mut parameters = Parameters::new(adapter());
    for (channels, windows, shape, said) in [
        (
            Channels::First,
            Windows::square(3, 1, 1),
            vec![2, 4, 5],
            "unfold takes [batch, channels, (frames,) height, width], not [2, 4, 5]",
        ),
        (
            tokens,
            Windows::square(3, 1, 1),
            vec![2, 21, 3],
            "unfold takes [batch, 20, channels], tokens on 1 x 4 x 5, not [2, 21, 3]",
        ),
        (
            tokens,
            Windows::square(7, 1, 1),
            vec![2, 20, 3],
            "no window of [1, 7, 7] with stride [1, 1, 1] and padding [0, 1, 1] fits a grid of [1, 4, 5]",
        ),
        (
            tokens,
            Windows::square(3, 0, 1),
            vec![2, 20, 3],
            "no window of [1, 3, 3] with stride [1, 0, 0] and padding [0, 1, 1] fits a grid of [1, 4, 5]",
        ),
        (
            tokens,
            Windows::square(0, 1, 0),
            vec![2, 20, 3],
            "no window of [1, 0, 0] with stride [1, 1, 1] and padding [0, 0, 0] fits a grid of [1, 4, 5]",
        ),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = tape.input("x", &shape[..]);
        tape.apply(Unfold { windows, channels }, &[x]);
        let error = tape.finish().expect_err("this must be refused");
        assert_eq!(error.to_string(), said);
    }
}

/// Sizes that no buffer holds are refused by the recording, whatever their product is.
#[test]
fn refuses_what_no_buffer_holds() {
    let mut parameters = Parameters::new(adapter());
    for padding in [1 << 20, 1 << 31, usize::MAX / 2] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = tape.input("x", [1, 16, 3]);
        tape.apply(Unfold { windows: Windows::square(3, 1, padding), channels: Channels::Last([1, 4, 4]) }, &[x]);
        let said = tape.finish().expect_err("this must be refused").to_string();
        assert!(said.contains("GiB") || said.contains("is longer than 4294967295"), "{said}");
    }
}
