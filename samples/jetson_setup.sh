#!/bin/sh
# Sets up edgemask on an NVIDIA Jetson: looks at its JetPack, installs what fits into a folder, and asks the doctor.
# Never run on a Jetson: unverified. What is known of each JetPack, and from where, is in docs/devices.md.
#
#   sh samples/jetson_setup.sh [FOLDER]
#
# FOLDER, ~/edgemask if left out, gets a virtual environment. PACKAGE names what is installed, such as a wheel you built;
# PYTHON a certain Python; DRY_RUN=1 shows the commands and runs none.
set -eu

folder=${1:-$HOME/edgemask}
package=${PACKAGE:-edgemask}
release_file=${RELEASE_FILE:-/etc/nv_tegra_release}

run() {
    echo "+ $*"
    [ -n "${DRY_RUN:-}" ] || "$@"
}

stop() {
    printf '%s\n' "error: $1" "$2" >&2
    exit 3
}

[ -r "$release_file" ] || stop "there is no $release_file" "run this on a Jetson; in a container, mount that file"
release=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/\1.\2/p' "$release_file")

# onnxruntime-gpu of the package index has wheels for aarch64 from 1.29 on, for CUDA 13, which comes with JetPack 7.
case $release in
38.* | 39.*) jetpack=7 cuda=13 own=3.12 device=cuda ;;
36.*) jetpack=6 cuda=12 own=3.10 device=cpu ;;
35.*) jetpack=5 cuda=11 own=3.8 device=cpu ;;
*) stop "Jetson Linux '$release' is of no JetPack that is known here" "edgemask needs JetPack 5, 6 or 7" ;;
esac
echo "Jetson Linux $release: JetPack $jetpack, with CUDA $cuda and Python $own"
case $release in
39.*) echo "Whether that onnxruntime-gpu has code for an Orin is not known; the doctor will tell." ;;
3[56].*) echo "The GPU needs an onnxruntime-gpu built for CUDA $cuda, see docs/devices.md; until then, the CPU." ;;
esac
case $release in
35.* | 36.2* | 36.3*) echo "Its TensorRT 8 cannot read files of op set 18: name the device cuda, not tensorrt." ;;
esac

found=
for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found=$python && break
done
[ -n "$found" ] || stop "there is no Python 3.11 or later" "install one beside the system's, and name it: PYTHON=..."

run "$found" -m venv "$folder"
if [ "$device" = cuda ]; then # JetPack has CUDA and cuDNN; the extra `cuda` would bring them once more
    run "$folder/bin/pip" install "${package}[video]" 'onnx>=1.21' 'onnxruntime-gpu>=1.29'
else
    run "$folder/bin/pip" install "${package}[cpu,openvino,video]"
fi
# Ends with 3 where the device does not work, and says what it lacks.
run "$folder/bin/edgemask" doctor --device "$device"
