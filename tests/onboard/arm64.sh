#!/usr/bin/env bash
# Runs the on-board side on real arm64 binaries, under emulation, and holds what it gives against this machine's.
#
#   sudo tests/onboard/arm64.sh [FOLDER]     FOLDER: where the arm64 system is made (1.5 GB), default .venv-arm64
#
# Made by it: benchmarks/results/arm64.md and .json, by benchmarks/arm64.py: each format in each precision, `check`ed on
# the processors of BOARDS (default: a Raspberry Pi 4's, without int8 dot products; a Pi 5's, with them; and
# "max,sme=off", int8 matrix products and SVE too). With SME, of the emulator's "max", int8 of ONNX Runtime and of LiteRT
# is wrong (`check` refuses it); whether by them or by qemu 7.2 is not known. Processors with SME are therefore untested.
# TILES=FILE: real tiles to prove on and to take int8's ranges from, default EuroSAT's of ../shared/data; without any,
# static int8 is left out.
#
# Needs root, Debian or Ubuntu with debootstrap, qemu-user-static and binfmt-support, and .venv of Python 3.11 (`make lint`).
# 1. debootstrap downloads Debian 12 for arm64; its packages are unpacked, not configured. What is mounted in the new
#    system (/proc; tests and shared/data, read-only) is mounted in a namespace of its own and goes with it. /sys is
#    never mounted there.
# 2. pip downloads the aarch64 wheels that constraints.txt pins; edgeslim comes as the wheel of this checkout.
# 3. The embedded encoder is exported in every format and precision. `edgeslim check` proves each there and here, and
#    `classify` flies ONNX and TFLite; logits and maps are compared.
# 4. The on-board tests run there, but for those whose subject is the emulator's there and not the program's: address
#    space and resident memory (fuzz, test_memory, test_reading_memory), how a crash reads (test_scene_process); and the
#    replayed power cuts (hours). TESTS="tests/test_grid.py -x" runs others.
# The emulator is registered with the kernel where it is not, and that is undone at the end.
# No part of `make test`: it needs root, downloads 250 MB and takes more than half an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROOT=$(realpath -m "${1:-.venv-arm64}")
HOST=${HOST:-.venv/bin}
PYTHON=python3.11
BOARDS=${BOARDS:-cortex-a72 cortex-a76 max,sme=off}
TILES=${TILES-../shared/data/eurosat/eurosat_rgb_train.zip}
LEFT_OUT=(test_fuzz test_power_cuts test_memory reading/test_reading_memory watching/test_scene_process)
TESTS=${TESTS:-tests --ignore tests/ground $(printf -- '--ignore tests/onboard/%s.py ' "${LEFT_OUT[@]}")}

say() { printf '\narm64: %s\n' "$*"; }

for tool in debootstrap qemu-aarch64-static update-binfmts dpkg-deb unshare; do
    command -v "$tool" >/dev/null || {
        echo "arm64: found no $tool: apt-get install debootstrap qemu-user-static binfmt-support"
        exit 2
    }
done
[ "$(id -u)" = 0 ] || { echo "arm64: expected root, to make and enter another system"; exit 2; }
"$HOST/python" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))' || {
    echo "arm64: expected Python 3.11 in $HOST: pip takes its version for the wheels of Debian 12"
    exit 2
}

if [ ! -x "$ROOT/usr/bin/$PYTHON" ]; then
    say "Debian 12 for arm64 into $ROOT"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$ROOT" >/dev/null
    for package in "$ROOT"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -C "$ROOT" -x --keep-directory-symlink
    done
fi
for folder in proc sys; do # in a container debootstrap links them to the host's
    [ ! -L "$ROOT/$folder" ] || rm "$ROOT/$folder"
    mkdir -p "$ROOT/$folder"
done
mkdir -p "$ROOT/opt"
# Without these onnxruntime complains on stderr and OpenVINO dies; plain files do.
CPUS=$ROOT/sys/devices/system/cpu
mkdir -p "$CPUS"
for list in possible present online; do echo "0-$(($(nproc) - 1))" >"$CPUS/$list"; done
for cpu in $(seq 0 $(($(nproc) - 1))); do
    mkdir -p "$CPUS/cpu$cpu/topology" "$CPUS/cpu$cpu/regs/identification"
    : >"$CPUS/cpu$cpu/regs/identification/midr_el1" # filled in for each board
    echo 0 >"$CPUS/cpu$cpu/topology/physical_package_id"
    echo "$cpu" | tee "$CPUS/cpu$cpu/topology/core_id" >"$CPUS/cpu$cpu/topology/core_cpus_list"
    printf '%x\n' $((1 << cpu)) | tee "$CPUS/cpu$cpu/topology"/{core_cpus,thread_siblings} >/dev/null
    printf '%x\n' $(((1 << $(nproc)) - 1)) | tee "$CPUS/cpu$cpu/topology"/{package_cpus,core_siblings} >/dev/null
done
# What the boards show; the host's would be shown otherwise.
cpuinfo() { # PROCESSOR PART FEATURES
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: %s\n' "$cpu" "$3"
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 3\n\n' "$2"
    done >"$ROOT/opt/cpuinfo.$1"
    echo "0x00000000410f${2#0x}3" >"$ROOT/opt/midr.$1"
}
cpuinfo cortex-a72 0xd08 'fp asimd evtstrm crc32 cpuid'
for newer in cortex-a76 max max,sme=off; do
    cpuinfo $newer 0xd0b 'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
done
[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    update-binfmts --enable qemu-aarch64
    trap 'update-binfmts --disable qemu-aarch64' EXIT
fi

say "wheels for aarch64"
FLIGHT=$ROOT/opt/flight
rm -rf "$ROOT/opt/wheel" "$ROOT/opt/board" "$FLIGHT"
echo /opt/board >"$ROOT/usr/lib/python3/dist-packages/board.pth"
mkdir -p "$FLIGHT/tests" "$FLIGHT/benchmarks" "$FLIGHT/work" "$ROOT/opt/shared/data"
cp -r pyproject.toml README.md docs "$FLIGHT"
"$HOST/python" -m pip wheel -q --no-deps -w "$ROOT/opt/wheel" .
platforms=()
for glibc in 2_17 2_27 2_28 2_34 2_35; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
"$HOST/python" -m pip install -q --target "$ROOT/opt/board" -c constraints.txt --only-binary=:all: \
    --implementation cp --python-version 3.11 --platform manylinux2014_aarch64 "${platforms[@]}" \
    "edgeslim[onnx,openvino,tflite] @ file://$(echo "$ROOT"/opt/wheel/*.whl)" pytest hypothesis

there() { # runs a command in the arm64 system, on the processor BOARD
    tee "$CPUS"/cpu*/regs/identification/midr_el1 <"$ROOT/opt/midr.$BOARD" >/dev/null
    BOARD=$BOARD ROOT=$ROOT SHARED=$(realpath -m ../shared/data) unshare --mount --fork bash -euc '
        mount --make-rprivate /
        mount -t proc proc "$ROOT/proc"
        mount --bind "$ROOT/opt/cpuinfo.$BOARD" "$ROOT/proc/cpuinfo"
        for folder in tests benchmarks; do mount --bind -o ro "$folder" "$ROOT/opt/flight/$folder"; done
        [ ! -d "$SHARED" ] || mount --bind -o ro "$SHARED" "$ROOT/opt/shared/data"
        exec chroot "$ROOT" /usr/bin/env -i -C /opt/flight PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 \
            QEMU_CPU="$BOARD" BOARD="$BOARD" OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 "$@"' there "$@"
}

WORK=$FLIGHT/work
mkdir -p "$WORK"/{here,there}
precisions=(fp32 fp16 int8-dynamic int8-static)
proof=(--tiles "$TILES")
[ -e "$TILES" ] || {
    say "found no tiles ($TILES): SYNTHETIC golden tiles, and static int8 is LEFT OUT"
    precisions=(fp32 fp16 int8-dynamic)
    proof=()
}
say "every format and precision: exported here, checked here and on $BOARDS"
"$HOST/edgeslim" export --encoder eurosat-rgb -w 0.25 --target onnx --target openvino --target tflite \
    "${precisions[@]/#/--precision=}" "${proof[@]}" -o "$WORK/artifacts"
"$HOST/python" benchmarks/arm64.py answer "$WORK/artifacts" "$WORK/answers/here"
for BOARD in $BOARDS; do
    echo "on $BOARD"
    there "$PYTHON" benchmarks/arm64.py answer work/artifacts "work/answers/$BOARD"
done
# shellcheck disable=SC2086  # BOARDS is a list of words
"$HOST/python" benchmarks/arm64.py table --emulator "$(qemu-aarch64-static --version | head -n 1)" "$WORK/artifacts" \
    "$WORK/answers/here" $(printf -- "$WORK/answers/%s " $BOARDS)

BOARD=${BOARDS%% *}
say "a scene is classified, here and on $BOARD"
"$HOST/python" -m tests.onboard.portable scene "$WORK/scene.tif"
for format in onnx tflite; do
    artifact=artifacts/$format-fp32
    there "$PYTHON" -m tests.onboard.portable fly work/scene.tif "work/$artifact" "work/there/$format"
    "$HOST/python" -m tests.onboard.portable fly "$WORK/scene.tif" "$WORK/$artifact" "$WORK/here/$format"
    echo "$format:"
    "$HOST/python" -m tests.onboard.portable compare "$WORK/here/$format" "$WORK/there/$format"
done

say "the on-board tests, on $(there /usr/bin/uname -m), $BOARD"
# shellcheck disable=SC2086  # TESTS is a list of words
there "$PYTHON" -m pytest -q -p no:cacheprovider $TESTS
