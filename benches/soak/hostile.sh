#!/usr/bin/env bash
# Hostile input on the release program: the harness of tests/tests/hostile with 100,000 tries. Prints how many tries of
# each kind ended how, keeps that as Markdown, and fails if any try did wrong. On two processors it takes about an hour.
#
#     benches/soak/hostile.sh [TRIES [SEED [FILE.md]]]
#
# A try that failed is repeated with HOSTILE_ONLY=SEED:INDEX in front of the same `cargo test` as below.
set -euo pipefail
cd "$(dirname "$0")/../.."

tries=${1:-100000}
seed=${2:-$(date +%s)}
counts=${3:-benches/results/$(date +%F)-hostile.md}

case $counts in /*) ;; *) counts=$PWD/$counts ;; esac
cargo build --release -p bigmac
target=$(cargo metadata --format-version 1 --no-deps | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
export BIGMAC_BINARY="$target/release/bigmac" HOSTILE_TRIES=$tries HOSTILE_SEED=$seed HOSTILE_COUNTS=$counts
# The harness itself needs no optimisation: its time is that of the program that it starts.
cargo test -p bigmac-tests --test hostile -- --nocapture
