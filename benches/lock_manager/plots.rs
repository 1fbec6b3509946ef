//! The bar charts of README, written as SVG. They are legible on light and dark pages, because the
//! text uses the preferred colour of the page.

use std::fmt::Write;
use std::fs;

use crate::results::{Results, plain, result};
use crate::{hot_key, processes};

const WIDTH: u32 = 760;
const LABELS: u32 = 300;
/// The width that is left for bars, with space for a value after the longest bar.
const BARS: f64 = 260.0;
const LINE: u32 = 22;

const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .group { font-weight: 600 }
  .ours { fill: #1a7f5a } .other { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ours { fill: #3fb68b } .other { fill: #6e7681 }
  }";

struct Bar {
    label: String,
    value: f64,
    text: String,
    is_ours: bool,
}

/// Draws the charts of the sections that were measured.
pub(crate) fn draw(results: &Results) {
    let cycles = |part: &str, note: &dyn Fn(&str) -> String| {
        let bars = results.contenders(part).into_iter().map(|who| Bar {
            label: who.to_owned(),
            value: results.value(part, who, "cycles/s").unwrap(),
            text: note(who),
            is_ours: who.starts_with(hot_key::OURS),
        });
        (part.to_owned(), bars.collect::<Vec<_>>())
    };
    let hot = [8, 64, 1_000].map(|tasks| {
        let part = hot_key::part(tasks);
        let sessions = |who: &str| {
            let sessions = results.value(&part, who, "sessions").unwrap();
            format!(
                ", {} session{}",
                plain_count(sessions),
                if sessions > 1.0 { "s" } else { "" }
            )
        };
        cycles(&part, &sessions)
    });
    let title = "One lock that all tasks want: cycles a second";
    write("lock-manager-hot-key.svg", &bars(title, &hot));

    let fairness = |who: &str| {
        let jain = results.value(processes::PART, who, "Jain").unwrap();
        format!(", Jain's index {jain:.2}")
    };
    let title = "One lock that four processes want: cycles a second";
    write(
        "lock-manager-processes.svg",
        &bars(title, &[cycles(processes::PART, &fairness)]),
    );
}

fn plain_count(value: f64) -> String {
    format!("{value:.0}")
}

fn write(file: &str, svg: &str) {
    fs::write(result(file), svg).unwrap();
}

/// Draws groups of bars with one scale, which begins at zero.
fn bars(title: &str, groups: &[(String, Vec<Bar>)]) -> String {
    let most = groups
        .iter()
        .flat_map(|(_, bars)| bars.iter().map(|bar| bar.value))
        .fold(1.0, f64::max);
    let mut body = String::new();
    let mut y = 24;
    text(&mut body, "title", 8, y, title);
    for (heading, bars) in groups {
        y += LINE + 8;
        text(&mut body, "group", 8, y, heading);
        for bar in bars {
            y += LINE;
            let length = (bar.value / most * BARS).max(1.0);
            let class = if bar.is_ours { "ours" } else { "other" };
            text(&mut body, "", 20, y, &bar.label);
            let top = y - 12;
            writeln!(
                body,
                r#"<rect class="{class}" x="{LABELS}" y="{top}" width="{length:.1}" height="15" rx="2"/>"#
            )
            .unwrap();
            let value = format!("{}{}", thousands(bar.value), bar.text);
            writeln!(
                body,
                r#"<text x="{:.1}" y="{y}">{}</text>"#,
                f64::from(LABELS) + length + 6.0,
                escaped(&value)
            )
            .unwrap();
        }
    }
    let height = y + 16;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}\n</style>\n{body}</svg>\n",
        escaped(title)
    )
}

fn text(body: &mut String, class: &str, x: u32, y: u32, text: &str) {
    let text = escaped(text);
    writeln!(
        body,
        r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#
    )
    .unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Formats 12345.6 as 12,346.
fn thousands(value: f64) -> String {
    let digits = if value < 100.0 {
        plain(value)
    } else {
        format!("{value:.0}")
    };
    let (whole, rest) = digits.split_once('.').unwrap_or((&digits, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}
