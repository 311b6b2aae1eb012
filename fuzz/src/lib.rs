//! What must hold for whatever comes from outside: the bodies of the fuzz targets.
//!
//! Each takes any bytes and panics where a promise is broken. They run under a fuzzer
//! (`cargo +nightly fuzz run NAME`), and over the checked-in corpora in the ordinary tests
//! (`tests/corpus.rs`), so nothing here needs more than the library's public items.

mod answers;
mod pictures;
mod texts;

pub use answers::{reply, retry_after};
pub use pictures::{prepare, whole};
pub use texts::{preset, sidecar};

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("sidecar", sidecar),
    ("preset", preset),
    ("whole", whole),
    ("prepare", prepare),
    ("reply", reply),
    ("retry_after", retry_after),
];

/// Numbers that look like chance and depend on the input alone.
fn dice(data: &[u8]) -> impl FnMut(usize) -> usize {
    let mut state =
        data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    move |sides| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides.max(1)
    }
}
