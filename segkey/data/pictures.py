"""Folders of images to predict: all images below, without masks."""

from pathlib import Path

from segkey.data.formats import is_image_file
from segkey.data.found import Folder, Found
from segkey.data.items import ALL, Item, Severity, Source, counted
from segkey.data.name_roles import ASIDE, MASK
from segkey.data.not_images import Others
from segkey.data.walking import Walk, files_outside


def find_pictures_below(path: Path, leave_out: Path | None = None) -> Source:
    """Images to predict in a folder, in its ``images/``; masks are left out.

    Args:
        path: the folder.
        leave_out: a folder whose files are not taken: predictions are no input.
    """
    root = path / "images" if (path / "images").is_dir() else path
    source = Source(root, "a folder of images", {ALL: []})
    others, skipped, walk = Others(root), 0, Walk(root)
    hidden = leave_out.resolve() if leave_out else None
    for inside, names in walk.folders():
        folder = Folder.below(inside, root)
        away = files_outside(inside, names, hidden) if hidden else names
        skipped += len(names) - len(away)
        for name in away:
            if not is_image_file(name):
                others.add(inside / name)
            elif folder.role in (MASK, ASIDE):
                others.masks += 1
            else:
                found = Found(folder, name)
                source.splits[ALL].append(Item.found(found.name, found))
    others.again = walk.again
    source.splits[ALL].sort(key=lambda item: item.name)
    others.tell(source, with_masks=True)
    beside = [f.name for f in sorted(path.iterdir()) if root != path and is_image_file(f.name)]
    if beside:
        source.add(
            Severity.WARN,
            f"{counted(len(beside), 'image')} beside {root} not taken, such as {beside[0]}",
            f"give {root} or the images themselves",
        )
    if skipped:
        source.note(
            f"{counted(skipped, 'file')} in {leave_out}, where masks are written, not taken"
        )
    return source
