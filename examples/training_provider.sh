#!/bin/sh
# A provider trains without the key and without plain images. The key can be recovered from the encrypted images: take
# a provider that you trust not to do it.
#
#   sh examples/training_provider.sh [SHARDS [OUT]]
#
# SHARDS is what the owner sent: a folder with train.h5 and val.h5. If not given, this script plays the owner first,
# on built-in scenes. The provider works in OUT (training_provider/) alone and sends OUT/runs/NAME back.
set -eu
: "${BACKBONE:=resnet14}" "${EPOCHS:=8}" "${SIZE:=64}" "${WRONG_KEYS:=20}" "${SCENES:=200, 30, 60}"
shards=${1:-} out=${2:-training_provider} owner=""

if [ -z "$shards" ]; then # the owner, at home: key, images and test split never leave this folder
    owner=$out.owner
    python3 -c "import pathlib, sys; from segkey.data import scenes; scenes.write(pathlib.Path(sys.argv[1]), $SCENES, size=96)" "$owner/scenes"
    segkey keygen "$owner/owner.key"
    segkey encrypt "$owner/scenes" --method shf -M 4 --size "$SIZE" --key "$owner/owner.key" --out "$owner/shards"
    shards=$owner/sent
    mkdir -p "$shards"
    cp "$owner/shards/train.h5" "$owner/shards/val.h5" "$shards"
fi

# The provider: looks at what came, checks that it came whole, and trains. Masks, names and sizes are stored plain; of
# the images, coarse shapes can be seen.
mkdir -p "$out"
segkey inspect --verify "$shards" --sheet "$out/what-the-provider-sees.png" --force
segkey train "$shards" --recipe scratch --backbone "$BACKBONE" --epochs "$EPOCHS" --runs "$out/runs"
echo "Send $out/runs/ back to the owner."

if [ -n "$owner" ]; then # the owner again: what came back, on test images that the provider never had
    segkey attack "$out/runs/latest" --shards "$owner/shards" --key "$owner/owner.key" --wrong-keys "$WRONG_KEYS"
fi
