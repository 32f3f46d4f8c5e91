//! Tape, parameters, gradients, recomputation, split backward and gradient check of BigMac
