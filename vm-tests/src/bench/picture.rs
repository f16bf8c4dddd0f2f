//! What came out, as a picture (SVG): bars for IOPS with their spread, the processor time beside them.

use super::report::{Report, Row};
use std::fmt::{self, Write};

const WIDTH: f64 = 900.0;
/// Where bars begin.
const LEFT: f64 = 230.0;
/// The longest bar.
const BAR: f64 = 420.0;
const LINE: f64 = 20.0;
/// Above each group of bars, for its name.
const TITLE: f64 = 34.0;

/// The report as an SVG document. Colours are legible on light and on dark pages.
pub fn svg(report: &Report) -> String {
    let shown = |row: &Row| row.entries.iter().filter(|entry| entry.spread(|s| s.iops).is_some()).count();
    let height: f64 = report.rows.iter().map(|row| TITLE + LINE * shown(row) as f64).sum::<f64>() + 20.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut y = 0.0;
    for row in report.rows.iter().filter(|row| shown(row) > 0) {
        // Writing to a String does not fail.
        group(&mut text, row, y).unwrap_or_default();
        y += TITLE + LINE * shown(row) as f64;
    }
    text.push_str("</svg>\n");
    text
}

fn group(text: &mut String, row: &Row, top: f64) -> fmt::Result {
    let entries: Vec<_> =
        row.entries.iter().filter_map(|e| Some((e, e.spread(|s| s.iops)?, e.spread(|s| s.cpu)?))).collect();
    let most = entries.iter().map(|(_, iops, _)| iops.max).fold(1.0, f64::max);
    writeln!(
        text,
        "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>",
        top + 24.0,
        escape(&row.workload.to_string())
    )?;
    for (index, (entry, iops, cpu)) in entries.iter().enumerate() {
        let y = top + TITLE + LINE * index as f64;
        let x = |value: f64| LEFT + value / most * BAR;
        let colour = if entry.name.starts_with("vstgt") {
            "#1f6fb2"
        } else if entry.name.starts_with("fio") {
            "#a0a0a0"
        } else {
            "#d08a3a"
        };
        let mark = if row.limited(entry, iops.median) { "†" } else { "" };
        let (middle, baseline) = (y + 7.0, y + 11.5);
        writeln!(
            text,
            "<text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(&entry.name)
        )?;
        writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>",
            x(iops.median) - LEFT
        )?;
        writeln!(
            text,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#202020\"/>",
            x(iops.min),
            x(iops.max)
        )?;
        writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{baseline}\">{:.0} k{mark} IOPS, {:.2} µs CPU</text>",
            x(iops.max) + 8.0,
            iops.median / 1e3,
            cpu.median
        )?;
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn a_bar_for_everyone_who_ran() {
        let text = svg(&example());
        assert_eq!(text.matches("<rect x=").count(), 2);
        assert!(text.contains("a &amp; b") && !text.contains("gone"), "{text}");
        assert_eq!(text.matches("<text ").count(), text.matches("</text>").count(), "every text ends");
    }
}
