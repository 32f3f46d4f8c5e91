#!/usr/bin/env bash
# Everything that a GPU has to show: every operator against the CPU, the tests of this package, a part of them under
# compute-sanitizer, and the lab's measurements. Writes benches/results/DATE-DEVICE.md, with the lab's rows beside it,
# and ends with 0 when all passed.
#
#     tests/gpu/run.sh [cuda|cuda:N|replay]
#
# On the device replay sizes are small, nothing is timed and no sanitizer runs: that tests this script. docs/gpu.md
# says more.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

device="${1:-cuda}"
# A debug build does for the replay, which spends its time in kernels.
profile=(--release)
built="${CARGO_TARGET_DIR:-target}/release"
small=()
if [ "$device" = replay ]; then
    profile=()
    built="${CARGO_TARGET_DIR:-target}/debug"
    small=(--small)
fi

logs="$(mktemp -d)"
steps=()
failures=0

# step NAME COMMAND...: runs it, shows what it says, and keeps that for the report.
step() {
    local name="$1" log="$logs/${#steps[@]}.log" begin=$SECONDS status
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log"
    status=$?
    if [ "$status" -eq 0 ]; then
        steps+=("| $name | passed | $((SECONDS - begin)) |")
    else
        steps+=("| $name | **failed** ($status) | $((SECONDS - begin)) |")
        failures=$((failures + 1))
    fi
    return "$status"
}

skip() {
    printf '\n==> %s: SKIPPED, %s\n' "$1" "$2"
    steps+=("| $1 | skipped: $2 | |")
}

# Where compute-sanitizer is: named, on the path, in a toolkit, or in a Python environment.
sanitizer() {
    local at
    for at in "${BIGMAC_COMPUTE_SANITIZER:-}" "$(command -v compute-sanitizer)" "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" \
        "${VIRTUAL_ENV:-/nonexistent}"/lib/python3*/site-packages/nvidia/*/bin/compute-sanitizer; do
        if [ -n "$at" ] && [ -x "$at" ]; then
            echo "$at"
            return
        fi
    done
    return 1
}

step "build" cargo build "${profile[@]}" -p bigmac -p bigmac-gpu-tests -p bigmac-benches --bins || exit 1
step "doctor" "$built/bigmac" doctor
step "every operator against the CPU" env BIGMAC_CHECK_DEVICE="$device" cargo test "${profile[@]}" -p bigmac-kernels --lib
step "training steps against the CPU" env BIGMAC_CHECK_DEVICE="$device" cargo test "${profile[@]}" -p bigmac-tests --test on_a_gpu
step "GPU tests" "$built/gpu-tests" --device "$device"

if [ "$device" = replay ]; then
    skip "compute-sanitizer" "it watches real GPUs"
elif tool="$(sanitizer)"; then
    watched=(--device "$device" --small --only product,attention,step)
    step "memcheck" "$tool" --tool memcheck --error-exitcode 9 "$built/gpu-tests" "${watched[@]}"
    step "racecheck" "$tool" --tool racecheck --error-exitcode 9 "$built/gpu-tests" "${watched[@]}"
    step "initcheck" "$tool" --tool initcheck --error-exitcode 9 "$built/gpu-tests" "${watched[@]}"
else
    skip "compute-sanitizer" "it is not found; name it in BIGMAC_COMPUTE_SANITIZER"
fi

lab=("$built/bigmac-bench" kernels --device "$device" "${small[@]}")
name="$("$built/gpu-tests" --device "$device" --only kernel-broken | head -n 1 | sed 's/ (.*//; s/[^A-Za-z0-9]\+/-/g' | tr '[:upper:]' '[:lower:]')"
results="benches/results/$(date -u +%F)-${name:-$device}"
step "lab" "${lab[@]}" --out "$results.jsonl"
measured="$logs/$((${#steps[@]} - 1)).log"
if [ "$device" != replay ]; then
    # More than 2^31 elements: offsets that do not fit into 32 bits.
    step "lab, more than 2^31 elements" "${lab[@]}" --no-peer --samples 1 --op "gelu,silu,swiglu,mul,add,scale" --shape 1048583x2056 --out "$results.jsonl"
fi

{
    printf '# %s, %s\n\n' "$(date -u +%F)" "${name:-$device}"
    printf 'By `tests/gpu/run.sh %s` on commit %s' "$device" "$(git rev-parse --short HEAD)"
    git diff --quiet HEAD || printf ' with changes'
    printf '.\n\n'
    if command -v nvidia-smi >/dev/null; then
        printf '```\n%s\n```\n\n' "$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv)"
    fi
    printf '| step | | seconds |\n|---|---|---|\n'
    printf '%s\n' "${steps[@]}"
    printf '\n## GPU tests\n\n```\n'
    grep -hE '^(passed|FAILED|SKIPPED) ' "$logs/4.log"
    printf '```\n\n## Lab\n\n```\n'
    cat "$measured"
    printf '```\n'
} >"$results.md"
rm -r "$logs"
printf '\n%d steps failed; see %s.md\n' "$failures" "$results"
[ "$failures" -eq 0 ]
