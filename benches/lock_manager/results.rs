//! The results: a table on the terminal, and a file for `docs/lock-manager.md`.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// A measured value of one contender in one section.
pub(crate) struct Measurement {
    pub(crate) part: String,
    pub(crate) contender: String,
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
}

#[derive(Default)]
pub(crate) struct Results(Vec<Measurement>);

impl Results {
    pub(crate) fn add(&mut self, part: &str, contender: &str, metric: &'static str, value: f64) {
        self.0.push(Measurement {
            part: part.to_owned(),
            contender: contender.to_owned(),
            metric,
            value,
        });
    }

    /// Returns a value that was measured in this run.
    pub(crate) fn value(&self, part: &str, contender: &str, metric: &str) -> Option<f64> {
        let mut results = self.0.iter();
        results
            .find(|measurement| {
                (
                    &*measurement.part,
                    &*measurement.contender,
                    measurement.metric,
                ) == (part, contender, metric)
            })
            .map(|measurement| measurement.value)
    }

    /// Returns the contenders of a section, in the order of measurement.
    pub(crate) fn contenders(&self, part: &str) -> Vec<&str> {
        self.distinct(part, |measurement| &measurement.contender)
    }

    fn distinct<'f>(&'f self, part: &str, of: impl Fn(&'f Measurement) -> &'f str) -> Vec<&'f str> {
        let mut all = Vec::new();
        for measurement in self.0.iter().filter(|measurement| measurement.part == part) {
            if !all.contains(&of(measurement)) {
                all.push(of(measurement));
            }
        }
        all
    }

    /// Prints a table for each section: a row for each contender, a column for each metric.
    pub(crate) fn print(&self) {
        let mut parts: Vec<&str> = Vec::new();
        for measurement in &self.0 {
            if !parts.contains(&&*measurement.part) {
                parts.push(&measurement.part);
            }
        }
        for part in parts {
            let columns = self.distinct(part, |measurement| measurement.metric);
            print!("\n{part:<46}");
            columns.iter().for_each(|metric| print!(" {metric:>15}"));
            println!();
            for contender in self.contenders(part) {
                print!("  {contender:<44}");
                for metric in &columns {
                    let value = self.value(part, contender, metric);
                    print!(" {:>15}", value.map(plain).unwrap_or_default());
                }
                println!();
            }
        }
    }

    /// Writes `lock-manager.csv`.
    pub(crate) fn write(&self) {
        let mut text = "part,contender,measure,value\n".to_owned();
        for measurement in &self.0 {
            let Measurement {
                part,
                contender,
                metric,
                value,
            } = measurement;
            writeln!(
                text,
                "\"{part}\",\"{contender}\",\"{metric}\",{}",
                plain(*value)
            )
            .unwrap();
        }
        fs::write(result("lock-manager.csv"), text).unwrap();
    }
}

/// Returns the path of a result file.
pub(crate) fn result(file: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    fs::create_dir_all(&directory).unwrap();
    directory.join(file)
}

/// Formats a value with three significant digits, or as an integer.
pub(crate) fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which this part of all values lies.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    // The count is small enough for an exact f64, and the part is at most 1.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index within the values"
    )]
    let at = ((values.len() - 1) as f64 * part).round() as usize;
    values[at]
}
