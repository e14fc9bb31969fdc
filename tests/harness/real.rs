//! Numbers that references are generic over.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// What a reference needs of a number.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// A constant.
    fn of(value: f64) -> Self;
    /// Its value.
    fn value(self) -> f64;
    /// e^x
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
}

impl Real for f64 {
    fn of(value: f64) -> f64 {
        value
    }
    fn value(self) -> f64 {
        self
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn sin(self) -> f64 {
        f64::sin(self)
    }
    fn cos(self) -> f64 {
        f64::cos(self)
    }
    /// The Taylor series below 3, the continued fraction of erfc above; both to double precision.
    fn erf(self) -> f64 {
        let x = self.abs();
        let value = if x < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..=60).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (x + f));
            1.0 - (-x * x).exp() / ((x + fraction) * std::f64::consts::PI.sqrt())
        };
        value.copysign(self)
    }
}

/// A number and its derivative along one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual(pub f64, pub f64);

impl PartialOrd for Dual {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl Add for Dual {
    type Output = Dual;
    fn add(self, o: Dual) -> Dual {
        Dual(self.0 + o.0, self.1 + o.1)
    }
}

impl AddAssign for Dual {
    fn add_assign(&mut self, o: Dual) {
        *self = *self + o;
    }
}

impl Sub for Dual {
    type Output = Dual;
    fn sub(self, o: Dual) -> Dual {
        Dual(self.0 - o.0, self.1 - o.1)
    }
}

impl Mul for Dual {
    type Output = Dual;
    fn mul(self, o: Dual) -> Dual {
        Dual(self.0 * o.0, self.0 * o.1 + self.1 * o.0)
    }
}

impl Div for Dual {
    type Output = Dual;
    fn div(self, o: Dual) -> Dual {
        Dual(self.0 / o.0, (self.1 * o.0 - self.0 * o.1) / (o.0 * o.0))
    }
}

impl Neg for Dual {
    type Output = Dual;
    fn neg(self) -> Dual {
        Dual(-self.0, -self.1)
    }
}

impl Real for Dual {
    fn of(value: f64) -> Dual {
        Dual(value, 0.0)
    }
    fn value(self) -> f64 {
        self.0
    }
    fn exp(self) -> Dual {
        Dual(self.0.exp(), self.1 * self.0.exp())
    }
    fn ln(self) -> Dual {
        Dual(self.0.ln(), self.1 / self.0)
    }
    fn sqrt(self) -> Dual {
        Dual(self.0.sqrt(), self.1 / (2.0 * self.0.sqrt()))
    }
    fn sin(self) -> Dual {
        Dual(self.0.sin(), self.1 * self.0.cos())
    }
    fn cos(self) -> Dual {
        Dual(self.0.cos(), -self.1 * self.0.sin())
    }
    fn erf(self) -> Dual {
        let density = 2.0 / std::f64::consts::PI.sqrt() * (-self.0 * self.0).exp();
        Dual(Real::erf(self.0), self.1 * density)
    }
}
