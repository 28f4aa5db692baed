//! Lines over logarithmic axes, as SVG.

use std::fmt::Write as _;

/// A plot.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// Above it.
    pub(crate) title: String,
    /// Below the horizontal axis.
    pub(crate) across: &'static str,
    /// Beside the vertical axis.
    pub(crate) up: &'static str,
    /// Labels of places on the horizontal axis.
    pub(crate) places: Vec<(f64, String)>,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Its place among the colours, the same in all plots.
    pub(crate) colour: usize,
    /// Dashes and gaps, where lines have one colour; empty = unbroken.
    pub(crate) dashes: &'static str,
    /// Its points; all figures are above zero.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 380.0;

/// Colours that people who see few of them tell apart too.
const COLOURS: [&str; 8] =
    ["#000000", "#999999", "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00"];

impl Plot {
    /// The whole document.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = Axis::over(self.places.iter().map(|place| place.0), LEFT, RIGHT);
        let up = Axis::over(points().map(|point| point.1), BOTTOM, TOP);
        text(&mut svg, (LEFT + RIGHT) / 2.0, 26.0, "middle", "font-size=\"16\"", &self.title);
        text(&mut svg, (LEFT + RIGHT) / 2.0, 425.0, "middle", "", self.across);
        let turned = format!("transform=\"rotate(-90 20 {})\"", (TOP + BOTTOM) / 2.0);
        text(&mut svg, 20.0, (TOP + BOTTOM) / 2.0, "middle", &turned, self.up);
        for (place, label) in &self.places {
            let x = across.at(*place);
            stroke(&mut svg, (x, TOP), (x, BOTTOM));
            text(&mut svg, x, BOTTOM + 18.0, "middle", "", label);
        }
        for figure in up.figures() {
            let y = up.at(figure);
            stroke(&mut svg, (LEFT, y), (RIGHT, y));
            text(&mut svg, LEFT - 8.0, y + 4.0, "end", "", &plain(figure));
        }
        for (number, line) in self.lines.iter().enumerate() {
            let at = |&(x, y): &(f64, f64)| (across.at(x), up.at(y));
            let points: Vec<(f64, f64)> = line.points.iter().map(at).collect();
            draw(&mut svg, number, line, &points);
        }
        svg + "</svg>\n"
    }
}

/// Figures onto pixels, by their logarithms.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(figures: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) = figures.fold((f64::INFINITY, 0.0_f64), |(least, most), figure| {
            (least.min(figure), most.max(figure))
        });
        // A little room at both ends.
        Self { least: least / 1.15, most: most * 1.15, from, to }
    }

    fn at(&self, figure: f64) -> f64 {
        let share = (figure / self.least).ln() / (self.most / self.least).ln();
        self.from + share * (self.to - self.from)
    }

    /// 1, 2 and 5 of each power of ten, or the powers alone where there are many.
    fn figures(&self) -> Vec<f64> {
        let powers = || (-6..12).map(|power| 10_f64.powi(power));
        let is_here = |figure: &f64| (self.least..=self.most).contains(figure);
        let all: Vec<f64> =
            powers().flat_map(|power| [power, 2.0 * power, 5.0 * power]).filter(is_here).collect();
        if all.len() <= 10 { all } else { powers().filter(is_here).collect() }
    }
}

fn plain(figure: f64) -> String {
    let digits = if figure < 1.0 { 2 } else { 0 };
    let text = format!("{figure:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').to_owned() } else { text }
}

fn stroke(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>"
    );
}

/// The line, its points, and its name in the legend.
fn draw(svg: &mut String, number: usize, line: &Line, points: &[(f64, f64)]) {
    let colour = COLOURS[line.colour % COLOURS.len()];
    let dashes = match line.dashes {
        "" => String::new(),
        dashes => format!("stroke-dasharray=\"{dashes}\""),
    };
    let y = TOP + 16.0 + 24.0 * number as f64;
    let legend = [(RIGHT + 14.0, y), (RIGHT + 50.0, y)];
    for points in [points, &legend] {
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" {dashes}/>",
            path.join(" ")
        );
    }
    for (x, y) in points.iter().copied().chain([(RIGHT + 32.0, y)]) {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
    text(svg, RIGHT + 58.0, y + 4.0, "start", "", &line.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_the_frame_and_named() {
        let line = |name: &str, factor: f64| Line {
            name: name.to_owned(),
            colour: 9,
            dashes: "6 4",
            points: vec![(1.0, factor), (16.0, 1_000.0 * factor)],
        };
        let plot = Plot {
            title: "a < b".to_owned(),
            across: "size",
            up: "time",
            places: vec![(1.0, "1 B".to_owned()), (16.0, "16 B".to_owned())],
            lines: vec![line("one", 2.0), line("two & three", 7.0)],
        };
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("two &amp; three"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 4, "two lines, and the legend's\n{svg}");
        assert_eq!(svg.matches("<circle").count(), 6, "{svg}");
        for points in svg.split("points=\"").skip(1) {
            let points = points.split('"').next().unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..WIDTH).contains(&x) && (TOP..=BOTTOM).contains(&y), "{point}");
            }
        }
        for label in [">10<", ">100<", ">1000<"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
    }
}
