//! A violation as one page of HTML, without anything from outside and without a script.
//!
//! Time goes down the page, and each client has a column: so the picture fits a telephone as well as a wide screen, and
//! labels stand in their bars. Between two moments there is as much room as their labels take and a little more for a
//! long time. Beside the clients stand the nodes: who led, and what was wrong with whom. Hovering over an operation, or moving to it with the
//! keyboard, shows all that is known about it at the foot of the window.
//!
//! Everything that is shown came out of a test that went wrong, values that an adversary may have chosen among it: it is
//! escaped, characters that change how others are shown are replaced, and the page forbids its browser to load or run
//! anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::check::history::Moment;
use crate::check::story::{Story, seconds};

mod html;

use html::text;

/// How an operation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It has this place in the order that explains everything before the last moment.
    Fits(usize),
    /// No order explains its answer.
    Impossible,
    /// Its outcome is not known; it has this place in the order if it has to have taken effect.
    Open(Option<usize>),
    /// It had no effect.
    NoEffect,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Who asked.
    pub client: u64,
    /// When.
    pub called: Moment,
    /// When there was an answer, or the client gave up.
    pub ended: Option<Moment>,
    /// What stands in the bar.
    pub label: String,
    /// How it is shown.
    pub look: Look,
    /// What is known about it.
    pub detail: Vec<String>,
}

/// Something that lasted: a fault, or a leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of what: a node, or the network. Spans of one column stand together.
    pub column: String,
    /// What.
    pub label: String,
    /// Since when.
    pub from: Duration,
    /// Until when; to the end if `None`. What only happened ends when it begins.
    pub until: Option<Duration>,
}

/// Everything that is on a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The first line, of which run this is.
    pub title: String,
    /// The property that was found broken, and how.
    pub found: String,
    /// What the clients saw of it.
    pub story: Story,
    /// Facts for the end: name and value.
    pub facts: Vec<(String, String)>,
    /// Faults.
    pub faults: Vec<Span>,
    /// Who led.
    pub leaders: Vec<Span>,
}

/// Spans of one column beside each other at most; more become one.
const LANES_MAX: usize = 3;

/// A moment at which a line may be drawn: its time and, among those of the same time, its order.
type Line = (Duration, u32);

/// The lines of the picture, each with its row of the grid.
struct Rows {
    lines: BTreeMap<Line, usize>,
    end: usize,
}

/// The first row of the grid has the names of the columns.
const FIRST_ROW: usize = 2;

impl Page {
    /// The page.
    pub fn html(&self) -> String {
        let mut page = String::with_capacity(32 << 10);
        self.write(&mut page).expect("a String takes everything");
        page
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let title = text(&self.title);
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
            html::STYLE
        )?;
        writeln!(out, "<p class=\"run\">{title}</p>")?;
        let (head, rest) = if self.story.sentence.is_empty() {
            (&self.found, "")
        } else {
            (&self.story.sentence, self.found.as_str())
        };
        writeln!(out, "<h1>{}</h1>", text(head))?;
        if !rest.is_empty() {
            writeln!(out, "<p>The run ended with: <b>{}</b></p>", text(rest))?;
        } else if self.story.bars.iter().any(|bar| matches!(bar.look, Look::Fits(_))) {
            out.push_str(
                "<p>The clients have seen nothing impossible yet: all that they were told fits the order that the \
                 numbers show.</p>\n",
            );
        }
        self.write_reasons(out)?;
        self.write_legend(out)?;
        self.write_picture(out)?;
        self.write_table(out)?;
        self.write_facts(out)?;
        out.push_str("</main>\n</body>\n</html>\n");
        Ok(())
    }

    fn write_reasons(&self, out: &mut String) -> std::fmt::Result {
        if self.story.reasons.is_empty() {
            return Ok(());
        }
        out.push_str("<h2>Why no order explains it</h2>\n<ul class=\"reasons\">\n");
        for reason in &self.story.reasons {
            writeln!(out, "<li>{}</li>", text(reason))?;
        }
        out.push_str("</ul>\n");
        Ok(())
    }

    fn write_legend(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("<h2>What the clients saw</h2>\n<p>Time goes down. ");
        if self.story.left_out > 0 {
            write!(out, "{} earlier operations are left out. ", self.story.left_out)?;
        }
        out.push_str(
            "Beside the clients: which node led in which term, and the faults. Hover over anything, or go to it with the tab key, to see all about it.</p>\n",
        );
        out.push_str("<ul class=\"legend\">");
        let looks = [
            (Look::Fits(7), "fits, as the 7th in the order that was found"),
            (Look::Impossible, "no order explains this answer"),
            (Look::Open(None), "never answered: may have taken effect later, or not at all"),
            (Look::Open(Some(7)), "never answered, but must have taken effect, as the 7th"),
            (Look::NoEffect, "was told that it had no effect"),
        ];
        let is_shown = |look: Look| {
            self.story.bars.iter().any(|bar| match (bar.look, look) {
                (Look::Open(one), Look::Open(other)) => one.is_some() == other.is_some(),
                (one, other) => std::mem::discriminant(&one) == std::mem::discriminant(&other),
            })
        };
        for (look, words) in looks.into_iter().filter(|(look, _)| is_shown(*look)) {
            write!(
                out,
                "<li><span class=\"op {}\"><b>{}</b></span> {words}</li>",
                class(look),
                mark(look)
            )?;
        }
        out.push_str("</ul>\n");
        if !self.story.legend.is_empty() {
            writeln!(out, "<p class=\"run\">{}</p>", text(&self.story.legend))?;
        }
        Ok(())
    }

    fn write_picture(&self, out: &mut String) -> std::fmt::Result {
        let bars = &self.story.bars;
        let (Some(first), Some(last)) = (
            bars.iter().map(|bar| bar.called.at).min(),
            bars.iter().flat_map(|bar| [Some(bar.called), bar.ended]).flatten().max(),
        ) else {
            out.push_str("<p>No client had asked for anything.</p>\n");
            return Ok(());
        };
        let (from, until) = (first, last.at);
        let clients: Vec<u64> =
            bars.iter().map(|bar| bar.client).collect::<BTreeSet<_>>().into_iter().collect();
        let rows = self.rows(from, until);
        let columns = self.columns(&rows, from, until);
        write!(
            out,
            "<div class=\"picture\" style=\"grid-template-columns:var(--time) repeat({},minmax(0,1fr)) \
             repeat({},var(--lane));grid-template-rows:auto",
            clients.len(),
            columns.iter().map(|(_, lanes)| lanes.len()).sum::<usize>()
        )?;
        rows.write_heights(out)?;
        out.push_str("\">\n<div class=\"head\">s</div>");
        for (place, client) in clients.iter().enumerate() {
            let column = place + 2;
            write!(
                out,
                "<div class=\"head\" style=\"grid-column:{column}\">client {client}</div>\
                 <div class=\"lane\" style=\"grid-column:{column};grid-row:{FIRST_ROW}/{}\"></div>",
                rows.end
            )?;
        }
        let mut column = clients.len() + 2;
        for (name, lanes) in &columns {
            write!(
                out,
                "<div class=\"head narrow\" style=\"grid-column:{column}/span {}\">{}</div>",
                lanes.len(),
                text(name)
            )?;
            for lane in lanes {
                for shown in lane {
                    shown.write(out, column)?;
                }
                column += 1;
            }
        }
        rows.write_times(out)?;
        for bar in bars {
            let column = 2 + clients.binary_search(&bar.client).expect("collected above");
            write_bar(out, bar, column, &rows)?;
        }
        out.push_str("\n</div>\n");
        Ok(())
    }

    /// A line for each call and each return, and for each change of who leads.
    fn rows(&self, from: Duration, until: Duration) -> Rows {
        let mut lines = BTreeMap::new();
        for bar in &self.story.bars {
            for moment in [Some(bar.called), bar.ended].into_iter().flatten() {
                lines.insert(line(moment), 0);
            }
        }
        for span in &self.leaders {
            for at in [Some(span.from), span.until].into_iter().flatten() {
                if at > from && at < until {
                    lines.insert((at, u32::MAX), 0);
                }
            }
        }
        for (place, row) in lines.values_mut().enumerate() {
            *row = place + FIRST_ROW;
        }
        let end = FIRST_ROW + lines.len();
        Rows { lines, end }
    }

    /// Faults and leaderships of the time that is shown: by column, in lanes beside each other where they overlap.
    fn columns(
        &self,
        rows: &Rows,
        from: Duration,
        until: Duration,
    ) -> Vec<(String, Vec<Vec<Shown>>)> {
        let leaders = self.leaders.iter().map(|span| ("leader", span));
        let spans = leaders.chain(self.faults.iter().map(|span| ("fault", span)));
        let mut columns: BTreeMap<(bool, usize, &str), Vec<Shown>> = BTreeMap::new();
        for (kind, span) in spans {
            if span.from <= until && span.until.is_none_or(|end| end >= from) {
                let name = span.column.as_str();
                // Nodes in their order, then what is no node.
                let is_node = name.ends_with(|last: char| last.is_ascii_digit());
                let column = columns.entry((!is_node, name.len(), name)).or_default();
                column.push(Shown::new(kind, span, rows, from, until));
            }
        }
        columns.into_iter().map(|((_, _, name), spans)| (name.to_owned(), lanes(spans))).collect()
    }

    /// The same for those who cannot see the picture.
    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "<details><summary>The same as a table</summary>\n<div class=\"wide\"><table>\n",
        );
        out.push_str(
            "<tr><th>client</th><th>operation</th><th>called</th><th>ended</th><th></th></tr>\n",
        );
        for bar in &self.story.bars {
            writeln!(
                out,
                "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                class(bar.look),
                bar.client,
                text(&bar.label),
                seconds(bar.called.at),
                bar.ended.map_or_else(|| "–".to_owned(), |ended| seconds(ended.at)),
                match bar.look {
                    Look::Fits(place) => format!("place {place}"),
                    Look::Impossible => "impossible".to_owned(),
                    Look::Open(Some(place)) => format!("not answered, place {place}"),
                    Look::Open(None) => "not answered".to_owned(),
                    Look::NoEffect => "no effect".to_owned(),
                }
            )?;
        }
        out.push_str("</table></div>\n</details>\n");
        Ok(())
    }

    fn write_facts(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("<h2>The run</h2>\n<dl>\n");
        for (name, value) in &self.facts {
            writeln!(out, "<dt>{}</dt><dd>{}</dd>", text(name), text(value))?;
        }
        out.push_str("</dl>\n");
        Ok(())
    }
}

impl Rows {
    /// The rows that a span covers.
    fn span(&self, span: &Span, from: Duration, until: Duration) -> (usize, usize) {
        let row =
            |at: Duration| self.lines.range((at, 0)..).next().map_or(self.end, |(_, row)| *row);
        let top = if span.from <= from { FIRST_ROW } else { row(span.from) };
        let bottom = span.until.filter(|end| *end < until).map_or(self.end, row);
        (top.min(self.end - 1), bottom.max(top + 1).min(self.end))
    }

    /// More room for a longer time, within reason.
    fn write_heights(&self, out: &mut String) -> std::fmt::Result {
        let times: Vec<Duration> = self.lines.keys().map(|(at, _)| *at).collect();
        for pair in times.windows(2) {
            let height = match (pair[1] - pair[0]).as_millis() {
                0..=1 => 14,
                2..=9 => 18,
                10..=99 => 24,
                100..=999 => 34,
                _ => 48,
            };
            write!(out, " minmax({height}px,auto)")?;
        }
        out.push_str(" minmax(14px,auto)");
        Ok(())
    }

    /// The time of each line, unless it is that of the line before.
    fn write_times(&self, out: &mut String) -> std::fmt::Result {
        let mut last = String::new();
        for ((at, _), row) in &self.lines {
            let now = format!("{:.3}", at.as_secs_f64());
            if now != last {
                write!(out, "<div class=\"time\" style=\"grid-row:{row}\">{now}</div>")?;
                last = now;
            }
        }
        Ok(())
    }
}

fn write_bar(out: &mut String, bar: &Bar, column: usize, rows: &Rows) -> std::fmt::Result {
    let top = rows.lines[&line(bar.called)];
    let bottom = bar.ended.map_or(rows.end, |ended| rows.lines[&line(ended)]);
    // What ends in the last row has nothing below to end at.
    let bottom = bottom.max(top + 1);
    write!(
        out,
        "\n<div class=\"op {}\" tabindex=\"0\" style=\"grid-column:{column};grid-row:{top}/{bottom}\"><b>{}</b> \
         <bdi>{}</bdi><span class=\"tip\">",
        class(bar.look),
        mark(bar.look),
        text(&bar.label)
    )?;
    for (place, detail) in bar.detail.iter().enumerate() {
        let dot = if place == 0 { "" } else { " · " };
        write!(out, "{dot}{}", text(detail))?;
    }
    out.push_str("</span></div>");
    Ok(())
}

fn line(moment: Moment) -> Line {
    (moment.at, moment.order)
}

fn class(look: Look) -> &'static str {
    match look {
        Look::Fits(_) => "fits",
        Look::Impossible => "impossible",
        Look::Open(Some(_)) => "open fits",
        Look::Open(None) => "open",
        Look::NoEffect => "none",
    }
}

/// What the look says to those who do not see its colour.
fn mark(look: Look) -> String {
    match look {
        Look::Fits(place) => format!("{place}"),
        Look::Impossible => "✗".to_owned(),
        Look::Open(Some(place)) => format!("{place}?"),
        Look::Open(None) => "?".to_owned(),
        Look::NoEffect => "–".to_owned(),
    }
}

/// A span, or several that have to share its place.
struct Shown {
    kind: &'static str,
    label: String,
    tip: String,
    top: usize,
    bottom: usize,
}

impl Shown {
    fn new(kind: &'static str, span: &Span, rows: &Rows, from: Duration, until: Duration) -> Self {
        let (top, bottom) = rows.span(span, from, until);
        let begin = seconds(span.from);
        let time = match span.until {
            Some(end) if end == span.from => format!("at {begin}"),
            Some(end) => format!("from {begin} to {}", seconds(end)),
            None => format!("from {begin} on"),
        };
        let tip = format!("{} {}, {time}", span.column, span.label);
        Self { kind, label: span.label.clone(), tip, top, bottom }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.top < other.bottom && other.top < self.bottom
    }

    fn write(&self, out: &mut String, column: usize) -> std::fmt::Result {
        let Self { kind, top, bottom, .. } = self;
        write!(
            out,
            "\n<div class=\"span {kind}\" style=\"grid-column:{column};grid-row:{top}/{bottom}\" \
             tabindex=\"0\"><span>{}</span></div>\
             <span class=\"tip\">{}</span>",
            text(&self.label),
            text(&self.tip)
        )
    }
}

/// Puts spans beside each other where they overlap; what finds no room becomes part of the last.
fn lanes(mut spans: Vec<Shown>) -> Vec<Vec<Shown>> {
    spans.sort_by_key(|span| (span.kind != "leader", span.top));
    let mut lanes: Vec<Vec<Shown>> = Vec::new();
    for span in spans {
        let free = lanes.iter().position(|lane| !lane.iter().any(|other| other.overlaps(&span)));
        if let Some(lane) = free {
            lanes[lane].push(span);
        } else if lanes.len() < LANES_MAX {
            lanes.push(vec![span]);
        } else {
            join(&mut lanes[LANES_MAX - 1], span);
        }
    }
    lanes
}

/// Makes one span of a new one and all that it overlaps, and what those overlap together.
fn join(lane: &mut Vec<Shown>, mut span: Shown) {
    while let Some(place) = lane.iter().position(|other| other.overlaps(&span)) {
        let other = lane.remove(place);
        span.label = format!("{}, {}", other.label, span.label);
        span.tip = format!("{}; {}", other.tip, span.tip);
        (span.top, span.bottom) = (span.top.min(other.top), span.bottom.max(other.bottom));
    }
    lane.push(span);
}

#[cfg(test)]
mod tests;
