//! How events are printed.

use std::{borrow::Cow, fmt::Write as _, io};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{super::colour::Palette, Format};

/// Where events go, until there were enough.
pub(super) struct Printer {
    pub(super) format: Format,
    pub(super) palette: Palette,
    /// How many more, if only so many are wanted.
    pub(super) left: Option<u64>,
}

/// A frame of the router, its data as it came.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) frame_type: Cow<'a, str>,
    #[serde(default)]
    pub(super) seq: Option<u64>,
    #[serde(default, borrow)]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
}

impl Printer {
    /// Prints an event, whose frame came as `text`. Says whether that was the last one wanted.
    pub(super) fn event(&mut self, frame: &Frame<'_>, text: &str) -> io::Result<bool> {
        let Frame {
            frame_type,
            seq,
            time,
            data,
        } = frame;
        let line = match self.format {
            Format::Json => text.to_owned(),
            Format::Compact | Format::Pretty => {
                let palette = self.palette;
                let seq = seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
                let family = frame_type.split('.').next().unwrap_or_default();
                let time = palette.dim(clock(time.as_deref().unwrap_or_default()));
                let head = format!(
                    "{} {time} {}",
                    palette.dim(seq),
                    palette.named(family, palette.bold(frame_type))
                );
                match self.format {
                    Format::Compact => format!("{head} {}", data.get()),
                    _ => format!("{head}\n{}", indented(data.get())),
                }
            }
        };
        self.line(&line)
    }

    /// Prints a line. Says whether that was the last one wanted.
    pub(super) fn line(&mut self, line: &str) -> io::Result<bool> {
        super::super::print(line)?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        Ok(self.left == Some(0))
    }
}

/// The time of day of an RFC 3339 time, to the millisecond.
fn clock(time: &str) -> &str {
    let end = time.find(['Z', '+']).unwrap_or(time.len()).min(23);
    time.get(11..end).unwrap_or(time)
}

/// JSON on many lines, two spaces in. Only the space between its parts changes: numbers and strings stay as they
/// were written, which a parser would not promise.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::from("  ");
    let mut depth = 1;
    let mut in_string = false;
    let mut escaped = false;
    let mut characters = json.chars().peekable();
    let new_line = |text: &mut String, depth: usize| {
        let _ = write!(text, "\n{:1$}", "", depth * 2);
    };
    while let Some(character) = characters.next() {
        if in_string {
            text.push(character);
            in_string = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                in_string = true;
                text.push('"');
            }
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match characters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => text.push(close),
                    None => {
                        depth += 1;
                        new_line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth -= 1;
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_changes_only_space() {
        let json = r#"{"b": 1.0,"a":[1e2,{"x":"{,:\"\\"}],"e":{ },"l":[],"é":"\u00e9 , "}"#;
        assert_eq!(
            indented(json),
            "  {\n    \"b\": 1.0,\n    \"a\": [\n      1e2,\n      {\n        \"x\": \"{,:\\\"\\\\\"\n      }\n    ],\n    \
             \"e\": {},\n    \"l\": [],\n    \"é\": \"\\u00e9 , \"\n  }"
        );
    }

    #[test]
    fn clocks_show_the_time_of_day() {
        assert_eq!(clock("2026-01-02T03:04:05.678901Z"), "03:04:05.678");
        assert_eq!(clock("2026-01-02T03:04:05Z"), "03:04:05");
        assert_eq!(clock("soon"), "soon");
    }
}
