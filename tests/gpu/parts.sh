# The parts of borrowed.sh, which reads this file: a function `run_NAME` for each, and what they need.
# shellcheck shell=bash disable=SC2154,SC2034

run_environment() {
    local smi
    {
        date -u +%FT%TZ
        cat "$bin/VERSION"
        uname -srm
        grep -m 1 'model name' /proc/cpuinfo
        nproc
    } >>"$out/environment.txt" 2>&1
    if smi="$(tool nvidia-smi)"; then
        one nvidia-smi 10 "$smi" --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader
        cat "$work/said" >>"$out/environment.txt"
    else
        echo "nvidia-smi is not there" >>"$out/environment.txt"
    fi
    if one binaries 5 "$bin/gpu-tests" --list; then
        one doctor 15 "$bin/bigmac" doctor
        cat "$work/said" >>"$out/environment.txt"
    else
        lost="the bundle's programs do not run on this machine ($(reason $?))"
    fi
}

run_smoke() {
    local limit=$((column == 2 ? 20 : 120))
    one smoke "$limit" "$bin/gpu-tests" --device "$device" --only kernel-broken,memory-budget ||
        lost="the smoke test did not pass"
}

run_products() {
    each $((column == 2 ? 12 : 90)) $(tests '^product-[0-9]') && each $((column == 2 ? 25 : 200)) product-anywhere
}

run_attention() {
    each $((column == 2 ? 45 : 120)) $(tests '^attention-')
}

# operator MODULE LIMIT: the tests of a module of operators; leaves what they say, then how they ended.
operator() {
    BIGMAC_CHECK_DEVICE="$device" timeout -s KILL "$2" "$bin/kernel-tests" "$1::" --test-threads 4 >"$work/operators/$1.said" 2>&1
    echo $? >"$work/operators/$1.status"
}

# running MODULE...: how many of these are under way.
running() {
    local module count=0
    for module in "$@"; do
        [ -e "$work/operators/$module.status" ] || count=$((count + 1))
    done
    echo "$count"
}

run_operators() {
    local modules module begun=() jobs=$((column == 2 ? 4 : $(nproc))) status before=$part_bad
    modules="$("$bin/kernel-tests" --list 2>/dev/null | grep -a ': test$' | sed 's/:.*//' | sort -u)"
    if [ -z "$modules" ]; then
        one list 10 "$bin/kernel-tests" --list
        part_bad=$((part_bad + 1))
        return
    fi
    mkdir "$work/operators"
    for module in $modules; do
        while [ "$(running "${begun[@]}")" -ge "$jobs" ] && [ "$(left)" -ge 2 ]; do
            sleep 0.1
        done
        if [ "$(left)" -lt 2 ]; then
            part_bad=$((part_bad + 1))
            part_note="${part_note:+$part_note; }$module: not run, no time left"
            continue
        fi
        operator "$module" "$(left)" </dev/null 2>/dev/null &
        begun+=("$module")
    done
    while [ "$(running "${begun[@]}")" -gt 0 ] && [ "$(left)" -gt -2 ]; do
        sleep 0.1
    done
    for module in "${begun[@]}"; do
        status="$(cat "$work/operators/$module.status" 2>/dev/null || echo 137)"
        printf '\n==== %s/%s: status %d\n' "$part" "$module" "$status" >>"$out/log.txt"
        cat "$work/operators/$module.said" >>"$out/log.txt"
        [ "$status" -eq 0 ] || failed "$module" "$status" "$work/operators/$module.said"
    done
    [ "$part_bad" -eq "$before" ] || still_answers
}

# lab NAME LIMIT ARGUMENT...: rows go to kernels.jsonl.
lab() {
    local name="$1" limit="$2"
    shift 2
    one "$name" "$limit" "$bin/bigmac-bench" kernels --device "$device" "${quick[@]}" --predicted "$bin/predictions/h200.toml" \
        --out "$out/kernels.jsonl" "$@" || still_answers
}

# A process for each group: what one loses, the others still measure.
run_timings() {
    local seconds group
    while read -r seconds group; do
        lab "${group%%,*}" $((column == 2 ? seconds : $(left))) --no-peer --op "$group"
    done <<'GROUPS'
40 gemm
30 attention
25 linear,cross-entropy
40 norms,elementwise,rope,modulation,optimizer,cast,rows,embedding
GROUPS
}

# Whether python3 has PyTorch, which was asked when the run began.
torch_is_there() {
    while [ ! -e "$work/torch.asked" ] && [ "$(left)" -gt 2 ]; do
        sleep 0.2
    done
    if [ ! -e "$work/torch.there" ]; then
        skip "python3 has no PyTorch: $(tail -n 1 "$work/torch.said")"
        return 1
    fi
}

run_peer() {
    torch_is_there || return
    lab all "$(left)" --choice
}

readonly MODELS="qwen3-1.7b llama-1b mmdit-1b"

run_step() {
    local model
    for model in $MODELS; do
        one "$model" "$(($(left) / 2 + 5))" "$bin/bigmac-bench" step --device "$device" --model "$model" "${few[@]}" --json
        if [ $? -eq 0 ]; then
            grep -a '^{' "$work/said" >>"$out/step.jsonl"
        else
            still_answers
        fi
    done
}

run_twin() {
    local model way
    torch_is_there || return
    for way in eager compile; do
        for model in $MODELS; do
            if [ "$way $model" = "compile mmdit-1b" ]; then
                continue
            fi
            one "$way-$model" "$(left)" python3 "$bin/peers/torch_train.py" --model "$bin/models/$model.toml" "--$way" "${few[@]}" \
                --device "${twin_device}" --json && grep -a '^{' "$work/said" >>"$out/step.jsonl"
        done
    done
}

run_profile() {
    local ncu kernel op shape pass
    if [ "$device" = replay ]; then
        skip "Nsight Compute watches real GPUs"
        return
    fi
    if ! ncu="$(tool ncu /usr/local/cuda/bin/ncu /opt/nvidia/nsight-compute/*/ncu)"; then
        skip "ncu is not there"
        return
    fi
    : >"$out/ncu.txt"
    while read -r kernel op shape; do
        one "$kernel" 20 "$ncu" --clock-control none --kernel-name "$kernel" --launch-skip 2 --launch-count 1 --section SpeedOfLight \
            --section WarpStateStats --section MemoryWorkloadAnalysis --section Occupancy \
            "$bin/bigmac-bench" kernels --device "$device" --op "$op" --shape "$shape" --choice --no-peer --samples 1 ||
            still_answers
        grep -aE '^ +[A-Z][^ ].* [0-9.,]+$|^  [a-z_]+.*\(' "$work/said" >>"$out/ncu.txt"
    done <<'KERNELS'
product_hopper gemm 8192x8192x8192
attention_forward_hopper attention 1x4096x16x8x128x1
attention_backward_keys attention 1x4096x16x8x128x1
rms_norm_backward rms_norm 8192x2048
KERNELS
}

run_memcheck() {
    local sanitizer
    if [ "$device" = replay ]; then
        skip "compute-sanitizer watches real GPUs"
        return
    fi
    if ! sanitizer="$(tool compute-sanitizer "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")"; then
        skip "compute-sanitizer is not there"
        return
    fi
    # No initcheck or racecheck: neither knows what the tensor memory accelerator writes.
    local family
    for family in product attention; do
        one "$family" "$(($(left) / (2 - (${#family} > 7))))" "$sanitizer" --tool memcheck --error-exitcode 9 \
            "$bin/gpu-tests" --device "$device" --small --only "$family" || still_answers
    done
}

run_training() {
    local threads=$((column == 2 ? 1 : $(nproc)))
    one steps "$(($(left) / 2))" env BIGMAC_CHECK_DEVICE="$device" "$bin/step-tests" --test-threads "$threads" || still_answers
    each "$(left)" $(tests '^step-') command-train
}

run_memory() {
    each $((column == 2 ? 20 : 60)) kernel-changed memory-exhausted
}
