//! See [`vstgt_fuzz::srp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::srp::run(data));
