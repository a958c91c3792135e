#!/usr/bin/env bash
# Runs the on-board side on real arm64 binaries, under emulation, and holds what it gives against this machine's.
#
#   sudo tests/onboard/arm64.sh [FOLDER]     FOLDER: where the arm64 system is made (1 GB), default .venv-arm64
#
# Needs root, Debian or Ubuntu with debootstrap, qemu-user-static and binfmt-support, and .venv of Python 3.11 (`make lint`).
# 1. debootstrap downloads Debian 12 for arm64; its packages are unpacked, not configured. What is mounted in the new
#    system (/proc; tests and shared/data, read-only) is mounted in a namespace of its own and goes with it. /sys is
#    never mounted there.
# 2. pip downloads the aarch64 wheels that constraints.txt pins; edgeslim comes as the wheel of this checkout.
# 3. `edgeslim check` and `classify` with the embedded encoder run there and here; logits and maps are compared.
# 4. The on-board tests run there, but for those whose subject is the emulator's there and not the program's: address
#    space and resident memory (fuzz, test_memory, test_reading_memory), how a crash reads (test_scene_process); and the
#    replayed power cuts (hours). TESTS="tests/test_grid.py -x" runs others.
# The emulator is registered with the kernel where it is not, and that is undone at the end.
# No part of `make test`: it needs root, downloads 200 MB and takes about ten minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROOT=$(realpath -m "${1:-.venv-arm64}")
HOST=${HOST:-.venv/bin}
PYTHON=python3.11
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
# Without these onnxruntime complains on stderr; plain files do.
mkdir -p "$ROOT/sys/devices/system/cpu"
echo "0-$(($(nproc) - 1))" | tee "$ROOT/sys/devices/system/cpu/possible" >"$ROOT/sys/devices/system/cpu/present"
# A Raspberry Pi 4's; the host's would be shown otherwise.
for cpu in $(seq 0 $(($(nproc) - 1))); do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n' "$cpu"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
done >"$ROOT/opt/cpuinfo"
[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    update-binfmts --enable qemu-aarch64
    trap 'update-binfmts --disable qemu-aarch64' EXIT
fi

say "wheels for aarch64"
FLIGHT=$ROOT/opt/flight
rm -rf "$ROOT/opt/wheel" "$ROOT/opt/board" "$FLIGHT"
echo /opt/board >"$ROOT/usr/lib/python3/dist-packages/board.pth"
mkdir -p "$FLIGHT/tests" "$FLIGHT/work" "$ROOT/opt/shared/data"
cp -r pyproject.toml README.md docs "$FLIGHT"
"$HOST/python" -m pip wheel -q --no-deps -w "$ROOT/opt/wheel" .
platforms=()
for glibc in 2_17 2_27 2_28 2_34; do platforms+=(--platform "manylinux_${glibc}_aarch64"); done
"$HOST/python" -m pip install -q --target "$ROOT/opt/board" -c constraints.txt --only-binary=:all: \
    --implementation cp --python-version 3.11 --platform manylinux2014_aarch64 "${platforms[@]}" \
    "edgeslim[onnx] @ file://$(echo "$ROOT"/opt/wheel/*.whl)" pytest hypothesis

there() { # runs a command in the arm64 system
    ROOT=$ROOT SHARED=$(realpath -m ../shared/data) unshare --mount --fork bash -euc '
        mount --make-rprivate /
        mount -t proc proc "$ROOT/proc"
        mount --bind "$ROOT/opt/cpuinfo" "$ROOT/proc/cpuinfo"
        mount --bind -o ro tests "$ROOT/opt/flight/tests"
        [ ! -d "$SHARED" ] || mount --bind -o ro "$SHARED" "$ROOT/opt/shared/data"
        exec chroot "$ROOT" /usr/bin/env -i -C /opt/flight PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 \
            OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 "$@"' there "$@"
}

say "check and classify, there and here"
WORK=$FLIGHT/work
mkdir -p "$WORK/here" "$WORK/there"
"$HOST/edgeslim" export --encoder eurosat-rgb -w 0.25 -o "$WORK/artifact"
"$HOST/python" -m tests.onboard.portable scene "$WORK/scene.tif"
there "$PYTHON" -m edgeslim check work/artifact
there "$PYTHON" -m tests.onboard.portable fly work/scene.tif work/artifact work/there
"$HOST/python" -m tests.onboard.portable fly "$WORK/scene.tif" "$WORK/artifact" "$WORK/here"
"$HOST/python" -m tests.onboard.portable compare "$WORK/here" "$WORK/there"

say "the on-board tests, on $(there /usr/bin/uname -m)"
# shellcheck disable=SC2086  # TESTS is a list of words
there "$PYTHON" -m pytest -q -p no:cacheprovider $TESTS
