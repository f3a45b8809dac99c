//! An upload that is worked through while it comes: a piece of the body is read, its rows are decided on, their answers
//! are sent, and only then the next piece is read. Memory is bounded by a piece and one row, whatever the upload's size;
//! a caller that takes its answer slowly is read slowly.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::classify::Decision;
use crate::ops::api::ApiState;
use crate::ops::api::problem::Problem;
use crate::ops::api::request::{next_piece, refuse_large, too_large};
use crate::ops::api::workers::{Manner, Outcome, Worker, Workers};

use super::split::{Layout, Row, Splitter};

const CSV_COLUMNS: [&str; 12] = [
    "line",
    "kind",
    "ticket_id",
    "queue",
    "category",
    "priority",
    "confidence",
    "routing",
    "decided_by",
    "action",
    "reason",
    "error",
];

/// One line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    /// Of the upload, from 1.
    line: u64,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

struct Upload {
    body: Body,
    splitter: Splitter,
    layout: Layout,
    manner: Manner,
    workers: Arc<Workers>,
    received: usize,
    limit: usize,
    patience: Duration,
    ended: bool,
    /// Held until the answer is complete or nobody wants it any more.
    _place: OwnedSemaphorePermit,
}

pub(super) async fn answer(state: ApiState, manner: Manner, layout: Layout, body: Body) -> Result<Response, Problem> {
    let place = Arc::clone(&state.uploads)
        .try_acquire_owned()
        .map_err(|_| Problem::busy("too_many_uploads", "as many uploads are under way as can be; try again soon"))?;
    if body.size_hint().lower() > state.settings.max_upload as u64 {
        return Err(refuse_large(body, state.settings.max_upload).await);
    }
    let upload = Upload {
        body,
        splitter: Splitter::new(layout, manner.serving.desk().max_record_bytes()),
        layout,
        manner,
        workers: Arc::clone(&state.workers),
        received: 0,
        limit: state.settings.max_upload,
        patience: state.settings.request_timeout,
        ended: false,
        _place: place,
    };
    let content_type = match layout {
        Layout::Lines => "application/x-ndjson",
        Layout::Csv => "text/csv; charset=utf-8",
    };
    let first = match layout {
        Layout::Lines => Bytes::new(),
        Layout::Csv => Bytes::from(format!("{}\n", CSV_COLUMNS.join(","))),
    };
    let answers = Answers { next: Box::pin(async move { (first, upload) }) };
    Ok(([(header::CONTENT_TYPE, content_type)], Body::new(answers)).into_response())
}

type NextPiece = Pin<Box<dyn Future<Output = (Bytes, Upload)> + Send>>;

/// The answer's body: each piece comes with what is needed for the one after it.
struct Answers {
    next: NextPiece,
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let Poll::Ready((piece, upload)) = self.next.as_mut().poll(context) else {
                return Poll::Pending;
            };
            let ended = upload.ended;
            self.next = Box::pin(upload.go_on());
            match (piece.is_empty(), ended) {
                (false, _) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                (true, true) => return Poll::Ready(None),
                (true, false) => {}
            }
        }
    }
}

impl Upload {
    /// The answer to the next piece of the upload. The status has been sent long ago, so whatever goes wrong now becomes
    /// the last line.
    async fn go_on(mut self) -> (Bytes, Upload) {
        if self.ended {
            return (Bytes::new(), self);
        }
        let mut rows = Vec::new();
        let failed = match next_piece(&mut self.body, self.patience).await {
            Ok(Some(piece)) if self.received + piece.len() > self.limit => Some(too_large(self.limit)),
            Ok(Some(piece)) => {
                self.received += piece.len();
                self.splitter.feed(&piece, &mut rows);
                None
            }
            Ok(None) => {
                self.ended = true;
                self.splitter.end(&mut rows);
                None
            }
            Err(problem) => Some(problem),
        };
        let answer = match failed {
            None => self.decide(rows).await,
            Some(problem) => Err(problem),
        };
        let bytes = answer.unwrap_or_else(|problem| {
            self.ended = true;
            last_line(self.layout, self.splitter.line(), &problem)
        });
        (Bytes::from(bytes), self)
    }

    async fn decide(&mut self, rows: Vec<Row>) -> Result<Vec<u8>, Problem> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (manner, layout) = (self.manner.clone(), self.layout);
        let work = move |worker: &mut Worker| {
            let mut answer = Vec::new();
            for row in rows {
                write_line(&mut answer, layout, row.line, &worker.decide(&manner, &row.value));
            }
            answer
        };
        self.workers.run(work).await
    }
}

fn last_line(layout: Layout, line: u64, problem: &Problem) -> Vec<u8> {
    let mut answer = Vec::new();
    write_line(&mut answer, layout, line, &Outcome::unreadable(problem.code(), problem.detail()));
    answer
}

fn write_line(answer: &mut Vec<u8>, layout: Layout, line: u64, outcome: &Outcome) {
    match layout {
        Layout::Lines => {
            serde_json::to_writer(&mut *answer, &Line { line, outcome }).expect("plain data becomes JSON");
            answer.push(b'\n');
        }
        Layout::Csv => {
            let mut writer = csv::WriterBuilder::new().from_writer(answer);
            writer.write_record(csv_fields(line, outcome)).expect("writing to memory");
            writer.flush().expect("writing to memory");
        }
    }
}

fn csv_fields(line: u64, outcome: &Outcome) -> [String; CSV_COLUMNS.len()] {
    let mut fields = [const { String::new() }; CSV_COLUMNS.len()];
    fields[0] = line.to_string();
    match outcome {
        Outcome::Decided(decision) => {
            let Decision { kind, ticket_id, queue, category, priority, confidence, .. } = &**decision;
            fields[1] = kind.to_string();
            fields[2] = ticket_id.clone().unwrap_or_default();
            fields[3] = queue.clone();
            fields[4] = category.clone().unwrap_or_default();
            fields[5] = priority.to_string();
            fields[6] = format!("{confidence:.4}");
            fields[7] = decision.routing.as_str().to_owned();
            fields[8] = decision.decided_by.clone();
            fields[9] = decision.action.as_str().to_owned();
        }
        Outcome::Unreadable(unreadable) => {
            fields[10] = unreadable.error.reason.to_owned();
            fields[11] = unreadable.error.detail.clone();
        }
    }
    fields
}
