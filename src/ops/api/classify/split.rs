//! An upload becomes values: lines, or rows of CSV as JSON objects of their columns. Pieces go in as they come from the
//! network, values come out as soon as they are whole; what is kept in between is at most one value.

/// How an upload is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Lines,
    /// RFC 4180 with a header; the names of the columns are the names of fields.
    Csv,
}

/// One value and the line on which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) value: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within quotes: the end of them, or half of a doubled quote.
    Quote,
}

#[derive(Debug)]
pub(super) struct Splitter {
    layout: Layout,
    /// A longer value is cut one byte after this, so that whoever decodes it sees that it is too long.
    longest: usize,
    place: Place,
    header: Option<Vec<String>>,
    /// Of the row that is not whole yet.
    row: Vec<u8>,
    /// The line that is read, and the one on which the row begins.
    line: u64,
    begins: u64,
}

impl Splitter {
    pub(super) fn new(layout: Layout, longest: usize) -> Self {
        Splitter { layout, longest, place: Place::FieldStart, header: None, row: Vec::new(), line: 1, begins: 1 }
    }

    /// Takes the next piece and adds the rows that it completes.
    pub(super) fn feed(&mut self, piece: &[u8], rows: &mut Vec<Row>) {
        let mut start = 0;
        while let Some(length) = self.end_of_row(&piece[start..]) {
            self.keep(&piece[start..start + length]);
            self.finish_row(rows);
            start += length;
        }
        self.keep(&piece[start..]);
    }

    /// The last row may have no line end.
    pub(super) fn end(&mut self, rows: &mut Vec<Row>) {
        self.finish_row(rows);
    }

    /// The line that is read now, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Bytes up to and with the line feed that ends the row; `None` when it is not there yet.
    fn end_of_row(&mut self, piece: &[u8]) -> Option<usize> {
        for (index, byte) in piece.iter().enumerate() {
            self.line += u64::from(*byte == b'\n');
            if self.layout == Layout::Csv {
                self.place = match (self.place, byte) {
                    (Place::Quoted, b'"') => Place::Quote,
                    (Place::Quoted, _) => Place::Quoted,
                    (Place::FieldStart, b'"') | (Place::Quote, b'"') => Place::Quoted,
                    (_, b',' | b'\n') => Place::FieldStart,
                    _ => Place::Plain,
                };
            }
            if *byte == b'\n' && self.place != Place::Quoted {
                return Some(index + 1);
            }
        }
        None
    }

    fn keep(&mut self, bytes: &[u8]) {
        // The line end is kept for now and must have room.
        let room = (self.longest + 3).saturating_sub(self.row.len());
        self.row.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish_row(&mut self, rows: &mut Vec<Row>) {
        let line = std::mem::replace(&mut self.begins, self.line);
        let mut value = std::mem::take(&mut self.row);
        self.place = Place::FieldStart;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        if value.last() == Some(&b'\r') {
            value.pop();
        }
        value.truncate(self.longest + 1);
        if value.trim_ascii().is_empty() {
            return;
        }
        let too_long = value.len() > self.longest;
        match (self.layout, &self.header) {
            (Layout::Lines, _) => rows.push(Row { line, value }),
            (Layout::Csv, None) => self.header = Some(header(&value)),
            (Layout::Csv, Some(_)) if too_long => rows.push(Row { line, value }),
            (Layout::Csv, Some(header)) => rows.push(Row { line, value: object(header, &value) }),
        }
    }
}

fn fields(row: &[u8]) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(row);
    let mut record = csv::ByteRecord::new();
    // Reading from memory cannot fail, and any bytes are fields.
    match reader.read_byte_record(&mut record) {
        Ok(_) => record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect(),
        Err(_) => Vec::new(),
    }
}

fn header(row: &[u8]) -> Vec<String> {
    let mut names = fields(row);
    if let Some(first) = names.first_mut() {
        *first = first.trim_start_matches('\u{feff}').to_owned();
    }
    names
}

/// Empty fields are absent ones.
fn object(header: &[String], row: &[u8]) -> Vec<u8> {
    let fields = header.iter().cloned().zip(fields(row)).filter(|(_, value)| !value.is_empty());
    let object: serde_json::Map<String, serde_json::Value> = fields.map(|(name, value)| (name, value.into())).collect();
    serde_json::to_vec(&object).expect("texts become JSON")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(layout: Layout, longest: usize, pieces: &[&[u8]]) -> Vec<(u64, String)> {
        let mut splitter = Splitter::new(layout, longest);
        let mut rows = Vec::new();
        pieces.iter().for_each(|piece| splitter.feed(piece, &mut rows));
        splitter.end(&mut rows);
        rows.into_iter().map(|row| (row.line, String::from_utf8_lossy(&row.value).into_owned())).collect()
    }

    #[test]
    fn lines_are_whole_wherever_the_pieces_end() {
        let expected = [(1, "one".to_owned()), (4, "two".to_owned())];
        assert_eq!(split(Layout::Lines, 10, &[b"o", b"ne\r", b"\n\n  \ntw", b"o"]), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_where_it_can_still_be_seen() {
        let lines = split(Layout::Lines, 5, &[b"12345\n123456\n12345678", b"9012345\n1234"]);
        let texts: Vec<&str> = lines.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts, ["12345", "123456", "123456", "1234"]);
    }

    #[test]
    fn a_csv_row_is_an_object_of_its_columns() {
        let text = b"\xef\xbb\xbftitle,content,id\nA,\"two\nlines, \"\"quoted\"\"\",\nB,b \"x\",7,extra\n";
        let expected = [
            (2, r#"{"content":"two\nlines, \"quoted\"","title":"A"}"#.to_owned()),
            (4, r#"{"content":"b \"x\"","id":"7","title":"B"}"#.to_owned()),
        ];
        assert_eq!(split(Layout::Csv, 100, &[text]), expected);
        let too_long = split(Layout::Csv, 10, &[b"a\n", &[b'x'; 100], b"\ny\n"]);
        assert_eq!((too_long[0].1.len(), &*too_long[1].1), (11, r#"{"a":"y"}"#));
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(text in "[a-c\",\n\r ]{0,60}", cut in 0usize..60, csv in any::<bool>()) {
            let layout = if csv { Layout::Csv } else { Layout::Lines };
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(split(layout, 1000, &[head, tail]), split(layout, 1000, &[text.as_bytes()]));
        }

        #[test]
        fn what_the_csv_crate_writes_is_read_again(rows in prop::collection::vec(prop::collection::vec("[a\",\n\r é]{1,8}", 2), 1..5)) {
            let mut writer = csv::Writer::from_writer(b"x,y\n".to_vec());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let text = writer.into_inner().unwrap();
            let found = split(Layout::Csv, 1000, &[&text]);
            // A row of blanks alone is none.
            let expected: Vec<String> = rows
                .iter()
                .map(|row| serde_json::json!({"x": row[0], "y": row[1]}).to_string())
                .collect();
            prop_assert_eq!(found.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), expected);
        }
    }
}
