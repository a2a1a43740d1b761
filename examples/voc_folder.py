"""Make a folder of PASCAL VOC 2012 with further training images, as links: train, val and test.

Run it: ``python examples/voc_folder.py VOCdevkit/VOC2012 MORE OUT``. MORE holds ``images/`` and
``masks/`` of equal names, such as those of the Semantic Boundaries Dataset; none of them may be in
VOC's own validation list. The test images are those of VOC's list val. Every third image of its
list train chooses the best epoch; the others and MORE are trained on.
"""

import sys
from pathlib import Path

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)


def link(image: Path, mask: Path, split: str, out: Path) -> None:
    """Link an image and its mask into a split."""
    for kind, file in (("images", image), ("masks", mask)):
        folder = out / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).symlink_to(file.resolve())


voc, more, out = map(Path, sys.argv[1:4])
lists = {
    name: (voc / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()
    for name in ("train", "val")
}
splits = {
    "train": [name for number, name in enumerate(lists["train"], 1) if number % 3],
    "val": lists["train"][2::3],
    "test": lists["val"],
}
further = sorted((more / "images").iterdir())
if repeated := {image.stem for image in further} & {*splits["val"], *splits["test"]}:
    sys.exit(f"{more} holds images that are tested on, such as {sorted(repeated)[0]}")
for split, names in splits.items():
    for name in names:
        image = voc / "JPEGImages" / f"{name}.jpg"
        link(image, voc / "SegmentationClass" / f"{name}.png", split, out)
for image in further:
    if image.stem not in splits["train"]:
        link(image, more / "masks" / f"{image.stem}.png", "train", out)
(out / "classes.txt").write_text("\n".join(CLASSES.split()) + "\n")
print(", ".join(f"{s} {len(list((out / 'images' / s).iterdir()))}" for s in splits))
