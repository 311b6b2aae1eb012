//! What a prompt looks like: its words choose palette, medium and what drifts through the air.
//!
//! Promises a look for every prompt. A prompt without a known word gets hues from its hash, so that two
//! prompts can be told apart. Understands nothing else: this is a stand-in, not a model.

use super::noise;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// How the paint is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// Brushed planes with thin ink.
    Gouache,
    /// Pigment on white paper, with a ragged margin.
    Watercolour,
    /// Few flat tones with bold ink.
    Poster,
    /// Broad strokes, hardly any ink.
    Oil,
    /// Lines that shine.
    Glow,
    /// Strokes on paper.
    Pencil,
}

/// What drifts through the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    Nothing,
    Leaves,
    Snow,
    Petals,
    Stars,
    Sparks,
    Rain,
    Bubbles,
}

/// A finished choice. Ramps go from dark to light.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    /// For what is cool or neutral in the reference.
    pub(super) cool: [Rgb; 5],
    /// For what is warm or strongly coloured in the reference.
    pub(super) warm: [Rgb; 5],
    /// Of lines.
    pub(super) ink: Rgb,
    pub(super) medium: Medium,
    pub(super) drift: Drift,
}

struct Palette {
    words: &'static [&'static str],
    cool: [u32; 5],
    warm: [u32; 5],
    drift: Drift,
}

/// The first palette one of whose words is in the prompt counts, so the more telling ones come first.
const PALETTES: &[Palette] = &[
    Palette {
        words: &["neon", "cyberpunk", "synthwave", "vaporwave", "tron"],
        cool: [0x0004_0312, 0x0012_1048, 0x0022_2f9c, 0x0014_b4e4, 0x00c8_fbff],
        warm: [0x000c_0318, 0x003c_0a5c, 0x00a3_12a0, 0x00ff_3fa4, 0x00ff_d4f0],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["autumn", "fall", "october", "november", "harvest", "thanksgiving", "halloween"],
        cool: [0x0018_2026, 0x003d_4a48, 0x0094_8a64, 0x00ea_cf92, 0x00ff_f6dc],
        warm: [0x0034_0d12, 0x0086_2415, 0x00d4_561a, 0x00f5_a02e, 0x00ff_e694],
        drift: Drift::Leaves,
    },
    Palette {
        words: &["winter", "snow", "snowy", "ice", "icy", "frost", "frozen", "christmas", "arctic", "december"],
        cool: [0x000c_1a33, 0x0027_4b7a, 0x006f_9ccc, 0x00bc_d9ee, 0x00fa_fdff],
        warm: [0x0020_1c44, 0x0050_4f96, 0x009c_94d0, 0x00dc_d0ec, 0x00ff_f8fa],
        drift: Drift::Snow,
    },
    Palette {
        words: &["spring", "blossom", "blossoms", "cherry", "sakura", "april", "floral", "flowers"],
        cool: [0x001f_3046, 0x004d_7c86, 0x0096_c6ac, 0x00dc_ecca, 0x00ff_fdf5],
        warm: [0x004a_1c3c, 0x00a8_447a, 0x00ec_88b0, 0x00fa_c4d6, 0x00ff_f4f2],
        drift: Drift::Petals,
    },
    Palette {
        words: &["rain", "rainy", "storm", "stormy", "monsoon"],
        cool: [0x000b_141d, 0x0027_3d4d, 0x005a_7b8c, 0x00a6_c0c6, 0x00ee_f5f2],
        warm: [0x0015_1520, 0x0040_4358, 0x0080_7f90, 0x00d2_b48c, 0x00ff_ecc4],
        drift: Drift::Rain,
    },
    Palette {
        words: &["sunset", "sunrise", "dusk", "dawn", "golden"],
        cool: [0x001b_1140, 0x004a_2470, 0x00a0_3a82, 0x00f0_707a, 0x00ff_d2a8],
        warm: [0x002a_0f2e, 0x007c_1f4a, 0x00e0_483e, 0x00ff_9440, 0x00ff_e59a],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["night", "midnight", "moon", "moonlit", "moonlight", "stars", "starry", "galaxy", "space", "nocturne"],
        cool: [0x0005_0a1e, 0x0012_204d, 0x002f_4a8f, 0x007c_9bd0, 0x00f2_f4ff],
        warm: [0x0010_0b1e, 0x003e_2a4e, 0x0090_5a58, 0x00ec_b45e, 0x00ff_f4c4],
        drift: Drift::Stars,
    },
    Palette {
        words: &["fire", "flame", "flames", "lava", "ember", "embers", "volcano", "inferno"],
        cool: [0x000d_0a10, 0x0032_1a26, 0x0073_2b2c, 0x00d0_6a3c, 0x00ff_d89a],
        warm: [0x001a_0505, 0x006e_0f0a, 0x00d8_3a0c, 0x00ff_9a1c, 0x00ff_f0a0],
        drift: Drift::Sparks,
    },
    Palette {
        words: &["underwater", "coral", "aquatic", "reef"],
        cool: [0x0004_1b2d, 0x000a_4a6b, 0x001a_8fa6, 0x007f_d6cf, 0x00f0_fff4],
        warm: [0x0012_2038, 0x0020_6078, 0x0048_b09c, 0x00d0_e49c, 0x00ff_f5cc],
        drift: Drift::Bubbles,
    },
    Palette {
        words: &["ocean", "sea", "water", "lake", "river", "harbour", "harbor"],
        cool: [0x0004_1b2d, 0x000a_4a6b, 0x001a_8fa6, 0x007f_d6cf, 0x00f0_fff4],
        warm: [0x0008_2634, 0x0014_6468, 0x0040_ac94, 0x00c4_e2a0, 0x00ff_f5cc],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["forest", "jungle", "moss", "meadow", "garden", "botanical", "woodland"],
        cool: [0x000c_1c16, 0x001f_4432, 0x004d_8058, 0x00a3_c48a, 0x00f4_f5d7],
        warm: [0x001c_1a0e, 0x004c_4a1c, 0x008f_8a32, 0x00d6_c864, 0x00ff_f3b8],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["summer", "tropical", "beach", "sunny", "holiday", "july", "august"],
        cool: [0x0008_2c54, 0x000f_6ea0, 0x002c_b8c8, 0x0098_e4d4, 0x00ff_fdf0],
        warm: [0x0054_1a30, 0x00c8_3c4c, 0x00ff_8450, 0x00ff_c65c, 0x00ff_f2b8],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["desert", "sand", "sahara", "canyon", "savanna", "western"],
        cool: [0x002b_1d2e, 0x0062_4450, 0x00a8_7c6c, 0x00e4_c098, 0x00ff_f3da],
        warm: [0x0036_160f, 0x0086_3d22, 0x00cc_7a3c, 0x00ef_b66c, 0x00ff_ebc0],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["vintage", "sepia", "retro", "antique", "nostalgic"],
        cool: [0x001d_1a18, 0x004a_4138, 0x0088_7a64, 0x00c8_b894, 0x00f7_ecd2],
        warm: [0x0028_1610, 0x0063_3a26, 0x00a8_6c42, 0x00dd_ae78, 0x00fb_ebc8],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["pastel", "candy", "dreamy", "soft"],
        cool: [0x0048_4a78, 0x0080_92c4, 0x00ac_d0e6, 0x00d4_eee4, 0x00ff_fdf6],
        warm: [0x0070_4474, 0x00c0_80b4, 0x00f4_b0c0, 0x00fd_d8c4, 0x00ff_f8e6],
        drift: Drift::Nothing,
    },
    Palette {
        words: &["noir", "monochrome", "charcoal", "black-and-white", "pencil", "etching", "engraving"],
        cool: [0x000c_0d11, 0x0036_393f, 0x0078_7c80, 0x00c2_c3c0, 0x00f8_f6f0],
        warm: [0x0012_0f0e, 0x0044_3e3a, 0x008c_847a, 0x00d2_cabc, 0x00fb_f7ec],
        drift: Drift::Nothing,
    },
];

/// Hue in degrees and saturation of words for colours.
const COLOURS: &[(&str, f32, f32)] = &[
    ("red", 2.0, 0.8),
    ("crimson", 350.0, 0.8),
    ("orange", 26.0, 0.9),
    ("gold", 42.0, 0.8),
    ("yellow", 50.0, 0.9),
    ("lime", 84.0, 0.8),
    ("green", 132.0, 0.55),
    ("emerald", 152.0, 0.7),
    ("teal", 178.0, 0.7),
    ("turquoise", 176.0, 0.7),
    ("cyan", 190.0, 0.8),
    ("blue", 216.0, 0.75),
    ("indigo", 240.0, 0.6),
    ("purple", 276.0, 0.6),
    ("violet", 268.0, 0.65),
    ("magenta", 310.0, 0.75),
    ("pink", 338.0, 0.75),
    ("brown", 24.0, 0.45),
];

const MEDIA: &[(&str, Medium)] = &[
    ("watercolour", Medium::Watercolour),
    ("watercolor", Medium::Watercolour),
    ("aquarelle", Medium::Watercolour),
    ("neon", Medium::Glow),
    ("cyberpunk", Medium::Glow),
    ("synthwave", Medium::Glow),
    ("vaporwave", Medium::Glow),
    ("glowing", Medium::Glow),
    ("poster", Medium::Poster),
    ("pop-art", Medium::Poster),
    ("comic", Medium::Poster),
    ("manga", Medium::Poster),
    ("cartoon", Medium::Poster),
    ("woodcut", Medium::Poster),
    ("linocut", Medium::Poster),
    ("oil", Medium::Oil),
    ("impressionist", Medium::Oil),
    ("impasto", Medium::Oil),
    ("pencil", Medium::Pencil),
    ("sketch", Medium::Pencil),
    ("charcoal", Medium::Pencil),
    ("etching", Medium::Pencil),
    ("engraving", Medium::Pencil),
];

impl Look {
    /// The look of `prompt`. The same prompt always looks the same; the seed only shades it.
    pub(super) fn of(prompt: &str) -> Self {
        let lower = prompt.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        // "autumn-themed" means autumn, "pop-art" means itself.
        let has = |word: &str| words.iter().any(|w| *w == word || w.split('-').any(|part| part == word));
        let medium = MEDIA.iter().find(|(word, _)| has(word)).map_or(Medium::Gouache, |(_, medium)| *medium);

        if let Some(palette) = PALETTES.iter().find(|p| p.words.iter().any(|word| has(word))) {
            let (cool, warm) = (palette.cool.map(rgb), palette.warm.map(rgb));
            return Self { cool, warm, ink: ink_for(medium, cool[0], warm[3]), medium, drift: palette.drift };
        }
        let mut named = COLOURS.iter().filter(|(word, ..)| has(word)).map(|(_, hue, saturation)| (*hue, *saturation));
        let hash = noise::of_text(lower.trim());
        let free = ((hash % 360) as f32, 0.5 + (hash >> 20 & 0xff) as f32 / 1020.0);
        let apart = 130.0 + (hash >> 32 & 0xff) as f32 / 256.0 * 90.0;
        let (first, second) = match (named.next(), named.next()) {
            (Some(first), Some(second)) => (second, first),
            (Some(first), None) => ((first.0 + 24.0, first.1 * 0.6), first),
            (None, _) => (free, (free.0 + apart, 0.75)),
        };
        let (cool, warm) = (ramp(first.0, first.1), ramp(second.0, second.1));
        Self { cool, warm, ink: ink_for(medium, cool[0], warm[3]), medium, drift: Drift::Nothing }
    }
}

fn ink_for(medium: Medium, dark: Rgb, bright: Rgb) -> Rgb {
    if medium == Medium::Glow { bright } else { dark.map(|channel| (u16::from(channel) * 7 / 10) as u8) }
}

fn rgb(hex: u32) -> Rgb {
    let [_, red, green, blue] = hex.to_be_bytes();
    [red, green, blue]
}

/// Five tones of one hue; the lights drift towards yellow and the darks towards blue, as daylight does.
fn ramp(hue: f32, saturation: f32) -> [Rgb; 5] {
    let toward = |hue: f32, goal: f32, part: f32| {
        let turn = (goal - hue + 540.0).rem_euclid(360.0) - 180.0;
        (hue + turn.clamp(-60.0, 60.0) * part).rem_euclid(360.0)
    };
    let hue = hue.rem_euclid(360.0);
    [
        hsl(toward(hue, 250.0, 0.5), saturation * 0.75, 0.09),
        hsl(toward(hue, 250.0, 0.3), saturation * 0.85, 0.26),
        hsl(hue, saturation * 0.9, 0.49),
        hsl(toward(hue, 55.0, 0.25), saturation, 0.73),
        hsl(toward(hue, 55.0, 0.5), (saturation * 1.1).min(1.0), 0.95),
    ]
}

fn hsl(hue: f32, saturation: f32, light: f32) -> Rgb {
    let reach = saturation * light.min(1.0 - light);
    [0.0, 8.0, 4.0].map(|n| {
        let k = (n + hue / 30.0) % 12.0;
        let value = light - reach * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn light(colour: Rgb) -> u32 {
        colour.iter().zip([299, 587, 114]).map(|(channel, weight)| u32::from(*channel) * weight).sum()
    }

    #[test]
    fn every_ramp_rises_from_dark_to_light() {
        let known = PALETTES.iter().flat_map(|p| [p.cool.map(rgb), p.warm.map(rgb)]);
        for ramp in known.chain((0..36).map(|i| ramp(i as f32 * 10.0, 0.8))) {
            assert!(ramp.windows(2).all(|pair| light(pair[0]) < light(pair[1])), "{ramp:?}");
        }
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        assert_eq!(Look::of("A vibrant Autumn-themed coffee shop").drift, Drift::Leaves);
        assert_eq!(Look::of("falling").drift, Drift::Nothing);
        assert_eq!(Look::of("WATERCOLOUR of a cat").medium, Medium::Watercolour);
        assert_eq!(Look::of("pop-art cat").medium, Medium::Poster);
    }

    #[test]
    fn prompts_without_a_known_word_can_be_told_apart() {
        assert_ne!(Look::of("a quiet room"), Look::of("a loud room"));
        assert_eq!(Look::of("a quiet room"), Look::of("A quiet room "));
    }

    #[test]
    fn a_named_colour_rules_the_picture() {
        let [red, green, blue] = Look::of("all in blue").warm[2];
        assert!(blue > red && blue > green);
    }
}
