//! The three forms of the history: lines for people, CSV for spreadsheets, one JSON object per line for programs.

use std::fmt::Write as _;
use std::io;

use jiff::{Timestamp, Zoned};

use super::super::term::{Palette, count, dollars, money};
use super::Total;
use super::row::{Row, Verdict};

/// The columns of CSV, which are [`Row`]'s fields.
const COLUMNS: [&str; 14] = [
    "at",
    "drop",
    "shot",
    "shots",
    "verdict",
    "result",
    "seed",
    "images",
    "cost",
    "unpriced",
    "request_id",
    "sent",
    "reason",
    "id",
];

/// A form.
pub(super) enum Form {
    /// A line for each shot, and a total.
    People {
        /// Whether in colour.
        colour: bool,
        /// For the zone of its times.
        now: Zoned,
    },
    /// By RFC 4180, with a header.
    Csv,
    /// One object per line.
    Json,
}

impl Form {
    /// What stands before the first row.
    pub(super) fn head(&self) -> String {
        match self {
            Self::Csv => COLUMNS.join(",") + "\r\n",
            Self::People { .. } | Self::Json => String::new(),
        }
    }

    /// Adds a row to `out`.
    pub(super) fn row(&self, row: &Row, out: &mut String) -> io::Result<()> {
        match self {
            Self::People { colour, now } => line(row, *colour, now, out),
            Self::Csv => *out += &csv(row)?,
            Self::Json => *out += &(serde_json::to_string(row)? + "\n"),
        }
        Ok(())
    }

    /// What stands behind the last row.
    pub(super) fn foot(&self, total: &Total) -> String {
        let Self::People { colour, .. } = self else { return String::new() };
        let ended = [(total.delivered, "delivered"), (total.failed, "failed"), (total.unconfirmed, "unconfirmed")];
        let ended: Vec<_> = ended.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if ended.is_empty() {
            return "Nothing was made, as far as is known.\n".into();
        }
        let bold = Palette::new(*colour).bold;
        let (images, money) = (count(total.spend.images, "image"), money(&total.spend));
        format!("{bold}Total:{bold:#} {images}, {money}; {}\n", ended.join(", "))
    }
}

fn line(row: &Row, colour: bool, now: &Zoned, out: &mut String) {
    let palette = Palette::new(colour);
    let style = match row.verdict {
        Verdict::Delivered => palette.good,
        Verdict::Failed | Verdict::Lost => palette.bad,
        Verdict::Unconfirmed => palette.warn,
    };
    let at = row.at.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%d %H:%M");
    let word = row.verdict.word();
    let _ = write!(out, "{at}  {style}{word:<11}{style:#}  {:<10}  {}", price(row), row.drop);
    if let (Some(shot), 2..) = (row.shot, row.shots) {
        let _ = write!(out, " ({shot} of {})", row.shots);
    }
    if let Some(result) = &row.result {
        let _ = write!(out, " -> {result}");
    }
    if let Some(reason) = &row.reason {
        let _ = write!(out, ": {reason}");
    }
    let seed = row.seed.map(|seed| format!("seed {seed}"));
    let request = row.request_id.as_ref().map(|id| format!("request {id}"));
    let details: Vec<_> = seed.into_iter().chain(request).collect();
    if !details.is_empty() {
        let dim = palette.dim;
        let _ = write!(out, "  {dim}[{}]{dim:#}", details.join(", "));
    }
    out.push('\n');
}

/// What it cost, in short.
fn price(row: &Row) -> String {
    match (row.images, row.cost, row.unpriced) {
        (0, ..) => "-".into(),
        (_, Some(cost), 0) => dollars(cost),
        // An earlier send of it, of which nobody knows.
        (_, Some(cost), _) => format!("from {}", dollars(cost)),
        (_, None, _) => "no price".into(),
    }
}

fn csv(row: &Row) -> io::Result<String> {
    let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
    let moment = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let cell = |text: &Option<String>| text.as_deref().map(cell).unwrap_or_default();
    let record: [String; COLUMNS.len()] = [
        row.at.to_string(),
        self::cell(&row.drop),
        number(row.shot),
        row.shots.to_string(),
        row.verdict.word().to_owned(),
        cell(&row.result),
        row.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        row.images.to_string(),
        row.cost.map(|cost| cost.to_string()).unwrap_or_default(),
        row.unpriced.to_string(),
        cell(&row.request_id),
        moment(row.sent),
        cell(&row.reason),
        row.id.clone(),
    ];
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(&record).map_err(io::Error::from)?;
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// A cell with text that somebody else chose. A spreadsheet would take one that begins like a formula for one, and
/// run it: an apostrophe before it says that it is text.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    if formula { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::status::Spend;

    fn row() -> Row {
        Row {
            at: "2026-11-23T14:02:03.5Z".parse().unwrap(),
            drop: "cafe/terrace.jpg".into(),
            shot: Some(1),
            shots: 1,
            verdict: Verdict::Delivered,
            result: Some("cafe/terrace.png".into()),
            seed: Some(-7),
            images: 1,
            cost: Some(0.04),
            unpriced: 0,
            request_id: Some("r-1".into()),
            sent: Some("2026-11-23T14:01:03Z".parse().unwrap()),
            reason: None,
            id: "00ff".into(),
        }
    }

    fn rows() -> Vec<Row> {
        vec![
            row(),
            Row { shot: Some(2), shots: 3, cost: None, unpriced: 1, seed: None, ..row() },
            Row { shot: Some(3), shots: 3, images: 2, unpriced: 1, ..row() },
            Row {
                verdict: Verdict::Failed,
                drop: "=HYPERLINK(\"x\"), \\n.jpg".into(),
                result: None,
                images: 0,
                cost: None,
                reason: Some("HTTP 422: refused, \"moderation\"".into()),
                ..row()
            },
            Row {
                verdict: Verdict::Unconfirmed,
                result: None,
                cost: None,
                unpriced: 1,
                request_id: None,
                reason: Some("-cut off".into()),
                ..row()
            },
            Row {
                verdict: Verdict::Failed,
                drop: "report.pdf".into(),
                shot: None,
                shots: 0,
                result: None,
                seed: None,
                images: 0,
                cost: None,
                request_id: None,
                sent: None,
                reason: Some("no picture".into()),
                ..row()
            },
        ]
    }

    fn whole(form: &Form) -> String {
        let (mut text, mut total) = (form.head(), Total::default());
        for row in rows() {
            form.row(&row, &mut text).unwrap();
            total.add(&row);
        }
        text + &form.foot(&total)
    }

    fn people(colour: bool) -> Form {
        Form::People { colour, now: row().at.to_zoned(jiff::tz::TimeZone::UTC) }
    }

    #[test]
    fn a_person_reads_a_line_for_each_shot_and_a_total() {
        insta::assert_snapshot!(whole(&people(false)), @r#"
        2026-11-23 14:02  delivered    $0.04       cafe/terrace.jpg -> cafe/terrace.png  [seed -7, request r-1]
        2026-11-23 14:02  delivered    no price    cafe/terrace.jpg (2 of 3) -> cafe/terrace.png  [request r-1]
        2026-11-23 14:02  delivered    from $0.04  cafe/terrace.jpg (3 of 3) -> cafe/terrace.png  [seed -7, request r-1]
        2026-11-23 14:02  failed       -           =HYPERLINK("x"), \n.jpg: HTTP 422: refused, "moderation"  [seed -7, request r-1]
        2026-11-23 14:02  unconfirmed  no price    cafe/terrace.jpg: -cut off  [seed -7]
        2026-11-23 14:02  failed       -           report.pdf: no picture
        Total: 5 images, at least $0.08, 3 without a price; 3 delivered, 2 failed, 1 unconfirmed
        "#);
    }

    #[test]
    fn colour_changes_no_words() {
        let coloured = whole(&people(true));
        assert!(coloured.contains("\u{1b}[33munconfirmed"), "{coloured:?}");
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), whole(&people(false)));
    }

    #[test]
    fn a_spreadsheet_reads_text_and_never_a_formula() {
        let text = whole(&Form::Csv);
        assert_eq!(text.matches("\r\n").count(), 7);
        insta::assert_snapshot!(text.replace("\r\n", "\n"), @r#"
        at,drop,shot,shots,verdict,result,seed,images,cost,unpriced,request_id,sent,reason,id
        2026-11-23T14:02:03.5Z,cafe/terrace.jpg,1,1,delivered,cafe/terrace.png,-7,1,0.04,0,r-1,2026-11-23T14:01:03Z,,00ff
        2026-11-23T14:02:03.5Z,cafe/terrace.jpg,2,3,delivered,cafe/terrace.png,,1,,1,r-1,2026-11-23T14:01:03Z,,00ff
        2026-11-23T14:02:03.5Z,cafe/terrace.jpg,3,3,delivered,cafe/terrace.png,-7,2,0.04,1,r-1,2026-11-23T14:01:03Z,,00ff
        2026-11-23T14:02:03.5Z,"'=HYPERLINK(""x""), \n.jpg",1,1,failed,,-7,0,,0,r-1,2026-11-23T14:01:03Z,"HTTP 422: refused, ""moderation""",00ff
        2026-11-23T14:02:03.5Z,cafe/terrace.jpg,1,1,unconfirmed,,-7,1,,1,,2026-11-23T14:01:03Z,'-cut off,00ff
        2026-11-23T14:02:03.5Z,report.pdf,,0,failed,,,0,,0,,,no picture,00ff
        "#);
        assert_eq!(cell("＝1"), "'＝1");
        assert_eq!(cell("a=1"), "a=1");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns = serde_json::to_value(row()).unwrap();
        let columns: Vec<_> = columns.as_object().unwrap().keys().cloned().collect();
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), columns, "as in JSON");
        assert_eq!(reader.records().map(|r| r.unwrap().len()).collect::<Vec<_>>(), [COLUMNS.len(); 6]);
    }

    #[test]
    fn a_program_reads_one_object_per_line() {
        insta::assert_snapshot!(whole(&Form::Json).lines().take(1).collect::<String>(), @r#"{"at":"2026-11-23T14:02:03.5Z","drop":"cafe/terrace.jpg","shot":1,"shots":1,"verdict":"delivered","result":"cafe/terrace.png","seed":-7,"images":1,"cost":0.04,"unpriced":0,"request_id":"r-1","sent":"2026-11-23T14:01:03Z","reason":null,"id":"00ff"}"#);
        assert_eq!(whole(&Form::Json).lines().count(), 6);
    }

    #[test]
    fn nothing_is_said_in_words_where_nothing_was_made() {
        assert_eq!(people(false).foot(&Total::default()), "Nothing was made, as far as is known.\n");
        assert_eq!(Form::Csv.foot(&Total { delivered: 1, spend: Spend::default(), ..Total::default() }), "");
    }
}
