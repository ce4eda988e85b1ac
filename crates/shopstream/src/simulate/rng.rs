//! Random numbers that are the same on every machine and in every release.
//!
//! xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64. Own code, because a library may change its
//! generator and every recorded seed would tell another story.

pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Rng { state }
    }

    pub fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..n`, without the bias of a remainder worth speaking of for n far under 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Waiting time of a Poisson process, in microseconds, cut at ten times the mean.
    pub fn wait_us(&mut self, mean_us: f64) -> i64 {
        let wait = -(1.0 - self.unit()).ln() * mean_us;
        wait.min(10.0 * mean_us) as i64
    }
}

/// Ranks drawn with weight 1/(rank+1): few items get most of the looks.
pub struct Zipf {
    cumulative: Vec<u64>,
}

impl Zipf {
    pub fn new(ranks: usize) -> Zipf {
        let mut sum = 0;
        let cumulative = (0..ranks as u64)
            .map(|rank| {
                sum += 1_000_000_000 / (rank + 1);
                sum
            })
            .collect();
        Zipf { cumulative }
    }

    pub fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1);
        let at = rng.below(total);
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_tells_the_same_story() {
        let mut rng = Rng::new(1);
        let numbers: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(numbers, [14971601782005023387, 13781649495232077965, 1847458086238483744]);
    }

    #[test]
    fn first_rank_is_drawn_twice_as_often_as_the_second() {
        let (zipf, mut rng) = (Zipf::new(100), Rng::new(7));
        let mut counts = [0; 100];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut rng)] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
        assert!(counts[99] > 0);
    }
}
