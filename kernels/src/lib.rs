//! The operators of BigMac: one folder each, with their backward and shape inference
