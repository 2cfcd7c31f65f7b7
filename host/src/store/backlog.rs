//! What waits for the writer, and what of it goes into the next transaction.
//!
//! Two lines: of what somebody outside asks for and waits for (a start, an event, a repair), and of
//! what moves the runs (claims, commits), of which there can be as many as there are live runs. The
//! first goes before the second, or else a start would stand behind a thousand commits of others.
//! Where both are long, each has half.

use std::collections::VecDeque;

/// So much goes into one transaction, in [`Size::weight`]: the first of a batch waits for the last, and
/// who comes next for all of it. Some 250 cost little more each than a thousand do.
const BATCH_MAX: usize = 256;
/// Of what moves the runs, so much weight goes with a few that are asked: they are waited for.
const MOVES_BESIDE_ASKED: usize = 64;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Which line something stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Asked,
    Moves,
}

#[derive(Debug)]
pub(super) struct Backlog<T> {
    asked: VecDeque<Item<T>>,
    moves: VecDeque<Item<T>>,
}

/// About how much work something is for the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// 1 for a start, an event, or a step that comes alone.
    pub weight: usize,
    /// What it writes.
    pub bytes: usize,
}

#[derive(Debug)]
struct Item<T> {
    size: Size,
    what: T,
}

impl<T> Backlog<T> {
    pub(super) fn new() -> Self {
        Backlog { asked: VecDeque::new(), moves: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.moves.is_empty()
    }

    pub(super) fn push(&mut self, line: Line, size: Size, what: T) {
        let line = match line {
            Line::Asked => &mut self.asked,
            Line::Moves => &mut self.moves,
        };
        line.push_back(Item { size, what });
    }

    /// Takes the next batch out; each line in the order in which it came. Empty only if nothing is
    /// there.
    pub(super) fn batch(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        // Half of the room is kept for what moves the runs, as far as it is needed.
        let moves = self.moves.iter().take(BATCH_MAX / 2).map(|item| item.size.weight).sum::<usize>();
        let kept = moves.min(BATCH_MAX / 2);
        let bytes_max = if kept > 0 { BATCH_BYTES_MAX / 2 } else { BATCH_BYTES_MAX };
        let max = Size { weight: BATCH_MAX - kept, bytes: bytes_max };
        let asked = take(&mut self.asked, &mut batch, max);
        let weight = match asked.weight {
            0 => BATCH_MAX,
            asked => asked.max(MOVES_BESIDE_ASKED),
        };
        let max = Size { weight, bytes: BATCH_BYTES_MAX.saturating_sub(asked.bytes) };
        take(&mut self.moves, &mut batch, max);
        batch
    }
}

/// Takes out of `line` until it comes to `max` in weight or in bytes. To how much it came.
fn take<T>(line: &mut VecDeque<Item<T>>, batch: &mut Vec<T>, max: Size) -> Size {
    let mut taken = Size { weight: 0, bytes: 0 };
    while taken.weight < max.weight
        && taken.bytes < max.bytes
        && let Some(item) = line.pop_front()
    {
        taken.weight += item.size.weight;
        taken.bytes += item.size.bytes;
        batch.push(item.what);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(asked: usize, moves: usize, bytes: usize) -> Backlog<(Line, usize)> {
        of_size(asked, moves, Size { weight: 1, bytes })
    }

    fn of_size(asked: usize, moves: usize, size: Size) -> Backlog<(Line, usize)> {
        let mut backlog = Backlog::new();
        for (line, count) in [(Line::Moves, moves), (Line::Asked, asked)] {
            (0..count).for_each(|number| backlog.push(line, size, (line, number)));
        }
        backlog
    }

    /// How many of each line are in each batch.
    fn batches(mut backlog: Backlog<(Line, usize)>) -> Vec<(usize, usize)> {
        let mut next = [0, 0];
        let mut sizes = Vec::new();
        while !backlog.is_empty() {
            let batch = backlog.batch();
            for (line, number) in &batch {
                let place = &mut next[usize::from(*line == Line::Moves)];
                assert_eq!(number, place, "in the order of each line");
                *place += 1;
            }
            let asked = batch.iter().filter(|(line, _)| *line == Line::Asked).count();
            sizes.push((asked, batch.len() - asked));
        }
        assert!(backlog.batch().is_empty());
        sizes
    }

    #[test]
    fn what_is_asked_goes_first_and_neither_line_waits_for_all_of_the_other() {
        assert_eq!(batches(backlog(0, 0, 1)), []);
        assert_eq!(batches(backlog(3, 5, 1)), [(3, 5)]);
        assert_eq!(batches(backlog(1, 600, 1)), [(1, 64), (0, 256), (0, 256), (0, 24)]);
        assert_eq!(batches(backlog(600, 1, 1)), [(255, 1), (256, 0), (89, 0)]);
        assert_eq!(batches(backlog(300, 300, 1)), [(128, 128), (128, 128), (44, 44)]);
        assert_eq!(batches(backlog(100, 300, 1)), [(100, 100), (0, 200)]);
    }

    #[test]
    fn what_is_much_work_counts_for_as_many() {
        let of_ten = Size { weight: 10, bytes: 1 };
        assert_eq!(batches(of_size(1, 60, of_ten)), [(1, 7), (0, 26), (0, 26), (0, 1)]);
        assert_eq!(batches(of_size(60, 60, of_ten)), [(13, 13), (13, 13), (13, 13), (13, 13), (8, 8)]);
        assert_eq!(batches(of_size(0, 2, Size { weight: 1_000, bytes: 1 })), [(0, 1), (0, 1)]);
    }

    #[test]
    fn what_is_large_goes_alone_and_keeps_nobody_out() {
        let large = BATCH_BYTES_MAX;
        assert_eq!(batches(backlog(2, 0, large)), [(1, 0), (1, 0)]);
        // Both bounds are looked at before each, so that the largest that there is goes too.
        assert_eq!(batches(backlog(2, 2, large / 2)), [(1, 1), (1, 1)]);
        assert_eq!(batches(backlog(1, 9, large / 4)), [(1, 3), (0, 4), (0, 2)]);
    }
}
