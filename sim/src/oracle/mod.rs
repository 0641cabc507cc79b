//! What should happen, worked out a second time, slowly, and without any code of the product.
pub mod linear;
pub mod schedule;
