use std::cell::RefCell;
use std::collections::BTreeMap;

use lara_runtime::ops::{Gelu, Layout, Product};
use lara_runtime::{Error, Op, Recorder, Tune, Variant};
use lara_tests::adapter;

/// Three variants; what they cost here is made up.
const FAST: Variant = Variant::TILES;
const MIDDLE: Variant = Variant::ROWS;
const SLOW: Variant = Variant::LANES;

/// A variant that is taken if it is measured against another one, since that does not compile: no clock decides.
fn work(rec: &mut Recorder, works: bool) {
    let x = rec.pinned("x", [256]);
    if !works {
        return rec.fail(Error::Shape("this variant does not fit".into()));
    }
    let y = Gelu.forward(rec, &[x]).y[0];
    rec.pin(y);
}

/// What is chosen if only `works` can be measured, and how often something was recorded to be measured.
fn choose(tune: &Tune, key: &str, candidates: &[Variant], works: Variant) -> (Variant, usize) {
    let measured = RefCell::new(0);
    let chosen = tune.choose(key, candidates, &|rec, variant| {
        *measured.borrow_mut() += 1;
        work(rec, variant == works);
    });
    (chosen, measured.into_inner())
}

#[test]
fn a_choice_holds_among_its_candidates_only_and_is_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let tune = Tune::measured_in(adapter(), Some(folder.path()));
    assert_eq!(choose(&tune, "product", &[MIDDLE, FAST], FAST), (FAST, 2));
    assert_eq!(choose(&tune, "product", &[SLOW, MIDDLE], MIDDLE), (MIDDLE, 2));
    // The second choice left the first one alone, here and for the next program.
    for tune in [tune, Tune::measured_in(adapter(), Some(folder.path()))] {
        assert_eq!(choose(&tune, "product", &[MIDDLE, FAST], FAST), (FAST, 0));
        assert_eq!(choose(&tune, "product", &[SLOW, MIDDLE], MIDDLE), (MIDDLE, 0));
    }
}

#[test]
fn what_another_program_has_learnt_meanwhile_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Tune::measured_in(adapter(), Some(folder.path()));
    let [first, second] = [open(), open()];
    assert_eq!(choose(&first, "product", &[SLOW, FAST], FAST), (FAST, 2));
    // The other one has not seen that answer, and comes to the opposite one.
    let reversed = |rec: &mut Recorder, variant| work(rec, variant == SLOW);
    assert_eq!(second.choose("product", &[SLOW, FAST], &reversed), SLOW);
    assert_eq!(choose(&open(), "product", &[SLOW, FAST], FAST), (FAST, 0));
}

#[test]
fn choices_of_older_runs_are_honoured_after_those_with_candidates() {
    let tune = Tune::measured_in(adapter(), None);
    let adopt = |key: &str, choice: &str| tune.adopt(BTreeMap::from([(key.to_owned(), choice.to_owned())]));
    adopt("product", SLOW.name());
    assert_eq!(choose(&tune, "product", &[SLOW, FAST], FAST), (SLOW, 0));
    adopt(&format!("product [{SLOW} {FAST}]"), FAST.name());
    assert_eq!(choose(&tune, "product", &[SLOW, FAST], FAST), (FAST, 0));
    // A choice that is no candidate any more is none.
    adopt("sum", "gone");
    assert_eq!(choose(&tune, "sum", &[MIDDLE, FAST], FAST), (FAST, 2));
    assert_eq!(tune.choices()["sum"], "gone", "what a run was resumed with stays with it");
}

/// Sizes that round to the same, but whose tiles are few enough for split sums only in the first: fc1 and qkv of a model
/// 600 wide, in small.
#[test]
fn products_with_one_rounded_size_and_other_candidates_have_choices_of_their_own() {
    let tune = Tune::measured_in(adapter(), None);
    let record = |m: usize| {
        let mut rec = Recorder::new(tune.clone());
        let product = Product { layout: Layout::Tn, batch: 80, m, n: 4, k: 1028, scale: 1.0, accumulate: false };
        let [a, b, c] = [m * 1028, 1028 * 4, m * 4].map(|len| rec.scratch("x", [80, len]));
        product.record(&mut rec, a, b, None, c);
        rec.to_string()
    };
    let [few, many] = [132, 200].map(record);
    assert_eq!([few, many], [132, 200].map(record), "a choice was overwritten");
    let choices = tune.choices();
    assert_eq!(choices.keys().filter(|key| key.contains("tiles_split")).count(), 1, "{choices:?}");
    assert_eq!(choices.len(), 2, "{choices:?}");
}
