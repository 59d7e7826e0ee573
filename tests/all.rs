//! One program for all tests of the whole: built and linked once.
