//! Exponentials that are the same on every machine: only additions, multiplications and bit casts.

/// `mantissa * 2^exponent` with a mantissa in [1, 2): numbers that products of thousands of probabilities do not leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scaled {
    pub(crate) mantissa: f64,
    pub(crate) exponent: i64,
}

impl Scaled {
    pub(crate) const ONE: Scaled = Scaled { mantissa: 1.0, exponent: 0 };

    /// e to the power of `x`, to 2^-48 relative. `|x|` must not exceed 2^30.
    ///
    /// `x = k ln 2 + r` with `|r| <= ln 2 / 2`, and the power series of e^r to its 14th term.
    pub(crate) fn exp(x: f64) -> Scaled {
        const LOG2_E: f64 = std::f64::consts::LOG2_E;
        // ln 2 in two parts; k times the first is exact for k below 2^32.
        const LN2_HIGH: f64 = 0.693_147_122_859_954_8;
        const LN2_LOW: f64 = 5.769_999_040_475_414e-8;
        let k = (x * LOG2_E + 0.5).floor();
        let r = (x - k * LN2_HIGH) - k * LN2_LOW;
        let mut sum = 1.0;
        for n in (1..=14).rev() {
            sum = 1.0 + sum * r / f64::from(n);
        }
        Scaled { mantissa: sum, exponent: k as i64 }.normal()
    }

    #[inline]
    pub(crate) fn times(self, other: Scaled) -> Scaled {
        let product = Scaled { mantissa: self.mantissa * other.mantissa, exponent: self.exponent + other.exponent };
        product.normal()
    }

    /// The sum; what is 2^60 times smaller adds nothing.
    #[inline]
    pub(crate) fn plus(self, other: Scaled) -> Scaled {
        let (large, small) = if self.exponent < other.exponent { (other, self) } else { (self, other) };
        let mantissa = large.mantissa + small.mantissa * power_of_two(small.exponent - large.exponent);
        Scaled { mantissa, exponent: large.exponent }.normal()
    }

    /// The whole part of the number times `2^shift`, which must be below 2^63.
    #[inline]
    pub(crate) fn whole(self, shift: i64) -> u64 {
        let power = self.exponent + shift;
        if power < 0 {
            return 0;
        }
        (self.mantissa * power_of_two(power - 62) * (1u64 << 62) as f64) as u64
    }

    #[inline]
    fn normal(self) -> Scaled {
        let bits = self.mantissa.to_bits();
        let power = (bits >> 52) as i64 - 1023;
        Scaled { mantissa: f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52), exponent: self.exponent + power }
    }
}

/// 2^power for a power of at most 0, and 0 below -64.
#[inline]
fn power_of_two(power: i64) -> f64 {
    if power < -64 { 0.0 } else { f64::from_bits(((1023 + power) as u64) << 52) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(x: Scaled) -> f64 {
        x.mantissa * 2f64.powi(x.exponent as i32)
    }

    proptest! {
        #[test]
        fn exponentials_products_and_sums(x in -300.0..300.0, y in -300.0..300.0f64) {
            let (a, b): (Scaled, Scaled) = (Scaled::exp(x), Scaled::exp(y));
            let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-13;
            prop_assert!((1.0..2.0).contains(&a.mantissa));
            prop_assert!(close(float(a), f64::exp(x)));
            prop_assert!(close(float(a.times(b)), f64::exp(x) * f64::exp(y)));
            prop_assert!(close(float(a.plus(b)), f64::exp(x) + f64::exp(y)));
        }

        #[test]
        fn whole_parts(mantissa in 1.0..2.0f64, exponent in -20i64..20) {
            let x = Scaled { mantissa, exponent };
            prop_assert_eq!(x.whole(20), (float(x) * f64::from(1 << 20)) as u64);
        }
    }

    #[test]
    fn extremes() {
        assert_eq!(Scaled::exp(0.0), Scaled::ONE);
        let tiny = Scaled::exp(-1e6);
        assert_eq!(Scaled::ONE.plus(tiny), Scaled::ONE);
        assert_eq!(tiny.whole(40), 0);
        assert_eq!(Scaled::ONE.whole(40), 1 << 40);
    }
}
