//! Pictures for the page: bars and curves, as SVG that takes its colours from the page's style sheet.

use std::fmt::Write;

/// Width of a picture, in units that are about a pixel where it is shown; two of them side by side.
pub(super) const WIDE: f64 = 460.0;
/// The same for three side by side.
pub(super) const NARROW: f64 = 340.0;
/// Colours that the style sheet has.
const COLOURS: usize = 6;

/// The colour of a series.
pub(super) fn colour(series: usize) -> String {
    format!("var(--s{})", series % COLOURS)
}

/// Makes text harmless in HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A bar of one or two parts, the second one paler.
pub(super) struct Bar {
    pub name: String,
    /// Which colour.
    pub series: usize,
    pub parts: [f64; 2],
    /// What stands behind it.
    pub label: String,
}

/// Bars that lie, one for each series, their names above.
pub(super) fn bars(bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.parts.iter().sum()).fold(0.0, f64::max).max(1e-12);
    let (step, thick, room) = (46.0, 20.0, WIDE - label_room(bars));
    let height = step * bars.len() as f64;
    let mut svg = begin(WIDE, height);
    for (at, bar) in bars.iter().enumerate() {
        let top = step * at as f64;
        let name = escaped(&bar.name);
        text(&mut svg, 0.0, top + 12.0, "start", "", &name);
        let mut left = 0.0;
        for (part, value) in bar.parts.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let long = (value / most * room).max(2.0);
            let opacity = if part == 0 { 1.0 } else { 0.45 };
            // Writing to a string cannot fail, here and below.
            let _ = write!(
                svg,
                r#"<rect x="{left:.1}" y="{:.1}" width="{long:.1}" height="{thick}" rx="3" fill="{}" fill-opacity="{opacity}"><title>{name}: {}</title></rect>"#,
                top + 18.0,
                colour(bar.series),
                escaped(&bar.label)
            );
            left += long + 1.0;
        }
        text(&mut svg, left + 7.0, top + 18.0 + thick / 2.0 + 4.0, "start", "strong", &escaped(&bar.label));
    }
    svg + "</svg>"
}

/// Room for the longest label; a character is about seven units wide.
fn label_room(bars: &[Bar]) -> f64 {
    bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0) as f64 * 7.2 + 12.0
}

/// A curve.
pub(super) struct Curve {
    pub name: String,
    /// Which colour.
    pub series: usize,
    pub points: Vec<(f64, f64)>,
}

/// How the upright axis runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten.
    Logarithmic,
}

/// The upright axis: its ends, and where it has marks.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    marks: Vec<f64>,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            values.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        match scale {
            Scale::Linear => {
                let step = round_step(most.max(1e-9) / 4.0);
                let count = (most / step).ceil().max(1.0);
                let marks = (0..=count as u32).map(|at| f64::from(at) * step).collect();
                Self { scale, from: 0.0, to: count * step, marks }
            }
            Scale::Logarithmic => {
                let first = least.clamp(1e-3, 1e12).log10().floor();
                let last = most.clamp(1e-3, 1e12).log10().ceil().max(first + 1.0);
                let marks = (0..=(last - first) as i32).map(|at| 10_f64.powf(first + f64::from(at))).collect();
                Self { scale, from: first, to: last, marks }
            }
        }
    }

    /// Where a value stands, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Linear { value } else { value.max(1e-3).log10() };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// Without the digits that a round number does not need.
fn round(text: &str) -> String {
    text.replace(".00 ", " ").replace(".0 ", " ")
}

/// The next of 1, 2, 5, 10, 20 and so on.
pub(super) fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Curves over a level axis that runs from 0 to `to`, with these marks. Wide ones have dots.
pub(super) fn curves(
    curves: &[Curve],
    scale: Scale,
    to: f64,
    marks: &[(f64, String)],
    width: f64,
    write: impl Fn(f64) -> String,
) -> String {
    let (left, right, top, high, bottom) = (62.0, 14.0, 8.0, 190.0, 26.0);
    let (wide, dots) = (width - left - right, width == WIDE);
    let axis = Axis::new(scale, curves.iter().flat_map(|curve| &curve.points).map(|point| point.1));
    let x = |value: f64| left + (value / to.max(1e-9)).clamp(0.0, 1.0) * wide;
    let y = |value: f64| top + high * (1.0 - axis.at(value));
    let mut svg = begin(width, top + high + bottom);
    for mark in &axis.marks {
        let at = y(*mark);
        let _ = write!(svg, r#"<line class="grid" x1="{left}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#, width - right);
        text(&mut svg, left - 8.0, at + 4.0, "end", "", &escaped(&round(&write(*mark))));
    }
    let base = top + high;
    let _ = write!(svg, r#"<line class="axis" x1="{left}" x2="{}" y1="{base}" y2="{base}"/>"#, width - right);
    for (value, name) in marks {
        text(&mut svg, x(*value), base + 18.0, "middle", "", &escaped(name));
    }
    let opacity = if dots || curves.len() < 6 { 1.0 } else { 0.7 };
    for curve in curves {
        let stroke = colour(curve.series);
        let path: Vec<_> = curve.points.iter().map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            svg,
            r#"<path class="curve" d="M{}" stroke="{stroke}" stroke-opacity="{opacity}"><title>{}</title></path>"#,
            path.join("L"),
            escaped(&curve.name)
        );
        for (at, value) in curve.points.iter().filter(|_| dots) {
            let _ = write!(
                svg,
                r#"<circle cx="{:.1}" cy="{:.1}" r="4" fill="{stroke}"><title>{}: {}</title></circle>"#,
                x(*at),
                y(*value),
                escaped(&curve.name),
                escaped(&write(*value))
            );
        }
    }
    svg + "</svg>"
}

fn begin(width: f64, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {width} {height:.0}" role="img">"#)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (step, round) in [(0.9, 1.0), (1.0, 1.0), (1.2, 2.0), (23.0, 50.0), (700.0, 1000.0)] {
            assert!((round_step(step) - round).abs() < 1e-9, "{step}");
        }
    }

    #[test]
    fn axes_hold_their_values() {
        let axis = Axis::new(Scale::Logarithmic, [150.0, 20_000.0].into_iter());
        assert_eq!(axis.marks.len(), 4);
        assert!((axis.at(100.0)).abs() < 1e-9 && (axis.at(100_000.0) - 1.0).abs() < 1e-9);
        let axis = Axis::new(Scale::Linear, [3.0, 7.0].into_iter());
        assert!(axis.to >= 7.0 && axis.from == 0.0);
        // Nothing at all makes an axis, too.
        assert!(Axis::new(Scale::Linear, std::iter::empty()).to > 0.0);
    }
}
