#!/usr/bin/env bash
# Makes one archive with everything that tests and measurements on a GPU need where there is no Rust and no network:
# release binaries for x86-64-v3, scripts, and every kernel compiled for the GPU. Needs Rust and NVRTC here, and no
# GPU.
#
#     tests/gpu/bundle.sh [ARCHIVE]        # target/bundle.tar.xz
#
# ARCHITECTURE  of the GPU; sm_90a (H100, H200) if not set NVRTC         the version that the GPU's machine has, 13.0
# if not set: kernels compiled by another one are compiled again there. It is installed by pip, unless BIGMAC_LIBNVRTC
# names the file of such a library. MOST_MIB      the largest archive that is allowed, 60 if not set
#
# docs/gpu.md says how to use it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

archive="${1:-target/bundle.tar.xz}"
architecture="${ARCHITECTURE:-sm_90a}"
nvrtc="${NVRTC:-13.0}"
most="${MOST_MIB:-60}"
work="$PWD/target/bundle"
mkdir -p "$work"

# step WHAT COMMAND...
step() {
    local what="$1" begin=$SECONDS
    shift
    echo "==> $what"
    "$@"
    echo "    $((SECONDS - begin)) s"
}

# The processor there may be older than the one here, for which builds are made otherwise.
export RUSTFLAGS="-C target-cpu=x86-64-v3"
export CARGO_TARGET_DIR="$work/build"
# Symbols are what binaries are large by.
export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols

build() {
    cargo build --release -p bigmac -p bigmac-gpu-tests -p bigmac-benches --bin bigmac --bin gpu-tests --bin bigmac-bench
    cargo test --release --no-run -p bigmac-kernels --lib --message-format=json >"$work/kernel-tests.json"
    cargo test --release --no-run -p bigmac-tests --test on_a_gpu --message-format=json >"$work/step-tests.json"
}

# executable FILE: the one that cargo's messages name.
executable() {
    grep -o '"executable":"[^"]*"' "$1" | tail -n 1 | cut -d '"' -f 4
}

library() {
    if [ -n "${BIGMAC_LIBNVRTC:-}" ]; then
        return
    fi
    local venv="$work/nvrtc-$nvrtc"
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv"
    fi
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "nvidia-cuda-nvrtc==$nvrtc.*"
    BIGMAC_LIBNVRTC="$(find "$venv" -name 'libnvrtc.so.*' ! -name '*alt*' -print -quit)"
    export BIGMAC_LIBNVRTC
}

# What was compiled of other sources is not taken along.
sources="$(find kernels runtime comm tests/gpu -name '*.cu' -o -name '*.cuh' -o -name 'compile.rs' | sort | xargs cat | sha256sum | cut -c 1-16)"
cache="$work/cache/$architecture-$nvrtc-$sources"
kernels() {
    find "$work/cache" -mindepth 1 -maxdepth 1 ! -path "$cache" -exec rm -r {} + 2>/dev/null || true
    mkdir -p "$cache"
    local out
    out="$(BIGMAC_CACHE_DIR="$cache" "$CARGO_TARGET_DIR/release/gpu-tests" --compile "$architecture")"
    echo "$out" | sed 's/^/    /'
    case "$out" in
    *"NVRTC $nvrtc"*) ;;
    *)
        echo "error: kernels were not compiled by NVRTC $nvrtc, which NVRTC asks for: $BIGMAC_LIBNVRTC" >&2
        return 1
        ;;
    esac
}

pack() {
    local folder="$work/pack/bigmac-gpu" changed=""
    rm -rf "$work/pack"
    mkdir -p "$folder/models" "$folder/peers" "$folder/predictions"
    cp "$CARGO_TARGET_DIR"/release/{bigmac,gpu-tests,bigmac-bench} tests/gpu/{borrowed,parts}.sh "$folder"
    cp "$(executable "$work/kernel-tests.json")" "$folder/kernel-tests"
    cp "$(executable "$work/step-tests.json")" "$folder/step-tests"
    cp configs/plan/models/*.toml "$folder/models"
    cp benches/peers/*.py "$folder/peers"
    cp benches/predictions/*.toml "$folder/predictions"
    cp -r "$cache" "$folder/cache"
    git diff --quiet HEAD || changed=" with changes"
    printf 'commit %s%s\nmade %s\nkernels for %s by NVRTC %s\nbinaries with %s\n' "$(git rev-parse --short HEAD)" "$changed" \
        "$(date -u +%F)" "$architecture" "$nvrtc" "$RUSTFLAGS" >"$folder/VERSION"
    tar -C "$work/pack" -c bigmac-gpu | xz -T 0 -6 >"$archive.tmp"
    mv "$archive.tmp" "$archive"
}

step "binaries for x86-64-v3" build
step "NVRTC $nvrtc" library
step "kernels for $architecture" kernels
step "archive" pack
bytes="$(stat -c %s "$archive")"
echo "$archive: $((bytes / 1024)) KiB, made in $SECONDS s; unpacked:"
(cd "$work/pack/bigmac-gpu" && du -sk -- * | sort -rn | awk '{ printf "    %8d KiB  %s\n", $1, $2 }')
if [ "$bytes" -gt $((most * 1024 * 1024)) ]; then
    echo "error: the archive is larger than $most MiB" >&2
    exit 1
fi
