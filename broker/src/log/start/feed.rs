//! Reads a store's entries in order, while other threads hash and read what was fetched.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use daypass_evidence::audit::Prepared;
use daypass_evidence::entry::Index;

use crate::store::{Reader, Row, StoreError};

const PAGE: u32 = 1_000;

/// How many pages wait at one worker.
const AHEAD: usize = 2;

/// How many workers there are at most.
const WORKERS_MAX: usize = 8;

type Worked = Vec<(Row, Prepared)>;

/// Gives each of the entries `range` to `take`, in order, prepared by `prepare` on as many cores as there are.
pub(super) fn each(
    reader: &dyn Reader,
    range: Range<Index>,
    prepare: fn(&[u8]) -> Prepared,
    mut take: impl FnMut(Row, Prepared) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let pages = Pages { reader, end: range.end };
    let first = pages.from(range.start)?;
    if first.len() < PAGE as usize {
        return work(first, prepare).into_iter().try_for_each(|(row, prepared)| take(row, prepared));
    }
    thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let workers: Vec<_> = (0..count)
            .map(|_| {
                let (page, pages) = sync_channel::<Vec<Row>>(AHEAD);
                let (done, worked) = sync_channel::<Worked>(AHEAD);
                scope.spawn(move || pages.into_iter().all(|page| done.send(work(page, prepare)).is_ok()));
                (page, worked)
            })
            .collect();
        in_turn(&pages, first, &workers, take)
    })
}

struct Pages<'a> {
    reader: &'a dyn Reader,
    end: Index,
}

impl Pages<'_> {
    fn from(&self, start: Index) -> Result<Vec<Row>, StoreError> {
        let mut page = self.reader.rows(start, PAGE)?;
        page.retain(|row| row.index < self.end);
        Ok(page)
    }
}

fn work(page: Vec<Row>, prepare: fn(&[u8]) -> Prepared) -> Worked {
    page.into_iter().map(|row| (prepare(&row.bytes), row)).map(|(prepared, row)| (row, prepared)).collect()
}

/// Pages go round the workers and come back in the same order. No more are on their way than fit their channels, so
/// nobody waits for a place while another waits for a page.
fn in_turn(
    rows: &Pages<'_>,
    first: Vec<Row>,
    workers: &[(SyncSender<Vec<Row>>, Receiver<Worked>)],
    mut take: impl FnMut(Row, Prepared) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let gone = || StoreError::Unavailable("a thread that verifies the log ended".into());
    let mut next = Some(first);
    let (mut senders, mut receivers) = (workers.iter().cycle(), workers.iter().cycle());
    let mut on_the_way = 0;
    loop {
        while let Some(page) = next.take_if(|page| !page.is_empty() && on_the_way < workers.len() * AHEAD) {
            let after = page.last().map_or(Index::MAX, |row| row.index + 1);
            let (worker, _) = senders.next().ok_or_else(gone)?;
            worker.send(page).map_err(|_| gone())?;
            on_the_way += 1;
            next = Some(rows.from(after)?);
        }
        if on_the_way == 0 {
            return Ok(());
        }
        let (_, worked) = receivers.next().ok_or_else(gone)?;
        let page = worked.recv().map_err(|_| gone())?;
        on_the_way -= 1;
        page.into_iter().try_for_each(|(row, prepared)| take(row, prepared))?;
    }
}
