//! Benchmark binaries: schedules against each other, memory, peers
