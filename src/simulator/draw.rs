//! Seeded random draws. Only exact arithmetic and `exp`, so that a fleet is
//! the same on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// An independent stream of the same seed for each `stream`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Whole number in `low..high`.
    pub fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + (self.unit() * (high - low) as f64) as u64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Mean 0, variance 1: the sum of eight 16-bit uniforms, which ends at 4.9 deviations.
    pub fn normal(&mut self) -> f64 {
        let mut sum = 0;
        for _ in 0..2 {
            let mut bits = self.0.next_u64();
            for _ in 0..4 {
                sum += (bits & 0xffff) as i64;
                bits >>= 16;
            }
        }
        (sum - 4 * 0xffff) as f64 / (65536.0 * (8.0_f64 / 12.0).sqrt())
    }

    pub fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u32;
        }
        let limit = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// First-order autoregressive noise with unit variance.
#[derive(Default)]
pub(super) struct Noise(f64);

impl Noise {
    pub fn next(&mut self, memory: f64, draw: &mut Draw) -> f64 {
        self.0 = memory * self.0 + (1.0 - memory * memory).sqrt() * draw.normal();
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_named_distributions() {
        let moments = |mut next: Box<dyn FnMut() -> f64>| {
            let values: Vec<f64> = (0..40_000).map(|_| next()).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance =
                values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
            (mean, variance)
        };
        let check = |(mean, variance): (f64, f64), expected: (f64, f64)| {
            let scale = expected.1.max(1.0);
            assert!((mean - expected.0).abs() < 0.03 * scale, "{mean}");
            assert!((variance - expected.1).abs() < 0.05 * scale, "{variance}");
        };
        let mut draw = Draw::new(1, 0);
        check(moments(Box::new(move || draw.normal())), (0.0, 1.0));
        for mean in [0.5, 8.0, 60.0] {
            let mut draw = Draw::new(1, 1);
            let next = move || f64::from(draw.poisson(mean));
            check(moments(Box::new(next)), (mean, mean));
        }
        let mut draw = Draw::new(1, 2);
        let mut noise = Noise::default();
        let next = move || noise.next(0.9, &mut draw);
        check(moments(Box::new(next)), (0.0, 1.0));
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let first = |seed, stream| Draw::new(seed, stream).unit();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
    }
}
