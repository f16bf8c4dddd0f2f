//! The rows. Each family of commands has a file with a `ROWS`; here they become one table, by ascending operation code and
//! service action.
//!
//! A new family is a file and a line in [`FAMILIES`].

mod access;
mod atomic;
mod diagnostic;
mod inquiry;
mod medium;
mod reserve;
mod settings;
mod third_party_copy;
mod token;

use super::Row;

const FAMILIES: &[&[Row]] = &[
    access::ROWS,
    atomic::ROWS,
    diagnostic::ROWS,
    inquiry::ROWS,
    medium::ROWS,
    reserve::ROWS,
    settings::ROWS,
    third_party_copy::ROWS,
    token::ROWS,
];

const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// All commands.
pub(super) static ROWS: [Row; COUNT] = {
    let mut rows = [FAMILIES[0][0]; COUNT];
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut at = 0;
        while at < FAMILIES[family].len() {
            // Insertion: the rows in front of `count` are in order.
            let mut to = count;
            while to > 0 && order(&FAMILIES[family][at]) < order(&rows[to - 1]) {
                rows[to] = rows[to - 1];
                to -= 1;
            }
            rows[to] = FAMILIES[family][at];
            count += 1;
            at += 1;
        }
        family += 1;
    }
    rows
};

/// What rows are sorted by. (An operation code has either service actions or one row.)
const fn order(row: &Row) -> u32 {
    let service_action = match row.service_action {
        None => 0,
        Some(service_action) => service_action as u32,
    };
    (row.opcode as u32) << 16 | service_action
}

/// `FIRST[opcode]..FIRST[opcode + 1]` are the operation code's rows.
pub(super) static FIRST: [u8; 257] = {
    let mut first = [0; 257];
    let mut opcode = 0;
    let mut row = 0;
    while opcode < 256 {
        first[opcode] = row as u8;
        while row < COUNT && ROWS[row].opcode as usize == opcode {
            row += 1;
        }
        opcode += 1;
    }
    assert!(row == COUNT && COUNT < 256);
    first[256] = row as u8;
    first
};
