//! The figures: a table for people, a file for README.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// One number, of one contender in one part.
pub(crate) struct Figure {
    pub(crate) part: String,
    pub(crate) who: String,
    pub(crate) what: &'static str,
    pub(crate) value: f64,
}

#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, part: &str, who: &str, what: &'static str, value: f64) {
        self.0.push(Figure {
            part: part.to_owned(),
            who: who.to_owned(),
            what,
            value,
        });
    }

    /// A figure that was measured in this run.
    pub(crate) fn value(&self, part: &str, who: &str, what: &str) -> Option<f64> {
        let mut figures = self.0.iter();
        figures
            .find(|figure| (&*figure.part, &*figure.who, figure.what) == (part, who, what))
            .map(|figure| figure.value)
    }

    /// The contenders of a part, in the order in which they were measured.
    pub(crate) fn contenders(&self, part: &str) -> Vec<&str> {
        self.distinct(part, |figure| &figure.who)
    }

    fn distinct<'f>(&'f self, part: &str, of: impl Fn(&'f Figure) -> &'f str) -> Vec<&'f str> {
        let mut all = Vec::new();
        for figure in self.0.iter().filter(|figure| figure.part == part) {
            if !all.contains(&of(figure)) {
                all.push(of(figure));
            }
        }
        all
    }

    /// A table for each part: a row for each contender, a column for each thing that was measured.
    pub(crate) fn print(&self) {
        let mut parts: Vec<&str> = Vec::new();
        for figure in &self.0 {
            if !parts.contains(&&*figure.part) {
                parts.push(&figure.part);
            }
        }
        for part in parts {
            let columns = self.distinct(part, |figure| figure.what);
            print!("\n{part:<46}");
            columns.iter().for_each(|what| print!(" {what:>15}"));
            println!();
            for who in self.contenders(part) {
                print!("  {who:<44}");
                for what in &columns {
                    let value = self.value(part, who, what);
                    print!(" {:>15}", value.map(plain).unwrap_or_default());
                }
                println!();
            }
        }
    }

    /// Writes `lock-manager.csv`.
    pub(crate) fn write(&self) {
        let mut text = "part,contender,measure,value\n".to_owned();
        for figure in &self.0 {
            let Figure {
                part,
                who,
                what,
                value,
            } = figure;
            writeln!(text, "\"{part}\",\"{who}\",\"{what}\",{}", plain(*value)).unwrap();
        }
        fs::write(result("lock-manager.csv"), text).unwrap();
    }
}

/// Where a result goes.
pub(crate) fn result(file: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    fs::create_dir_all(&directory).unwrap();
    directory.join(file)
}

/// With three figures that count, or whole.
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

/// The value below which this part of all values lies.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    // No count of values is beyond what an f64 tells apart, and no part beyond the last.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index between none and all of them"
    )]
    let at = ((values.len() - 1) as f64 * part).round() as usize;
    values[at]
}
