//! Tables, their snapshots and cursors.

use std::ffi::CString;
use std::ptr;

use crate::api::{self, Status};
use crate::input::Bytes;
use crate::model::{CursorId, TableId, Write};
use crate::world::{OpenTable, Snapshot, TABLES, World, at, say, unset};

const NAMES: [&[u8]; 3] = [b"t", "\u{fc}\u{20ac}".as_bytes(), &[b'n'; 255]];
const NUMBERS: [i64; 7] = [1, 0, -1, 1000, i64::MAX, i64::MIN, i64::MAX - 1];

/// The tuples that C sees, copied.
pub fn copied(data: *const api::Tuple, count: usize) -> Vec<(Bytes, Bytes)> {
    assert_eq!(data.is_null(), count == 0);
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: the library says so.
    let tuples = unsafe { std::slice::from_raw_parts(data, count) };
    let bytes = |data: *const u8, len: usize| match len {
        0 => Bytes::new(),
        // SAFETY: as above.
        _ => unsafe { std::slice::from_raw_parts(data, len) }.to_vec(),
    };
    tuples
        .iter()
        .map(|tuple| (bytes(tuple.key, tuple.key_len), bytes(tuple.value, tuple.value_len)))
        .collect()
}

pub fn shown_by(tuples: *const api::Tuples) -> Vec<(Bytes, Bytes)> {
    let mut count = usize::MAX;
    let data = api::etslock_tuples_data(tuples, &mut count);
    copied(data, count)
}

/// The values of one key, as tuples.
pub fn tuples_of(key: &[u8], values: &[Bytes]) -> Vec<(Bytes, Bytes)> {
    values.iter().map(|value| (key.to_vec(), value.clone())).collect()
}

pub fn or_not_found(values: &[Bytes]) -> Status {
    if values.is_empty() { api::NOT_FOUND } else { api::OK }
}

impl World {
    pub fn some_table(&mut self) -> OpenTable {
        let slot = self.input.of(&[0, 0, 1, 2]);
        match self.tables[slot] {
            Some(open) => open,
            None => self.new_table(slot),
        }
    }

    pub fn table_step(&mut self) {
        let open = self.some_table();
        let OpenTable { table, id } = open;
        let key = self.input.key();
        let k = key.escape_ascii().to_string();
        let (data, len) = (at(&key), key.len());
        let writable = self.model.writable(id);
        let present = or_not_found(self.model.tables[id].values(&key));
        match self.input.below(12) {
            0..=2 => {
                let value = self.input.value();
                let insert =
                    || api::etslock_table_insert(table, data, len, at(&value), value.len());
                let what = format_args!("table_insert({id}, {k}, {})", value.escape_ascii());
                if self.call(what, insert, &[writable]) == api::OK {
                    self.model.write(id, &key, &Write::Insert(value));
                }
            }
            3 => {
                let value = self.input.value();
                let insert =
                    || api::etslock_table_insert_new(table, data, len, at(&value), value.len());
                let wanted = match (writable, present) {
                    (api::OK, api::OK) => api::EXISTS,
                    (writable, _) => writable,
                };
                let what = format_args!("table_insert_new({id}, {k}, {})", value.escape_ascii());
                if self.call(what, insert, &[wanted]) == api::OK {
                    self.model.write(id, &key, &Write::Insert(value));
                }
            }
            4 => {
                let mut tuples = unset();
                let lookup = || api::etslock_table_lookup(table, data, len, &mut tuples);
                self.call(format_args!("table_lookup({id}, {k})"), lookup, &[present]);
                self.keep(tuples, tuples_of(&key, self.model.tables[id].values(&key)));
            }
            5 => {
                let member = || api::etslock_table_member(table, data, len);
                self.call(format_args!("table_member({id}, {k})"), member, &[present]);
            }
            6 => {
                let wanted = if writable == api::OK { present } else { writable };
                let mut tuples = unset();
                let take = || api::etslock_table_take(table, data, len, &mut tuples);
                let status = self.call(format_args!("table_take({id}, {k})"), take, &[wanted]);
                if status == api::OK {
                    let taken = tuples_of(&key, self.model.tables[id].values(&key));
                    self.keep(tuples, taken);
                    self.model.write(id, &key, &Write::Delete);
                } else {
                    self.keep(tuples, Vec::new());
                }
            }
            7 => {
                let delete = || api::etslock_table_delete(table, data, len);
                let what = format_args!("table_delete({id}, {k})");
                if self.call(what, delete, &[writable]) == api::OK {
                    self.model.write(id, &key, &Write::Delete);
                }
            }
            8 => {
                let value = self.input.value();
                let delete =
                    || api::etslock_table_delete_tuple(table, data, len, at(&value), value.len());
                let what = format_args!("table_delete_tuple({id}, {k}, {})", value.escape_ascii());
                if self.call(what, delete, &[writable]) == api::OK {
                    self.model.write(id, &key, &Write::DeleteTuple(value));
                }
            }
            9 | 10 => self.update_counter(open, &key),
            _ => {
                let clear = || api::etslock_table_clear(table);
                if self.call(format_args!("table_clear({id})"), clear, &[writable]) == api::OK {
                    self.model.clear(id);
                }
            }
        }
    }

    fn update_counter(&mut self, open: OpenTable, key: &[u8]) {
        let (add, initial) = (self.input.of(&NUMBERS), self.input.of(&NUMBERS));
        let mut value = 77;
        let update = || {
            api::etslock_table_update_counter(
                open.table,
                at(key),
                key.len(),
                add,
                initial,
                &mut value,
            )
        };
        let what = format_args!(
            "table_update_counter({}, {}, {add}, {initial})",
            open.id,
            key.escape_ascii()
        );
        if self.model.writable(open.id) == api::ERR_GUARDED {
            self.call(what, update, &[api::ERR_GUARDED, api::ERR_TYPE]);
            return;
        }
        match self.model.update_counter(open.id, key, add, initial) {
            Ok(new) => {
                self.call(what, update, &[api::OK]);
                assert_eq!(value, new);
            }
            Err(wanted) => {
                self.call(what, update, &[wanted]);
                assert_eq!(value, 77, "an output was written on failure");
            }
        }
    }

    // Handles.

    /// Makes or frees handles to tables and lock tables.
    pub fn life_step(&mut self) {
        let slot = self.input.below(TABLES);
        match self.input.below(6) {
            0 | 1 if self.tables[slot].is_none() => {
                self.new_table(slot);
            }
            0 | 1 => self.free_table(slot),
            2 if self.tables[slot].is_none() => self.open_table(slot),
            2 | 3 => self.new_named_table(slot),
            _ => self.lock_table_step(),
        }
    }

    /// Without a name.
    pub fn new_table(&mut self, slot: usize) -> OpenTable {
        let kind = self.input.byte();
        self.make_table(slot, i32::from(kind % 3), kind / 3 % 4 == 3, None)
            .expect("nothing forbids a table without a name")
    }

    fn new_named_table(&mut self, slot: usize) {
        let kind = self.input.byte();
        let name = self.input.of(&NAMES);
        self.free_table(slot);
        self.make_table(slot, i32::from(kind % 3), kind / 3 % 4 == 3, Some(name));
    }

    fn make_table(
        &mut self,
        slot: usize,
        r#type: i32,
        guarded: bool,
        name: Option<&[u8]>,
    ) -> Option<OpenTable> {
        let c_name = name.map(|name| CString::new(name).expect("no NUL inside"));
        let mut options = api::TableOptions {
            struct_size: 0,
            r#type: 77,
            access: 77,
            reserved: 77,
            name: ptr::dangling(),
        };
        api::etslock_table_options_init(&mut options, size_of::<api::TableOptions>());
        options.r#type = r#type;
        options.access = i32::from(guarded);
        if let Some(name) = &c_name {
            options.name = name.as_ptr();
        }
        let taken = name.is_some_and(|name| self.model.names.contains_key(name));
        let defaults = r#type == api::SET && !guarded && name.is_none();
        let given = if defaults { ptr::null() } else { &raw const options };
        let mut table = unset();
        let status = self.call(
            format_args!("table_new(type {type}, guarded {guarded}, {c_name:?})"),
            || api::etslock_table_new(given, &mut table),
            &[if taken { api::EXISTS } else { api::OK }],
        );
        assert_eq!(table.is_null(), status != api::OK);
        let made = || OpenTable {
            table,
            id: self.model.new_table(r#type, guarded, name.map(<[u8]>::to_vec)),
        };
        self.tables[slot] = (status == api::OK).then(made);
        self.tables[slot]
    }

    fn open_table(&mut self, slot: usize) {
        let name = self.input.of(&NAMES);
        let c_name = CString::new(name).expect("no NUL inside");
        let known: Option<TableId> = self.model.names.get(name).copied();
        let mut table = unset();
        self.call(
            format_args!("table_open({c_name:?})"),
            || api::etslock_table_open(c_name.as_ptr(), &mut table),
            &[if known.is_some() { api::OK } else { api::NOT_FOUND }],
        );
        assert_eq!(table.is_null(), known.is_none());
        self.tables[slot] = known.map(|id| {
            self.model.tables[id].handles += 1;
            OpenTable { table, id }
        });
    }

    pub fn free_table(&mut self, slot: usize) {
        let Some(open) = self.tables[slot].take() else { return };
        say(format_args!("etslock_table_free({})", open.id));
        api::etslock_table_free(open.table);
        self.model.free_table(open.id);
    }

    // Snapshots.

    /// Keeps a snapshot for later, if there is room, and checks what it shows.
    pub fn keep(&mut self, tuples: *mut api::Tuples, wanted: Vec<(Bytes, Bytes)>) {
        assert_eq!(shown_by(tuples), wanted);
        assert_eq!(tuples.is_null(), wanted.is_empty());
        match self.snapshots.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) if !tuples.is_null() => *slot = Some(Snapshot { tuples, shown: wanted }),
            _ => api::etslock_tuples_free(tuples),
        }
    }

    /// Frees a snapshot, which still shows what it did.
    pub fn free_snapshot(&mut self, slot: usize) {
        let Some(Snapshot { tuples, shown }) = self.snapshots[slot].take() else { return };
        if crate::planted("freed") {
            api::etslock_tuples_free(tuples);
        }
        assert_eq!(shown_by(tuples), shown, "a snapshot changed");
        if !crate::planted("leak") {
            api::etslock_tuples_free(tuples);
        }
    }

    // Cursors.

    pub fn cursor_step(&mut self) {
        let slot = self.input.below(self.cursors.len());
        match self.cursors[slot] {
            Some((cursor, id)) => {
                self.next_of_cursor(cursor, id);
            }
            None => {
                let open = self.some_table();
                let mut cursor = unset();
                let new = || api::etslock_table_cursor(open.table, &mut cursor);
                self.call(format_args!("table_cursor({})", open.id), new, &[api::OK]);
                self.cursors[slot] = Some((cursor, self.model.new_cursor(open.id)));
            }
        }
    }

    /// Whether there was a further key.
    pub fn next_of_cursor(&mut self, cursor: *mut api::Cursor, id: CursorId) -> bool {
        let mut tuples = unset();
        let next = || api::etslock_cursor_next(cursor, &mut tuples);
        let found = self.call(format_args!("cursor_next()"), next, &[api::OK, api::NOT_FOUND]);
        let shown = shown_by(tuples);
        assert_eq!(found == api::OK, !shown.is_empty());
        match shown.first() {
            Some((key, _)) => {
                let wanted = tuples_of(key, self.model.cursor_showed(id, key));
                self.keep(tuples, wanted);
                true
            }
            None => {
                self.model.cursor_ended(id);
                false
            }
        }
    }

    pub fn free_cursor(&mut self, slot: usize) {
        if let Some((cursor, _)) = self.cursors[slot].take() {
            say(format_args!("etslock_cursor_free()"));
            api::etslock_cursor_free(cursor);
        }
    }

    /// Frees a snapshot or a cursor.
    pub fn let_go_step(&mut self) {
        let slot = self.input.below(8);
        if slot < self.snapshots.len() {
            self.free_snapshot(slot);
        } else {
            self.free_cursor(slot % self.cursors.len());
        }
    }
}
