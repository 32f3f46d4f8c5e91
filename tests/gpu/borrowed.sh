#!/usr/bin/env bash
# Everything that a few minutes on a borrowed GPU can show, from a bundle (tests/gpu/bundle.sh), without Rust or a
# network there.
#
#     borrowed.sh BUNDLE OUT [cuda|cuda:N|replay]      # BUNDLE: the archive, or the folder that was unpacked
#     borrowed.sh --list                               # the parts, and their seconds
#
# PARTS   parts to run, such as products,attention; all of them if not set. `environment` and `smoke` always run.
# BUDGET  seconds for everything; 510, on the replay 1800, if not set
#
# Each part is one or more processes, each under a time limit of its own. Results are appended to the files in OUT as
# they come, so a part that faults, hangs or is killed costs its own time only; the smoke test after it tells whether
# the device still answers. What does not fit the budget any more is listed as not run. A summary of at most 10,000
# characters is printed last. On the replay sizes are small and nothing is timed: that tests this script. Ends with 0
# when every part that ran passed. docs/gpu.md says more.
set -uo pipefail

# name, seconds on a GPU, seconds on the replay, what it gives
TABLE='environment|15|30|the machine: GPU, driver, compiler, PyTorch
smoke|20|120|a kernel that does not compile is refused, and a memory budget holds
products|80|240|every kernel for matrix products at ragged sizes, one process each
attention|75|240|every kernel for attention, one process for each group of head sizes
operators|70|600|every operator, forward and backward, against the CPU: one process for each module
timings|80|240|kernels at real shapes, all variants, beside what was predicted
step|70|240|training steps of 1B models: tokens/s, MFU, time for each operator, idle time
peer|60|120|the same kernels beside PyTorch, by their own choice
twin|60|120|the same training steps in PyTorch, eager and compiled
profile|50|30|Nsight Compute on four kernels
memcheck|40|30|compute-sanitizer on small products and attention
training|90|600|steps of whole models and of the command against the CPU
memory|40|60|memory used up, and kernels that change while the program runs'

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0"
    exit 2
}

list() {
    printf '%-12s %6s %8s  %s\n' part GPU replay gives
    local name gpu replay gives
    while IFS='|' read -r name gpu replay gives; do
        printf '%-12s %4d s %6d s  %s\n' "$name" "$gpu" "$replay" "$gives"
    done <<<"$TABLE"
}

if [ "${1:-}" = --list ]; then
    list
    exit 0
fi
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    usage
fi
bundle="$1" out="$2" device="${3:-cuda}"
case "$device" in
cuda | cuda:[0-9]*) column=2 budget="${BUDGET:-510}" small=() ;;
replay) column=3 budget="${BUDGET:-1800}" small=(--small) ;;
*) usage ;;
esac
if ! [[ "$budget" =~ ^[0-9]+$ ]] || [ "$budget" -lt 30 ]; then
    echo "error: BUDGET is '$budget', expected whole seconds, 30 at least" >&2
    exit 2
fi
known="$(cut -d '|' -f 1 <<<"$TABLE")"
wanted=",${PARTS:-$(tr '\n' ',' <<<"$known")},"
for name in ${wanted//,/ }; do
    if ! grep -qx -- "$name" <<<"$known"; then
        echo "error: PARTS names '$name'; the parts are $(echo $known)" >&2
        exit 2
    fi
done
if [ ! -e "$bundle" ]; then
    echo "error: the bundle '$bundle' is not there; tests/gpu/bundle.sh makes one" >&2
    exit 2
fi

# The last seconds are for packing what was compiled, and for the summary.
readonly RESERVE=8
end=$((SECONDS + budget - RESERVE))
mkdir -p "$out" || exit 2
out="$(cd "$out" && pwd)"
work="$(mktemp -d)"
for file in log.txt parts.tsv environment.txt kernels.jsonl step.jsonl; do
    : >"$out/$file"
done

# ---- what parts are made of ----

part="" part_end=0 part_bad=0 part_note="" lost=""
failures="$work/failures"
: >"$failures"

left() {
    echo $((part_end - SECONDS))
}

record() {
    printf '%s\t%s\t%d\t%s\n' "$1" "$2" "$3" "$4" >>"$out/parts.tsv"
    printf '%-12s %-8s %4d s  %s\n' "$1" "$2" "$3" "$4"
}

# reason STATUS: how a process ended.
reason() {
    case "$1" in
    124 | 137) echo "killed, or over its time limit" ;;
    126 | 127) echo "could not be started" ;;
    132) echo "illegal instruction: the binaries are not for this CPU" ;;
    1[3-9][0-9]) echo "signal $(($1 - 128))" ;;
    *) echo "exit code $1" ;;
    esac
}

# one NAME LIMIT COMMAND...: runs a process of the part, for LIMIT seconds at most and not longer than the part; its
# output goes to the log. What it said last is kept in $work/said. A process that does not pass counts against the
# part.
one() {
    local name="$1" limit="$2" begin=$SECONDS status
    shift 2
    if [ "$limit" -gt "$(left)" ]; then
        limit="$(left)"
    fi
    if [ -n "$lost" ] || [ "$limit" -lt 2 ]; then
        part_bad=$((part_bad + 1))
        part_note="${part_note:+$part_note; }$name: not run, ${lost:-no time left}"
        return 1
    fi
    printf '\n==== %s/%s: %s\n' "$part" "$name" "$*" >>"$out/log.txt"
    # SIGKILL, to the whole process group: what hangs in a driver does not hear anything else. In the background, so
    # that this script still hears when it is to end.
    timeout -s KILL "$limit" "$@" </dev/null >"$work/said" 2>&1 &
    wait $! 2>/dev/null
    status=$?
    cat "$work/said" >>"$out/log.txt"
    printf '==== %s/%s: status %d after %d s\n' "$part" "$name" "$status" "$((SECONDS - begin))" >>"$out/log.txt"
    if [ "$status" -eq 0 ]; then
        return 0
    fi
    failed "$name" "$status" "$work/said"
    return "$status"
}

# failed NAME STATUS FILE: counts a process that did not pass, and keeps the lines that say why.
failed() {
    part_bad=$((part_bad + 1))
    {
        echo "$part/$1: $(reason "$2")"
        grep -aE '^(FAILED|HUNG|DIED|NOT RUN|error|.*panicked at|.*(WRONG|FAILED|ERROR SUMMARY):?)' "$3" | cut -c 1-300 | head -n 6 |
            sed 's/^/    /'
    } >>"$failures"
}

smoke() {
    timeout -s KILL "$1" "$bin/gpu-tests" --device "$device" --only kernel-broken,memory-budget </dev/null >>"$out/log.txt" 2>&1 &
    wait $! 2>/dev/null
}

# After a process that did not pass: tries the device, and once more, as a driver may need a while to get rid of a
# process.
still_answers() {
    if [ -n "$lost" ]; then
        return 1
    fi
    echo "==== smoke test after $part" >>"$out/log.txt"
    local limit=$((column == 2 ? 10 : 60))
    smoke "$limit" || { sleep 2 && smoke "$limit"; } && return 0
    lost="the device does not answer since $part"
    return 1
}

# each LIMIT NAME...: tests of gpu-tests, a process each. The second that hangs ends the part.
each() {
    local limit="$1" hung=0 name status
    shift
    for name in "$@"; do
        one "$name" "$limit" "$bin/gpu-tests" --device "$device" "${small[@]}" --only "$name"
        status=$?
        if [ "$status" -eq 0 ]; then
            continue
        fi
        still_answers || return 1
        if [ "$status" -eq 137 ]; then
            hung=$((hung + 1))
        fi
        if [ "$hung" -ge 2 ]; then
            part_note="${part_note:+$part_note; }ended after $name, the second to hang"
            return 1
        fi
    done
    return 0
}

# tests PATTERN: names of gpu-tests' tests.
tests() {
    "$bin/gpu-tests" --list | grep -E "$1"
}

# tool NAME PLACE...: the first of these programs that is found; 1 when none is.
tool() {
    local name="$1" at
    shift
    for at in "$(command -v "$name")" "$@"; do
        if [ -n "$at" ] && [ -x "$at" ]; then
            echo "$at"
            return 0
        fi
    done
    return 1
}

# skip WHY: notes that the part does not run on this machine or device.
skip() {
    part_note="skipped: $1"
}

# The parts: a function `run_NAME` for each.
. "$(dirname "${BASH_SOURCE[0]}")/parts.sh"

# ---- the run ----

# Prints and stores the summary; also when this script is ended early.
finish() {
    trap - EXIT
    cat "$work/torch.said" >>"$out/environment.txt" 2>/dev/null
    # `timeout` passes it on.
    jobs -p | xargs -r kill 2>/dev/null
    if [ -d "$cache" ] && [ -n "$(find "$cache" -type f -newer "$work/started" -print -quit 2>/dev/null)" ]; then
        (cd "$cache" && find . -type f -newer "$work/started" | tar -c -z -T - -f "$out/cache.tar.gz")
    fi
    {
        printf '# borrowed.sh on %s\n' "$device"
        head -n 9 "$out/environment.txt" | cut -c 1-160
        printf '\n'
        awk -F '\t' '{ printf "%-12s %-8s %4d s  %s\n", $1, $2, $3, substr($4, 1, 160) }' "$out/parts.tsv"
        if [ -s "$failures" ]; then
            printf '\nWhat did not pass (log.txt has all of it):\n'
            head -n 40 "$failures" | cut -c 1-240 | head -c 3500
        fi
        if [ -s "$out/kernels.jsonl" ] || [ -s "$out/step.jsonl" ]; then
            printf '\n'
            timeout -s KILL 5 "$bin/bigmac-bench" summary "$out/kernels.jsonl" "$out/step.jsonl" 2>&1
        fi
    } >"$out/summary.txt"
    printf '\n'
    head -c 10000 "$out/summary.txt"
    rm -rf "$work"
}

bin="" cache=""
: >"$work/started"
unpack() {
    if [ -d "$bundle" ]; then
        bin="$(cd "$bundle" && pwd)"
    elif mkdir "$work/bundle" && { tar -xJf "$bundle" -C "$work/bundle" 2>/dev/null ||
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$bundle" "$work/bundle"; }; then
        bin="$work/bundle/bigmac-gpu"
    else
        return 1
    fi
    # The bundle stays as it is, so that what is compiled here can be told from it.
    cache="$work/cache"
    mkdir "$cache"
    if [ -d "$bin/cache" ]; then
        cp -r "$bin/cache/." "$cache"
    fi
    touch "$work/started"
}
trap finish EXIT
trap 'exit 130' INT TERM
if ! unpack; then
    record unpack FAILED 0 "$bundle cannot be unpacked"
    exit 1
fi
export BIGMAC_CACHE_DIR="$cache" BIGMAC_COMMAND="$bin/bigmac" RUST_BACKTRACE=1
# A context that is lost or a kernel that hangs is told by the program itself, before it is killed.
export BIGMAC_GPU_TIMEOUT="${BIGMAC_GPU_TIMEOUT:-$((column == 2 ? 15 : 600))}"
if [ "$device" = replay ]; then
    quick=(--small) few=(--small) twin_device=cpu
else
    quick=(--quick) few=(--tokens 8192) twin_device="$device"
fi
# Importing PyTorch takes seconds the first time: meanwhile other parts run.
{
    python3 -c 'import torch; print("PyTorch", torch.__version__)' >"$work/torch.said" 2>&1 && touch "$work/torch.there"
    touch "$work/torch.asked"
} </dev/null &

bad=0
while IFS='|' read -r name gpu replay gives; do
    if [[ "$wanted" != *",$name,"* ]] && [ "$name" != environment ] && [ "$name" != smoke ]; then
        continue
    fi
    part="$name" seconds=$((column == 2 ? gpu : replay)) part_bad=0 part_note=""
    # Half of what a part takes gives results that are worth having; less does not.
    if [ -n "$lost" ] || [ $((end - SECONDS)) -lt $((seconds / 2)) ]; then
        record "$name" "not run" 0 "${lost:-$((end - SECONDS)) s are left of the budget, it takes $seconds}"
        bad=1
        continue
    fi
    begin=$SECONDS
    part_end=$((SECONDS + seconds < end ? SECONDS + seconds : end))
    "run_$name" </dev/null
    if [ "$part_bad" -gt 0 ]; then
        bad=1
        record "$name" FAILED $((SECONDS - begin)) "$part_bad did not pass${part_note:+; $part_note}"
    elif [[ "$part_note" == skipped* ]]; then
        record "$name" skipped $((SECONDS - begin)) "$part_note"
    else
        record "$name" passed $((SECONDS - begin)) "$part_note"
    fi
done <<<"$TABLE"
exit "$bad"
