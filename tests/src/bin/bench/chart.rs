//! The chart that the README shows: CPU per delivery, a bar each, with the spread.

use std::fmt::Write as _;

use crate::figures::{Results, Spread, short};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 128.0;
const RIGHT: f64 = 72.0;
const BAR: f64 = 22.0;
const STEP: f64 = 34.0;
const TOP: f64 = 44.0;

/// Row a as bars. Colours follow the reader's scheme, light or dark.
pub(crate) fn of_broadcast(results: &Results) -> String {
    let mut bars: Vec<(&str, Spread)> = results
        .contestants
        .iter()
        .filter_map(|(name, _)| Some((name.as_str(), results.spread(name, "cpu")?)))
        .collect();
    bars.sort_by(|(_, one), (_, other)| one.median.total_cmp(&other.median));
    let most = bars.iter().map(|(_, spread)| spread.most).fold(1.0, f64::max);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / most;
    let height = TOP + STEP * bars.len() as f64 + 12.0;

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title">
<title id="title">CPU of the server per delivery, in microseconds: {}</title>
<style>
text {{ font: 14px system-ui, sans-serif; fill: #1f2328 }}
.head {{ font-weight: 600 }}
.number {{ font-variant-numeric: tabular-nums }}
.bar {{ fill: #8c959f }}
.floor {{ fill: #d0d7de }}
.rivulet {{ fill: #0969da }}
.whisker {{ stroke: #1f2328; stroke-width: 1.5 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }}
.bar {{ fill: #6e7681 }}
.floor {{ fill: #484f58 }}
.rivulet {{ fill: #4493f8 }}
.whisker {{ stroke: #e6edf3 }}
}}
</style>
<text class="head" x="0" y="18">CPU of the server per delivery, µs: 1,000 connections × 200 B, 50,000 deliveries/s</text>
"##,
        bars.iter()
            .map(|(name, spread)| format!("{} {}", label(name), short(spread.median)))
            .collect::<Vec<_>>()
            .join(", ")
    );
    for (at, (name, spread)) in bars.iter().enumerate() {
        let top = TOP + STEP * at as f64;
        let (middle, base) = (top + BAR / 2.0, top + BAR / 2.0 + 5.0);
        let class = match *name {
            "floor" => "floor",
            "rivulet" => "rivulet",
            _ => "bar",
        };
        let (from, to) = (x(spread.least), x(spread.most));
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{base:.1}" text-anchor="end">{}</text>
<rect class="{class}" x="{LEFT}" y="{top:.1}" width="{:.1}" height="{BAR}" rx="3"/>
<path class="whisker" fill="none" d="M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8"/>
<text class="number" x="{:.1}" y="{base:.1}">{}</text>
"#,
            LEFT - 10.0,
            label(name),
            x(spread.median) - LEFT,
            middle - 4.0,
            middle - 4.0,
            to + 8.0,
            short(spread.median),
        );
    }
    svg + "</svg>\n"
}

fn label(name: &str) -> &str {
    match name {
        "floor" => "bare loop",
        "rivulet" => "Rivulet",
        "bun" => "Bun",
        "ws" => "Node ws",
        "socket.io" => "Socket.IO",
        other => other,
    }
}
