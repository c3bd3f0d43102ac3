#!/bin/sh
# Gates a change: exports a checkpoint, proves the file on images, and ends with the exit code of `edgemask validate`:
# 0 all gates hold, 1 one does not, 2 wrong use or bad input, 3 the environment lacks something.
#
#   sh samples/ci/gate.sh CHECKPOINT IMAGES OUTPUT [ANNOTATIONS [BASELINE]]
#
# CHECKPOINT is a .safetensors of your training, or an .onnx, and then REFERENCE names what it is compared with. GATE and
# DEVICE name another gate file and device. OUTPUT gets model.onnx and report/, whatever the outcome: report.html for people, report.md for
# the pull request, junit.xml for the CI's own test tab, report.json as the next BASELINE.
set -eu

[ $# -ge 3 ] || {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}
model=$1 images=$2 output=$3 annotations=${4:-} baseline=${5:-}
gate=${GATE:-$(dirname "$0")/gate.toml}
mkdir -p "$output"

case $model in
*.onnx) reference=${REFERENCE:?an .onnx needs its reference} ;;
*)
    reference=${REFERENCE:-$model}
    edgemask export "$model" -o "$output/model.onnx"
    model=$output/model.onnx
    ;;
esac

code=0
edgemask validate "$model" --reference "$reference" --images "$images" --device "${DEVICE:-cpu}" --gate "$gate" \
    --report "$output/report" ${annotations:+--annotations "$annotations"} ${baseline:+--baseline "$baseline"} || code=$?

# GitHub shows this on the page of the run.
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$output/report/report.md" ]; then
    cat "$output/report/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
