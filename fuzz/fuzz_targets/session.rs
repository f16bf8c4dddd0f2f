//! See [`vstgt_fuzz::session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::session::run(data));
