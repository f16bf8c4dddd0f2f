//! See [`vstgt_fuzz::image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::image::run(data));
