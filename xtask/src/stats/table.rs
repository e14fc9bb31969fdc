//! The statistics as a table, as JSON lines, and as complaints.

use super::kernels::Kernel;

/// A kernel and what the driver says of it, by the driver's own names.
pub(crate) struct Row<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) statistics: Vec<(String, u64)>,
}

/// Heading of a column, and the name of RADV's statistic.
const COLUMNS: [(&str, &str); 11] = [
    ("VGPRs", "VGPRs"),
    ("SGPRs", "SGPRs"),
    ("spilled V", "Spilled VGPRs"),
    ("spilled S", "Spilled SGPRs"),
    ("scratch", "Scratch size"),
    ("LDS bytes", "LDS size"),
    ("subgroups/SIMD", "Subgroups per SIMD"),
    ("instructions", "Instructions"),
    ("code bytes", "Code size"),
    ("latency", "Latency"),
    ("1/throughput", "Inverse Throughput"),
];

impl Row<'_> {
    fn value(&self, name: &str) -> Option<u64> {
        self.statistics.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Why this kernel fails the check, if it does.
    pub(crate) fn complaint(&self) -> Option<String> {
        let [vector, scalar] = ["Spilled VGPRs", "Spilled SGPRs"].map(|name| self.value(name).unwrap_or(0));
        let spills = self.kernel.gpu_shaped() && vector + scalar > 0;
        spills.then(|| {
            format!("{} spills {vector} vector and {scalar} scalar registers: lower its tile", self.kernel.name())
        })
    }

    /// One line of JSON with every statistic, not just the table's.
    pub(crate) fn json(&self, family: &str) -> String {
        let mut object = serde_json::Map::new();
        object.insert("family".into(), family.into());
        object.insert("module".into(), self.kernel.module.into());
        object.insert("entry".into(), self.kernel.entry.as_str().into());
        object.insert("variant".into(), self.kernel.variant.as_str().into());
        object.insert("workgroup".into(), self.kernel.workgroup.to_vec().into());
        object.insert("gpu_shaped".into(), self.kernel.gpu_shaped().into());
        for (name, value) in &self.statistics {
            object.insert(name.to_ascii_lowercase().replace(' ', "_"), (*value).into());
        }
        serde_json::Value::Object(object).to_string()
    }
}

/// A line a kernel. What a driver does not report is a dash.
pub(crate) fn text(rows: &[Row<'_>]) -> String {
    let mut lines = vec![["kernel".to_owned(), "workgroup".to_owned()].to_vec()];
    lines[0].extend(COLUMNS.iter().map(|(heading, _)| (*heading).to_owned()));
    for row in rows {
        let [x, y, z] = row.kernel.workgroup;
        let values = COLUMNS.iter().map(|(_, name)| row.value(name).map_or("-".into(), |value| value.to_string()));
        lines.push([row.kernel.name(), format!("{x}x{y}x{z}")].into_iter().chain(values).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len() + 2).map(width).collect();
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    let line = |cells: &Vec<String>| cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}
