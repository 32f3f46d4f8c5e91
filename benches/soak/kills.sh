#!/usr/bin/env bash
# A hundred ranks killed at random moments, of a run of two processes that is started again each time: its final weights
# and metrics must be those of a run that was never disturbed. Prints how often it was started again, and the longest time
# from a kill until all ranks were there again. On two processors it takes some ten minutes.
#
#     benches/soak/kills.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/../.."
BIGMAC_KILLS=${1:-100} cargo test --release -p bigmac --test jobs killed_and_started_again -- --nocapture
