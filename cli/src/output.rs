//! Standard output: text that is safe on a terminal, tables, JSON.

pub(crate) mod json;
pub(crate) mod report;
pub(crate) mod table;

use std::env;
use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Replaces control characters, line separators and characters that change the direction of text. A
/// terminal interprets them, and the names of applications come from other programs.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if is_unsafe(c) { '\u{fffd}' } else { c })
        .collect()
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a text to standard output, and a newline.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// Writes bytes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Writes a line to standard error. Its reader may have gone, which must not end the program.
pub(crate) fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "advisory-lock: {text}");
}

/// Moves to the first line, and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Colour of a word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Green,
    Red,
    Yellow,
}

/// Capabilities of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    has_colour: bool,
    /// Number of columns. `None` if it is no terminal.
    pub(crate) width: Option<usize>,
    /// Number of lines of a screen that can be cleared. `None` if there is none.
    pub(crate) lines: Option<usize>,
}

impl Terminal {
    /// Reads the environment: [`NO_COLOR`](https://no-color.org), `CLICOLOR_FORCE` and `TERM`.
    pub(crate) fn detect() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let forced =
            env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let columns = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let columns = columns.filter(|columns| *columns > 0);
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let positive = |number: u16| Some(usize::from(number)).filter(|number| *number > 0);
        let width = || positive(size?.ws_col);
        let lines = || positive(size?.ws_row);
        Self {
            has_colour: !is_set("NO_COLOR") && (forced || (is_terminal && !is_dumb)),
            width: is_terminal.then(|| columns.or_else(width).unwrap_or(80)),
            lines: (is_terminal && !is_dumb).then(|| lines().unwrap_or(24)),
        }
    }

    /// Returns the text to replace the screen with. As many lines as fit: the terminal would show
    /// the end of a longer text, without the head of its table.
    pub(crate) fn screen(self, text: &str) -> String {
        let Some(lines) = self.lines else {
            return text.to_owned();
        };
        // The cursor is on the line after the text.
        let room = lines.saturating_sub(1);
        let number = text.lines().count();
        let mut shown: Vec<&str> = text.lines().take(room).collect();
        let more = format!("… {} more", number.saturating_sub(room).saturating_add(1));
        if let Some(last) = shown.last_mut().filter(|_| number > room) {
            *last = &more;
        }
        format!("{CLEAR}{}", shown.join("\n"))
    }

    /// Returns a terminal whose lines are not cut.
    pub(crate) const fn of_any_width(self) -> Self {
        Self {
            width: None,
            ..self
        }
    }

    /// Returns a word with the escape sequences of a colour, if standard output shows colours.
    pub(crate) fn paint(self, word: &str, colour: Colour) -> String {
        let number = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        if self.has_colour {
            format!("\u{1b}[{number}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_shows_the_first_lines() {
        let screen = |lines, text| {
            let terminal = Terminal {
                has_colour: false,
                width: None,
                lines,
            };
            terminal.screen(text)
        };
        assert_eq!(screen(None, "a\nb\nc"), "a\nb\nc");
        assert_eq!(screen(Some(4), "a\nb\nc"), "\x1b[H\x1b[2Ja\nb\nc");
        assert_eq!(screen(Some(3), "a\nb\nc"), "\x1b[H\x1b[2Ja\n… 2 more");
        assert_eq!(screen(Some(1), "a\nb"), "\x1b[H\x1b[2J");
    }

    #[test]
    fn terminal_escapes_are_replaced() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{9b}c\u{202e}d\n"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(printable("a\u{61c}b"), "a\u{fffd}b");
        assert_eq!(printable("Zürich – ok"), "Zürich – ok");
    }
}
