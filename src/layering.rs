//! Holds the `use` edges between rooms to the table in the crate documentation.
