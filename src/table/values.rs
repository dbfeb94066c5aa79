//! The tuples of one key: what a row holds, what a snapshot shows, and how writes change it.
//!
//! Invariants
//! I1. What is held never changes (C-9): a change makes something else, and shares what stays.
//! I2. One value is held by itself, several in a list, as many as are long in a log.
//! I3. What is settled is none, one value of a word at most, or shared: what a row can hold.

use super::TableType;
use super::log::{Log, Step, Undo, View};
use crate::bytes::Bytes;
use crate::error::Result;
use crate::memory::{self, Shared};

/// The tuples of a key, perhaps none.
#[derive(Debug, Clone)]
pub(super) enum Held {
    None,
    One(Bytes),
    Shared(Shared<Values>),
}

/// What several owners share.
#[derive(Debug)]
pub(super) enum Values {
    One(Bytes),
    Few(Vec<Bytes>),
    Log(View),
}

/// The longest list that is copied when it changes.
const FEW: usize = 16;

/// A change of the tuples of one key.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Insert(Bytes),
    Delete,
    DeleteTuple(Bytes),
}

impl Write {
    /// Whether the tuples after this write are the same whatever was there before.
    pub(crate) fn is_final(&self, r#type: TableType) -> bool {
        match self {
            Write::Insert(_) => r#type == TableType::Set,
            Write::Delete => true,
            Write::DeleteTuple(_) => false,
        }
    }
}

/// Whose a log is that a change begins from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogIs {
    /// The changer's: it may be appended to.
    Own,
    /// Somebody else's: it is copied.
    Foreign,
}

/// What writes make of the tuples of a key.
#[derive(Debug)]
pub(super) struct Change {
    /// Settled (I3).
    pub(super) after: Held,
    /// For a change that nobody sees in the end.
    pub(super) undo: Option<Undo>,
}

impl From<Held> for Change {
    fn from(after: Held) -> Self {
        Self { after, undo: None }
    }
}

impl Held {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Held::None => 0,
            Held::One(_) => 1,
            Held::Shared(values) => match &**values {
                Values::One(_) => 1,
                Values::Few(list) => list.len(),
                Values::Log(view) => view.count(),
            },
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Held::None)
    }

    /// The only value, in tables that have one.
    pub(super) fn only(&self) -> Option<&Bytes> {
        match self {
            Held::None => None,
            Held::One(value) => Some(value),
            Held::Shared(values) => match &**values {
                Values::One(value) => Some(value),
                Values::Few(_) | Values::Log(_) => None,
            },
        }
    }

    /// The values, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Bytes> {
        let (few, view) = match self {
            Held::None => (&[][..], None),
            Held::One(value) => (std::slice::from_ref(value), None),
            Held::Shared(values) => match &**values {
                Values::One(value) => (std::slice::from_ref(value), None),
                Values::Few(list) => (&list[..], None),
                Values::Log(view) => (&[][..], Some(view)),
            },
        };
        few.iter().chain(view.into_iter().flat_map(View::values))
    }

    /// Whether it is what `other` is, as far as can be told at a glance.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Held::None, Held::None) => true,
            (Held::One(value), Held::One(other)) => value == other,
            (Held::Shared(values), Held::Shared(other)) => values.is(other),
            _ => false,
        }
    }

    /// How many bytes go, roughly, when this goes and `next` has come in its place.
    pub(super) fn freed_for(&self, next: Option<&Shared<Log>>) -> usize {
        match self {
            Held::None | Held::One(_) => 0,
            Held::Shared(values) => match &**values {
                Values::One(value) => value.heap(),
                Values::Few(list) => list.iter().map(Bytes::heap).sum(),
                Values::Log(view) if next.is_some_and(|next| next.is(view.log())) => 0,
                Values::Log(view) => view.log().heap(),
            },
        }
    }

    /// In the form that a row can hold (I3).
    pub(super) fn settled(self) -> Result<Self> {
        match self {
            Held::One(value) if value.word().is_none() => {
                Ok(Held::Shared(Shared::new(Values::One(value))?))
            }
            settled => Ok(settled),
        }
    }

    /// After `writes`, in order.
    pub(super) fn after(&self, r#type: TableType, writes: &[Write], log: LogIs) -> Result<Change> {
        match r#type {
            TableType::Set => Ok(self.after_in_set(writes).settled()?.into()),
            TableType::Bag | TableType::DuplicateBag => self.after_in_list(r#type, writes, log),
        }
    }

    fn after_in_set(&self, writes: &[Write]) -> Self {
        let mut held = self.clone();
        for write in writes {
            match write {
                Write::Insert(value) => held = Held::One(value.clone()),
                Write::Delete => held = Held::None,
                Write::DeleteTuple(value) if held.only() == Some(value) => held = Held::None,
                Write::DeleteTuple(_) => {}
            }
        }
        held
    }

    fn after_in_list(&self, r#type: TableType, writes: &[Write], is: LogIs) -> Result<Change> {
        let is_delete = |write: &Write| matches!(write, Write::Delete);
        let (present, writes) = match writes.iter().rposition(is_delete) {
            Some(last) => (&Held::None, &writes[last + 1..]),
            None => (self, writes),
        };
        if present.len() + writes.len() <= FEW && present.log().is_none() {
            return Ok(present.after_in_few(r#type, writes)?.into());
        }
        let steps = writes.iter().filter_map(|write| match write {
            Write::Insert(value) => {
                Some(Step::Append { value, unless_equal: r#type == TableType::Bag })
            }
            Write::Delete => None, // There is none behind the last one.
            Write::DeleteTuple(value) => Some(Step::Remove(value)),
        });
        match present.log() {
            Some(log) if is == LogIs::Own => {
                let (view, undo) = Log::change(log, steps)?;
                let after = Held::of_view(view);
                Ok(Change { after: compact(after?), undo: Some(undo) })
            }
            _ => {
                let all = present.values().map(|value| Step::Append { value, unless_equal: false });
                let (view, _) = Log::change(&Log::new()?, all.chain(steps))?;
                Ok(Held::of_view(view)?.into())
            }
        }
    }

    fn after_in_few(&self, r#type: TableType, writes: &[Write]) -> Result<Self> {
        let mut list = memory::list(self.len() + writes.len())?;
        list.extend(self.values().cloned());
        for write in writes {
            match write {
                // An equal tuple keeps its position (C-9).
                Write::Insert(value) if r#type == TableType::Bag && list.contains(value) => {}
                Write::Insert(value) => list.push(value.clone()),
                Write::Delete => list.clear(),
                Write::DeleteTuple(value) => list.retain(|present| present != value),
            }
        }
        Self::of_few(list)
    }

    fn of_few(mut list: Vec<Bytes>) -> Result<Self> {
        match list.len() {
            0 | 1 => list.pop().map_or(Held::None, Held::One).settled(),
            _ => Ok(Held::Shared(Shared::new(Values::Few(list))?)),
        }
    }

    fn of_view(view: View) -> Result<Self> {
        match view.count() {
            0 => Ok(Held::None),
            _ => Ok(Held::Shared(Shared::new(Values::Log(view))?)),
        }
    }

    pub(super) fn log(&self) -> Option<&Shared<Log>> {
        match self {
            Held::Shared(values) => match &**values {
                Values::Log(view) => Some(view.log()),
                Values::One(_) | Values::Few(_) => None,
            },
            _ => None,
        }
    }
}

/// The same tuples, without the memory of those that are dead; as they are if there is none for it.
fn compact(held: Held) -> Held {
    if !held.log().is_some_and(|log| log.is_mostly_dead()) {
        return held;
    }
    let few = || {
        let mut list = memory::list(held.len())?;
        list.extend(held.values().cloned());
        Held::of_few(list)
    };
    let log = || {
        let all = held.values().map(|value| Step::Append { value, unless_equal: false });
        Held::of_view(Log::change(&Log::new()?, all)?.0)
    };
    let smaller = if held.len() <= FEW { few() } else { log() };
    smaller.unwrap_or(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_of(text.as_bytes()).unwrap()
    }

    fn texts(held: &Held) -> Vec<String> {
        let text = |value: &Bytes| String::from_utf8(value.as_slice().to_vec()).unwrap();
        held.values().map(text).collect()
    }

    /// Every list of tuples is what a plain list would be, however it is held.
    #[test]
    fn lists_of_every_length_and_their_changes() {
        for r#type in [TableType::Bag, TableType::DuplicateBag] {
            let (mut held, mut model) = (Held::None, Vec::<String>::new());
            let mut seed = 1_u32;
            for step in 0..4000_u32 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let text = format!("value {}", seed >> 8 & 63);
                let removes = (step / 500) % 2 == 1 && seed >> 20 & 3 != 0;
                let write = match (removes, step % 997) {
                    (_, 996) => Write::Delete,
                    (true, _) => Write::DeleteTuple(bytes(&text)),
                    (false, _) => Write::Insert(bytes(&text)),
                };
                match &write {
                    Write::Delete => model.clear(),
                    Write::DeleteTuple(_) => model.retain(|other| *other != text),
                    Write::Insert(_) if r#type == TableType::Bag && model.contains(&text) => {}
                    Write::Insert(_) => model.push(text),
                }
                let before = texts(&held);
                let wasted = held.after(r#type, std::slice::from_ref(&write), LogIs::Own).unwrap();
                if let Some(undo) = wasted.undo {
                    undo.undo();
                }
                assert_eq!(texts(&held), before);
                let snapshot = held.clone();
                held = held.after(r#type, &[write], LogIs::Own).unwrap().after;
                assert_eq!(texts(&snapshot), before);
                assert_eq!(texts(&held), model);
                assert_eq!(held.len(), model.len());
            }
        }
    }

    #[test]
    fn a_log_that_is_mostly_dead_is_left() {
        let insert = |number: u32| Write::Insert(bytes(&number.to_string()));
        let all: Vec<Write> = (0..1000).map(insert).collect();
        let full = Held::None.after(TableType::Bag, &all, LogIs::Own).unwrap().after;
        let removed: Vec<Write> =
            (0..998).map(|number: u32| Write::DeleteTuple(bytes(&number.to_string()))).collect();
        let two = full.after(TableType::Bag, &removed, LogIs::Own).unwrap().after;
        assert!(two.log().is_none());
        assert_eq!(texts(&two), ["998", "999"]);
    }

    #[test]
    fn a_foreign_log_stays_as_it_is() {
        let insert = |number: u32| Write::Insert(bytes(&number.to_string()));
        let all: Vec<Write> = (0..100).map(insert).collect();
        let row = Held::None.after(TableType::Bag, &all[..50], LogIs::Own).unwrap().after;
        let mine = row.after(TableType::Bag, &all[50..], LogIs::Foreign).unwrap().after;
        assert_eq!((row.len(), mine.len()), (50, 100));
        let next = row.after(TableType::Bag, &all[90..], LogIs::Own).unwrap().after;
        assert_eq!((next.len(), mine.len()), (60, 100));
    }
}
