//! The model and the drawings that come with the program.

use lara_explain::{DRAWINGS, bundled, bundled_digits};
use lara_models::data::picture;
use lara_models::top;
use lara_runtime::Tune;

use crate::gpu;

#[test]
fn the_bundled_model_knows_half_of_the_drawings_that_were_held_out() {
    let subject = bundled().expect("the bundled model is whole");
    let preprocess = subject.preprocess().expect("it takes pictures");
    assert_eq!((preprocess.shape.channels, subject.classes.len()), (3, 10), "colour, ten categories");
    let predictor =
        pollster::block_on(subject.predictor(gpu(), &Tune::fixed(&[]), DRAWINGS.len())).expect("it compiles");
    let images: Vec<f32> = DRAWINGS
        .iter()
        .flat_map(|drawing| {
            preprocess.apply(picture::from_bytes(drawing.name, drawing.png).expect("a PNG")).expect("RGB")
        })
        .collect();
    let logits = pollster::block_on(predictor.logits(&images)).expect("it runs");
    let guesses = logits.iter().map(|row| {
        let values: Vec<f64> = row.iter().copied().map(f64::from).collect();
        &*subject.classes[top(&values, 1)[0].0]
    });
    let right: Vec<&str> = DRAWINGS
        .iter()
        .zip(guesses)
        .filter(|(drawing, guess)| drawing.class == *guess)
        .map(|(drawing, _)| drawing.name)
        .collect();
    // Nine categories at about the same number: who always says the most frequent one has one right.
    assert!(right.len() >= 7, "{right:?}");
    assert_eq!(right[0], DRAWINGS[0].name, "the first that is seen is wrong");
    assert_eq!(bundled_digits().expect("the bundled model is whole").image_shape().channels, 1);
}

/// Whoever passes the drawings on has to pass this on, too.
#[test]
fn the_notice_names_every_drawing() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/pictures");
    let notice = std::fs::read_to_string(folder.join("NOTICE")).expect("a notice lies beside the drawings");
    assert!(["Noto Emoji", "Google", "Apache License", "changed"].iter().all(|word| notice.contains(word)));
    let files = std::fs::read_dir(&folder).expect("the folder is there").count();
    assert_eq!(files, DRAWINGS.len() + 1, "a drawing that is not bundled, or no notice");
    for drawing in DRAWINGS {
        assert!(notice.contains(&format!("{}: ", drawing.name)), "{} is not named", drawing.name);
        assert_eq!(
            picture::from_bytes(drawing.name, drawing.png).map(|p| (p.width(), p.height())).ok(),
            Some((64, 64))
        );
    }
}
