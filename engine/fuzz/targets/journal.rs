//! Fuzzes `fuzz_doors::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| blockyard_engine_fuzz::run(
    input,
    blockyard_engine::fuzz_doors::journal
));
