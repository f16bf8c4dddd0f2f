//! See [`vstgt_fuzz::state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::state::run(data));
