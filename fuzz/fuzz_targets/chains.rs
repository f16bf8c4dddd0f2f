//! See [`vstgt_fuzz::chains`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::chains::run(data));
