//! Support for the tests of Ropeway.
