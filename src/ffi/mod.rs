//! The C ABI: one file per noun. Translation first, one line of work, one line of answer.
//!
//! The contracts that the `# Safety` chapters name stand at the top of the header.

#![expect(unsafe_code, reason = "the only door between C and Rust")]
#![expect(unreachable_pub, reason = "reached through the linker")]
#![expect(non_camel_case_types, reason = "the names are C's")]

mod across;
mod boundary;
mod completions;
mod cursor;
mod ending;
mod fork;
mod guard;
mod handle;
mod lock_table;
mod options;
mod sized;
mod status;
mod stop;
mod table;
mod token;
mod tuples;
mod with_lock;
