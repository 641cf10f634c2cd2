//! Charts as SVG, for light pages and for dark ones.

pub(crate) mod bars;
pub(crate) mod lines;

/// Colours; the page behind shows through.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}\
.ours{fill:#0969da}.other{fill:#818b98}.second{opacity:.5}.axis{stroke:#818b98;fill:none}.grid{stroke:#818b98;opacity:.3}\
.line{fill:none;stroke-width:2}.l0{stroke:#0969da}.l1{stroke:#1a7f37}.l2{stroke:#bc4c00}.l3{stroke:#8250df}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.ours{fill:#4493f8}.other{fill:#9198a1}\
.l0{stroke:#4493f8}.l1{stroke:#3fb950}.l2{stroke:#db6d28}.l3{stroke:#a371f7}}";

/// A picture of so many pixels around what `draw` draws.
fn picture(width: usize, height: usize, draw: impl FnOnce(&mut String)) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{STYLE}</style>\n"
    );
    draw(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

/// Three digits that count.
fn value(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
