//! See [`vstgt_fuzz::cdb`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::cdb::run(data));
