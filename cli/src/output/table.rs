//! Tables of text, with columns as wide as their cells.

use super::{Colour, Terminal};

/// A table. The last column takes the rest of the line.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns the lines, cut at the width of the terminal. `colour` selects the colour of the
    /// first cell of a row.
    pub(crate) fn render(
        &self,
        terminal: Terminal,
        colour: impl Fn(&str) -> Option<Colour>,
    ) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                let mut line = String::new();
                for (cell, width) in row.iter().zip(&widths) {
                    line.push_str(&format!("{cell:width$}   "));
                }
                let line = cut(line.trim_end(), terminal.width);
                // Coloured after the cut, which counts characters.
                match row.first().and_then(|first| Some((first, colour(first)?))) {
                    Some((first, colour)) if line.starts_with(first.as_str()) => {
                        line.replacen(first.as_str(), &terminal.paint(first, colour), 1)
                    }
                    _ => line,
                }
            })
            .collect();
        lines.join("\n")
    }
}

/// Cuts a line, with `…` as its last character.
fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let head: String = line.chars().take(width.saturating_sub(1)).collect();
            format!("{head}…")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_at_the_width() {
        let mut table = Table::default();
        table.add([
            "HELD".to_owned(),
            "pid 4711".to_owned(),
            "billing".to_owned(),
        ]);
        table.add(["WAITING".to_owned(), "pid 1".to_owned(), String::new()]);
        let plain = Terminal {
            has_colour: false,
            width: None,
            lines: None,
        };
        assert_eq!(
            table.render(plain, |_| None),
            "HELD      pid 4711   billing\nWAITING   pid 1"
        );
        let narrow = Terminal {
            has_colour: true,
            width: Some(12),
            lines: Some(24),
        };
        assert_eq!(
            table.render(narrow, |cell| (cell == "HELD").then_some(Colour::Green)),
            "\u{1b}[32mHELD\u{1b}[0m      p…\nWAITING   p…"
        );
    }
}
