//! What the classes of ImageNet-1k are called: for models that were trained on it and carry no names.

/// One class a line, in the order of the labels; models/data/README.md says where they come from.
static NAMES: &str = include_str!("../data/imagenet1k.txt");

/// How many there are.
pub const CLASSES: usize = 1000;

/// Their names, in the order of the labels.
pub fn classes() -> Vec<String> {
    NAMES.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, classes};

    #[test]
    fn labels_have_their_names() {
        let names = classes();
        assert_eq!(names.len(), CLASSES);
        // Labels that everybody knows from papers and demos.
        for (label, name) in
            [(0, "tench"), (207, "golden retriever"), (281, "tabby"), (388, "giant panda"), (999, "toilet tissue")]
        {
            assert!(names[label].starts_with(name), "{label}: {}", names[label]);
        }
    }
}
