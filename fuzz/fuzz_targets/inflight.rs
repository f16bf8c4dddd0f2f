//! See [`vstgt_fuzz::inflight`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vstgt_fuzz::inflight::run(data));
