#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reimagined_fuzz::reply(data));
