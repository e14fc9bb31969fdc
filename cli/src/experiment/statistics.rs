//! Means and how sure they are.

use serde::Serialize;

/// Mean of some numbers, their standard deviation and the standard error of the mean; both are absent for one number.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mean {
    pub(super) mean: f64,
    pub(super) deviation: Option<f64>,
    pub(super) standard_error: Option<f64>,
}

impl Mean {
    pub(super) fn of(values: &[f64]) -> Mean {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Mean { mean, deviation, standard_error: deviation.map(|d| d / count.sqrt()) }
    }

    /// A cell of a CSV file: the number, or nothing.
    pub(super) fn cell(value: Option<f64>) -> String {
        value.map_or_else(String::new, |x| format!("{x:e}"))
    }
}
