#!/bin/sh
# From a folder of photographs to a page about what the key is worth on them.
#
#   sh examples/own_photographs.sh [FOLDER [OUT]]
#
# FOLDER holds images/ and masks/ (see "Your own images" in README.md); built-in scenes are used if it is not given.
# Everything is written to OUT (own_photographs/). Without masks, images are encrypted and shown, and nothing is trained.
# To choose: METHOD=ffx M=4 SIZE=128 BACKBONE=resnet50 EPOCHS=50 WRONG_KEYS=100 sh examples/own_photographs.sh photos/
set -eu
: "${METHOD:=ffx}" "${M:=4}" "${SIZE:=64}" "${BACKBONE:=resnet14}" "${EPOCHS:=8}" "${WRONG_KEYS:=20}"
: "${SCENES:=200, 30, 60}"
data=${1:-} out=${2:-own_photographs}
mkdir -p "$out"

if [ -z "$data" ]; then
    data=$out/scenes
    python3 -c "import pathlib, sys; from segkey.data import scenes; scenes.write(pathlib.Path(sys.argv[1]), $SCENES, size=96)" "$data"
fi
key=$out/owner.key
[ -e "$key" ] || segkey keygen "$key"

segkey encrypt "$data" --method "$METHOD" -M "$M" --size "$SIZE" --key "$key" --out "$out/shards"
segkey inspect "$out/shards" --sheet "$out/stored.png" --force >/dev/null
if ! [ -e "$out/shards/train.h5" ]; then
    echo "No masks, so there is nothing to train on: look at $out/stored.png"
    exit 0
fi
segkey train "$out/shards" --recipe scratch --backbone "$BACKBONE" --epochs "$EPOCHS" --runs "$out/runs"
segkey evaluate "$out/runs/latest" --key "$key"
segkey attack "$out/runs/latest" --key "$key" --wrong-keys "$WRONG_KEYS"
segkey report "$out/runs" --html "$out/report.html" --key "$key"
