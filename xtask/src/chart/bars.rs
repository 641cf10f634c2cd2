//! Bars, one below the other.

use std::fmt::Write as _;

use super::{escaped, picture, value};

/// A bar, of up to two parts one after the other.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) parts: [f64; 2],
    /// Whether it stands out.
    pub(crate) is_ours: bool,
}

/// Bars of one unit, one below the other.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// In pixels.
const PANEL_WIDTH: usize = 460;
const LABEL_WIDTH: usize = 90;
const BAR_WIDTH: f64 = 300.0;
const BAR_HEIGHT: usize = 16;
const ROW_HEIGHT: usize = 24;
const TITLE_HEIGHT: usize = 30;
const MARGIN: usize = 12;

/// Draws columns of panels, side by side.
pub(crate) fn svg(columns: &[Vec<Panel>]) -> String {
    let height_of = |panels: &Vec<Panel>| panels.iter().map(height).sum::<usize>();
    let height = columns.iter().map(height_of).max().unwrap_or(0) + MARGIN;
    let width = columns.len() * PANEL_WIDTH;
    picture(width, height, |svg| {
        for (index, column) in columns.iter().enumerate() {
            let mut top = 0;
            for panel in column {
                draw(svg, panel, index * PANEL_WIDTH + MARGIN, top);
                top += self::height(panel);
            }
        }
    })
}

fn height(panel: &Panel) -> usize {
    MARGIN + TITLE_HEIGHT + panel.bars.len() * ROW_HEIGHT
}

fn draw(svg: &mut String, panel: &Panel, left: usize, top: usize) {
    let top = top + MARGIN;
    let title = escaped(&panel.title);
    let _ = writeln!(svg, "<text class=\"title\" x=\"{left}\" y=\"{}\">{title}</text>", top + BAR_HEIGHT);
    let total = |bar: &Bar| bar.parts[0] + bar.parts[1];
    let longest = panel.bars.iter().map(total).fold(f64::MIN_POSITIVE, f64::max);
    for (index, bar) in panel.bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT + index * ROW_HEIGHT;
        let text_y = y + BAR_HEIGHT - 4;
        let label = escaped(&bar.label);
        let _ = writeln!(
            svg,
            "<text class=\"end\" x=\"{}\" y=\"{text_y}\">{label}</text>",
            left + LABEL_WIDTH - 8
        );
        let colour = if bar.is_ours { "ours" } else { "other" };
        let start = (left + LABEL_WIDTH) as f64;
        let [first, second] = bar.parts.map(|part| part / longest * BAR_WIDTH);
        for (class, x, width) in [("", start, first), (" second", start + first, second)] {
            let _ = writeln!(
                svg,
                "<rect class=\"{colour}{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>"
            );
        }
        let end = start + first + second + 6.0;
        let _ = writeln!(svg, "<text x=\"{end:.1}\" y=\"{text_y}\">{}</text>", value(total(bar)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(title: &str, parts: [f64; 2]) -> Panel {
        let bar = |label: &str, parts, is_ours| Bar { label: label.into(), parts, is_ours };
        Panel { title: title.into(), bars: vec![bar("loader", parts, true), bar("other", [8.0, 2.0], false)] }
    }

    #[test]
    fn the_longest_bar_has_the_whole_width() {
        let svg = svg(&[vec![panel("a < b", [4.0, 1.0])]]);
        assert!(svg.contains("a &lt; b"), "{svg}");
        assert!(svg.contains("class=\"ours\" x=\"102.0\" y=\"42\" width=\"120.0\""), "{svg}");
        assert!(svg.contains("class=\"other second\" x=\"342.0\" y=\"66\" width=\"60.0\""), "{svg}");
        assert!(svg.contains(">5.00</text>") && svg.contains(">10.0</text>"), "{svg}");
    }

    #[test]
    fn nothing_is_no_error() {
        assert!(svg(&[]).ends_with("</svg>\n"));
        assert!(!svg(&[vec![panel("zero", [0.0, 0.0])]]).contains("NaN"));
    }
}
