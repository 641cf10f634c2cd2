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
/// Of a panel, all but the labels.
const REST_WIDTH: usize = 370;
const MIN_LABEL_WIDTH: usize = 90;
/// Of a letter on average, in any of the fonts that a page may choose: rather too much than too little.
const LETTER_WIDTH: usize = 8;
const LABEL_GAP: usize = 8;
const BAR_WIDTH: f64 = 300.0;
const BAR_HEIGHT: usize = 16;
const ROW_HEIGHT: usize = 24;
const TITLE_HEIGHT: usize = 30;
const MARGIN: usize = 12;

/// Draws columns of panels, side by side.
pub(crate) fn svg(columns: &[Vec<Panel>]) -> String {
    let height_of = |panels: &Vec<Panel>| panels.iter().map(height).sum::<usize>();
    let height = columns.iter().map(height_of).max().unwrap_or(0) + MARGIN;
    let label_width = label_width(columns);
    let panel_width = label_width + REST_WIDTH;
    let width = columns.len() * panel_width;
    picture(width, height, |svg| {
        for (index, column) in columns.iter().enumerate() {
            let mut top = 0;
            for panel in column {
                draw(svg, panel, label_width, index * panel_width + MARGIN, top);
                top += self::height(panel);
            }
        }
    })
}

/// The longest label is whole; all bars begin below each other.
fn label_width(columns: &[Vec<Panel>]) -> usize {
    let labels = columns.iter().flatten().flat_map(|panel| &panel.bars).map(|bar| bar.label.chars().count());
    MIN_LABEL_WIDTH.max(labels.max().unwrap_or(0) * LETTER_WIDTH + LABEL_GAP)
}

fn height(panel: &Panel) -> usize {
    MARGIN + TITLE_HEIGHT + panel.bars.len() * ROW_HEIGHT
}

fn draw(svg: &mut String, panel: &Panel, label_width: usize, left: usize, top: usize) {
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
            left + label_width - LABEL_GAP
        );
        let colour = if bar.is_ours { "ours" } else { "other" };
        let start = (left + label_width) as f64;
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
    fn a_long_label_moves_the_bars_and_not_itself_out_of_the_picture() {
        let mut long = panel("t", [4.0, 1.0]);
        long.bars[1].label = "loader, 4 rows nowhere".into();
        let svg = svg(&[vec![long], vec![panel("u", [1.0, 0.0])]]);
        let end = 22 * LETTER_WIDTH + MARGIN;
        assert!(svg.contains(&format!("x=\"{end}\" y=\"78\">loader, 4 rows nowhere")), "{svg}");
        assert!(svg.contains(&format!("width=\"{}\"", 2 * (end - MARGIN + LABEL_GAP + REST_WIDTH))), "{svg}");
    }

    #[test]
    fn nothing_is_no_error() {
        assert!(svg(&[]).ends_with("</svg>\n"));
        assert!(!svg(&[vec![panel("zero", [0.0, 0.0])]]).contains("NaN"));
    }
}
