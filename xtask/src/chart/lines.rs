//! Curves in one pair of axes.

use std::fmt::Write as _;

use super::{escaped, picture, value};

/// One curve; its points go to the right.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves that share their axes, which begin at zero.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) x_end: f64,
    pub(crate) y_end: f64,
    pub(crate) lines: Vec<Line>,
}

/// In pixels.
const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 310.0;
/// Marks on each axis.
const STEPS: u32 = 5;
/// As many as there are colours.
const COLOURS: usize = 4;

/// Draws the curves, and says which is which.
pub(crate) fn svg(plot: &Plot) -> String {
    picture(WIDTH, HEIGHT, |svg| {
        let x_of = |x: f64| LEFT + (x / plot.x_end).clamp(0.0, 1.0) * (RIGHT - LEFT);
        let y_of = |y: f64| BOTTOM - (y / plot.y_end).clamp(0.0, 1.0) * (BOTTOM - TOP);
        let text = |svg: &mut String, class: &str, x: f64, y: f64, text: &str| {
            let _ =
                writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text));
        };
        text(svg, "title", LEFT, 20.0, &plot.title);
        for step in 0..=STEPS {
            let part = f64::from(step) / f64::from(STEPS);
            let (x, y) = (x_of(part * plot.x_end), y_of(part * plot.y_end));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            text(svg, "mid", x, BOTTOM + 18.0, &value(part * plot.x_end));
            text(svg, "end", LEFT - 6.0, y + 4.0, &value(part * plot.y_end));
        }
        text(svg, "mid", f64::midpoint(LEFT, RIGHT), BOTTOM + 38.0, &plot.x_label);
        text(svg, "", 6.0, TOP - 8.0, &plot.y_label);
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
        for (index, line) in plot.lines.iter().enumerate() {
            let class = format!("line l{}", index % COLOURS);
            let mut path = String::new();
            for (at, (x, y)) in line.points.iter().enumerate() {
                let verb = if at == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x_of(*x), y_of(*y));
            }
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
            let y = TOP + 16.0 + 20.0 * index as f64;
            let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{:.1} {y:.1}h24\"/>", LEFT + 14.0);
            text(svg, "", LEFT + 44.0, y + 4.0, &line.label);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_the_axes() {
        let line = Line { label: "a < b".into(), points: vec![(0.0, 0.0), (1.0, 50.0), (9.0, 100.0)] };
        let plot = Plot {
            title: "t".into(),
            x_label: "x".into(),
            y_label: "y".into(),
            x_end: 2.0,
            y_end: 100.0,
            lines: vec![line],
        };
        let svg = svg(&plot);
        assert!(svg.contains("d=\"M60.0 310.0L340.0 175.0L620.0 40.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }
}
