//! Traces of lookups: which key is asked for when. The same seed gives the same trace.

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product")
    }

    /// A number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let float = (self.draw() >> 11) as f64;
        float / 9_007_199_254_740_992.0
    }
}

/// A hash of `number`.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Ranks by Zipf's law: rank `r` (from 0) is drawn in proportion to 1 / (r + 1)^exponent.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// The law for `ranks` ranks.
    #[must_use]
    pub fn new(ranks: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=ranks).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let at = random.unit() * self.cumulated.last().copied().unwrap_or(0.0);
        let rank = self.cumulated.partition_point(|sum| *sum <= at);
        rank.min(self.cumulated.len() - 1) as u64
    }
}

/// A load to compare policies on.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Zipf's law with this exponent.
    Zipf(f64),
    /// Zipf's law (0.9), and every 20,000 lookups 20,000 keys once each that never come again.
    ZipfWithScans,
    /// Keys round and round.
    Loop,
    /// Zipf's law (0.9), where every 100,000 lookups another tenth of the ranks' keys is replaced by new ones.
    Shifting,
    /// The newest keys are the most wanted: a key is new every tenth lookup, and its lag behind the newest follows Zipf's law.
    Newest,
    /// Half Zipf's law (0.9), a fifth a loop, a fifth keys that come once, a tenth the newest.
    Mixed,
}

impl Load {
    /// What tables call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Zipf(exponent) => format!("Zipf {exponent}"),
            Self::ZipfWithScans => "Zipf 0.9 + scans".to_owned(),
            Self::Loop => "loop".to_owned(),
            Self::Shifting => "shifting Zipf 0.9".to_owned(),
            Self::Newest => "newest first".to_owned(),
            Self::Mixed => "mixed".to_owned(),
        }
    }

    /// `lookups` lookups among about `keys` keys.
    #[must_use]
    pub fn trace(&self, keys: u32, lookups: usize, seed: u64) -> Vec<u64> {
        const FRESH: u64 = 1 << 40;
        const ROUND: u64 = 2 << 40;
        const NEWEST: u64 = 3 << 40;
        let mut random = Random(seed);
        let mut trace = Vec::with_capacity(lookups);
        let exponent = if let Self::Zipf(exponent) = self { *exponent } else { 0.9 };
        let zipf = Zipf::new(keys, exponent);
        let mut fresh = FRESH;
        let mut owners: Vec<u64> = (0..u64::from(keys)).collect();
        let mut newest = NEWEST;
        // The loop of the mixed load is a tenth of the keys, so that it fits a cache of medium size.
        let round =
            if matches!(self, Self::Mixed) { u64::from(keys / 10) } else { u64::from(keys) };
        let mut step = 0;
        while trace.len() < lookups {
            let number = trace.len() as u64 + 1;
            match self {
                Self::Zipf(_) => trace.push(zipf.draw(&mut random)),
                Self::ZipfWithScans => {
                    trace.push(zipf.draw(&mut random));
                    if number % 40_000 == 20_000 {
                        trace.extend((0..20_000).map(|key| fresh + key));
                        fresh += 20_000;
                    }
                }
                Self::Loop => trace.push(ROUND + (number - 1) % round),
                Self::Shifting => {
                    if number.is_multiple_of(100_000) {
                        for _ in 0..keys / 10 {
                            let rank = usize::try_from(random.below(u64::from(keys)));
                            fresh += 1;
                            owners[rank.expect("a rank")] = fresh;
                        }
                    }
                    let rank = usize::try_from(zipf.draw(&mut random)).expect("a rank");
                    trace.push(owners[rank]);
                }
                Self::Newest => {
                    newest += u64::from(number.is_multiple_of(10));
                    trace.push(newest - zipf.draw(&mut random).min(newest - NEWEST));
                }
                Self::Mixed => match random.below(10) {
                    0..5 => trace.push(zipf.draw(&mut random)),
                    5..7 => {
                        step += 1;
                        trace.push(ROUND + step % round);
                    }
                    7..9 => {
                        fresh += 1;
                        trace.push(fresh);
                    }
                    _ => {
                        newest += u64::from(random.below(10) == 0);
                        trace.push(newest - zipf.draw(&mut random).min(newest - NEWEST));
                    }
                },
            }
        }
        trace.truncate(lookups);
        trace
    }
}
