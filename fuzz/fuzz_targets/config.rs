//! See [`vstgt_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::config::run(data));
