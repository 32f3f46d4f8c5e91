//! Data sets: reading, writing, tokenizing, packing.
