//! The tables: one a row, and the targets.

use std::fmt::Write as _;

use crate::{
    figures::{Results, short},
    goals::Verdict,
    rows::Row,
};

/// A row's results, as Markdown that also reads on a terminal.
pub(crate) fn of_row(row: &dyn Row, results: &Results) -> String {
    let mut lines = vec![
        std::iter::once(String::new())
            .chain(row.columns().iter().map(|(_, heading)| (*heading).to_owned()))
            .collect::<Vec<_>>(),
    ];
    for (contestant, repetitions) in &results.contestants {
        let void = repetitions.iter().any(|figures| !figures.faults.is_none());
        let name = match void {
            true => format!("{contestant} VOID"),
            false => contestant.clone(),
        };
        let cells = row.columns().iter().map(|(figure, _)| {
            results
                .spread(contestant, figure)
                .map_or(String::new(), |spread| spread.say())
        });
        lines.push(std::iter::once(name).chain(cells).collect());
    }
    let mut text = format!("**{}: {}**\n\n", row.letter(), row.title());
    text += &markdown(&lines);
    let _ = writeln!(text, "\n{}\n", row.reading());
    for (contestant, repetitions) in &results.contestants {
        for (at, figures) in repetitions.iter().enumerate() {
            for remark in &figures.remarks {
                let _ = writeln!(text, "- {contestant}, repetition {}: {remark}", at + 1);
            }
        }
    }
    for void in results.void() {
        let _ = writeln!(text, "- VOID: {void}");
    }
    text
}

/// The targets beside what was measured.
pub(crate) fn of_goals(verdicts: &[Verdict]) -> String {
    let mut lines = vec![
        ["", "figure", "measured", "must", "aim"]
            .map(String::from)
            .to_vec(),
    ];
    for verdict in verdicts {
        lines.push(vec![
            verdict.letter.to_string(),
            verdict.text.to_owned(),
            verdict.measured.say(),
            verdict.must.clone(),
            verdict.aim.clone(),
        ]);
    }
    markdown(&lines)
}

/// Of lines of cells, the first of them the heads: all columns as wide as their widest cell.
pub(crate) fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widest = lines.iter().map(|line| line[column].chars().count()).max();
        widest.unwrap_or(0).max(3)
    };
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let gap = width(column) - cell.chars().count();
            let _ = write!(text, "| {cell}{} ", " ".repeat(gap));
        }
        text += "|\n";
        if at == 0 {
            for column in 0..columns {
                let _ = write!(text, "|{}", "-".repeat(width(column) + 2));
            }
            text += "|\n";
        }
    }
    text
}

/// One measurement as it comes in.
pub(crate) fn line(row: &dyn Row, contestant: &str, figures: &crate::figures::Figures) -> String {
    let cells = row.columns().iter().filter_map(|(figure, heading)| {
        let value = figures.get(figure)?;
        Some(format!("{heading} {}", short(value)))
    });
    let mut text = format!("{contestant:<12} {}", cells.collect::<Vec<_>>().join(" · "));
    if !figures.faults.is_none() {
        let _ = write!(text, "  VOID: {}", figures.faults.say());
    }
    text
}
