#!/bin/sh
# A licensed customer: has the model and the key, and wants masks for a folder of images.
#
#   sh examples/customer.sh [RUN KEY IMAGES [OUT]]
#
# If nothing is given, a model is trained on built-in scenes first, by own_photographs.sh.
set -eu
out=${4:-customer}

if [ $# -eq 0 ]; then
    sh "$(dirname "$0")/own_photographs.sh" "" "$out.owner"
    set -- "$out.owner/runs/latest" "$out.owner/owner.key" "$out.owner/scenes/images/test"
fi

segkey predict "$1" "$3" --key "$2" --out "$out" --overlay
echo "Masks are in $out/masks; to look at: $out/overlays"

# What a thief gets with the stolen model and another key: segkey warns, and the masks are poor.
rm -f "$out/stolen.key"
segkey keygen "$out/stolen.key" >/dev/null 2>&1
segkey predict "$1" "$3" --key "$out/stolen.key" --out "$out/stolen" --overlay --quiet
