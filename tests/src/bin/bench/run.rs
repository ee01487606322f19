//! One run of the bench, from the first server to the files that are kept of it.

use anyhow::Context as _;

use crate::{
    Arguments, chart, curves,
    figures::Results,
    goals::Verdict,
    record::{self, Circumstances, of_results},
    rows::{self, Bench, Row},
    table,
};

pub(crate) struct Run {
    pub(crate) bench: Bench,
    pub(crate) repeat: usize,
    pub(crate) circumstances: Circumstances,
}

/// How many measurements there were, and how many of them are void.
type Count = (usize, usize);

impl Run {
    pub(crate) fn matrix(&self, arguments: &Arguments) -> anyhow::Result<Count> {
        let mut measured = Vec::new();
        for row in rows::ALL {
            if arguments.row.is_empty() || arguments.row.contains(&row.letter()) {
                measured.push((row, self.repetitions(row, &arguments.only)?));
            }
        }
        let verdicts: Vec<Verdict> = measured
            .iter()
            .flat_map(|(row, results)| row.goals().iter().filter_map(|goal| goal.verdict(results)))
            .collect();
        let mut text = match self.bench.quick {
            // Figures of tiny sizes say nothing about the targets.
            true => String::new(),
            false => table::of_goals(&verdicts) + "\n",
        };
        for (row, results) in &measured {
            text += &format!("{}\n", table::of_row(*row, results));
        }
        println!("\n{text}");
        if let Some(folder) = arguments.folder() {
            let rows = measured
                .iter()
                .map(|(row, results)| of_results(&row.letter().to_string(), row.title(), results));
            let goals = verdicts.iter().map(Verdict::json);
            let record = self.circumstances.record(rows.collect(), goals.collect());
            let name = self.circumstances.name();
            record::write(&folder.join(format!("{name}.json")), &format!("{record:#}\n"))?;
            let text = format!("# The bench matrix\n\n{}\n{text}", self.circumstances.say());
            record::write(&folder.join("latest.md"), &(text.trim_end().to_owned() + "\n"))?;
            if let Some((_, results)) = measured.iter().find(|(row, _)| row.letter() == 'a') {
                let file = match arguments.out {
                    Some(_) => folder.join("fanout.svg"),
                    None => record::root().join("docs/images/fanout.svg"),
                };
                record::write(&file, &chart::of_broadcast(results))?;
            }
        }
        Ok(count(measured.iter().map(|(_, results)| results)))
    }

    pub(crate) fn curves(&self, arguments: &Arguments) -> anyhow::Result<Count> {
        let mut text = String::new();
        let (mut rows, mut measured) = (Vec::new(), Vec::new());
        for curve in curves::all(self.bench.quick) {
            let points = curve.measure(&self.bench, self.repeat)?;
            text += &format!("{}\n", curve.table(&points));
            rows.extend(curve.json(&points));
            measured.extend(points.into_iter().map(|(_, results)| results));
        }
        println!("\n{text}");
        if let Some(folder) = arguments.folder() {
            let record = self.circumstances.record(rows, Vec::new());
            let file = folder.join(format!("{}-curves.json", self.circumstances.name()));
            record::write(&file, &format!("{record:#}\n"))?;
            let text = format!("# Cost curves\n\n{}\n{text}", self.circumstances.say());
            record::write(&folder.join("curves.md"), &(text.trim_end().to_owned() + "\n"))?;
        }
        Ok(count(&measured))
    }

    /// Measures a row so many times, everyone in turn within each.
    fn repetitions(&self, row: &dyn Row, only: &[String]) -> anyhow::Result<Results> {
        println!("{}: {}", row.letter(), row.title());
        let mut results = Results {
            contestants: row
                .contestants()
                .iter()
                .filter(|name| only.is_empty() || only.iter().any(|one| one == *name))
                .map(|name| ((*name).to_owned(), Vec::new()))
                .collect(),
        };
        for _ in 0..self.repeat {
            for (contestant, repetitions) in &mut results.contestants {
                let figures = row
                    .measure(&self.bench, contestant)
                    .with_context(|| format!("row {}, {contestant}", row.letter()))?;
                println!("   {}", table::line(row, contestant, &figures));
                repetitions.push(figures);
            }
        }
        Ok(results)
    }
}

fn count<'a>(all: impl IntoIterator<Item = &'a Results>) -> Count {
    let figures = all
        .into_iter()
        .flat_map(|results| &results.contestants)
        .flat_map(|(_, repetitions)| repetitions);
    figures.fold((0, 0), |(runs, void), one| {
        (runs + 1, void + usize::from(!one.faults.is_none()))
    })
}
