use lara_runtime::ops::Patchify;
use lara_runtime::{Mode, Parameters, Tape};
use lara_tests::{Case, Real, Reference, adapter, check, random, tune};

struct Cut {
    image: [usize; 4],
    patch: usize,
}

impl Reference for Cut {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        let ([batch, channels, height, width], p) = (self.image, self.patch);
        let mut y = Vec::with_capacity(x[0].len());
        for b in 0..batch {
            for (top, left) in (0..height).step_by(p).flat_map(|t| (0..width).step_by(p).map(move |l| (t, l))) {
                for c in 0..channels {
                    for (row, column) in (0..p).flat_map(|r| (0..p).map(move |c| (r, c))) {
                        y.push(x[0][((b * channels + c) * height + top + row) * width + left + column]);
                    }
                }
            }
        }
        vec![y]
    }
}

#[test]
fn cuts_row_major() {
    for (image, patch) in [
        ([1, 1, 1, 1], 1),
        ([2, 3, 4, 6], 2),
        ([1, 2, 9, 3], 3),
        ([3, 1, 7, 7], 7),
        ([2, 3, 10, 5], 5),
        ([1, 1, 8, 8], 1),
        ([5, 3, 16, 8], 4),
    ] {
        let build = |tape: &mut Tape<'_>, x: &[lara_runtime::Tensor]| vec![tape.apply(Patchify { patch }, x)];
        let len = image.iter().product();
        let case = Case::new(format!("patchify {image:?} by {patch}"), &build).variable(image, random(1, len));
        check(&case.tolerance(1e-6), &Cut { image, patch }, &[&[]]);
    }
}

#[test]
fn refuses_what_does_not_divide() {
    let mut parameters = Parameters::new(adapter());
    for (patch, shape, said) in [
        (4, vec![1, 3, 10, 8], "a patch of 4 does not divide an image of 10x8"),
        (0, vec![1, 3, 10, 8], "a patch of 0 does not divide an image of 10x8"),
        (2, vec![3, 10, 8], "patchify takes [batch, channels, height, width], not [3, 10, 8]"),
    ] {
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let image = tape.input("image", &shape[..]);
        tape.apply(Patchify { patch }, &[image]);
        let error = tape.finish().expect_err("this must be refused");
        assert_eq!(error.to_string(), said);
    }
}
