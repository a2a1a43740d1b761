"""What is odd about images, alone and beside their masks: EXIF, sizes, ranges of values."""

from segkey.data.items import Severity, counted
from segkey.data.survey_conclusions import Case

NOTE, WARN, REFUSE = Severity.NOTE, Severity.WARN, Severity.REFUSE


def turned(case: Case) -> None:
    """Images and masks that EXIF data turns differently."""
    told = {
        "image": "images are turned by their EXIF data where their masks are not",
        "mask": "masks are turned by their EXIF data where their images are not",
        "apart": "images and their masks are turned differently by their EXIF data",
    }
    for which, text in told.items():
        if seen := case.survey.turned.get(which):
            case.say(
                WARN,
                f"{seen.count} {text}, such as {seen.name}: each is turned as its own file says",
                "if masks were drawn on unturned images, take the tag away from the images "
                "(exiftool -Orientation= FILE); --sheet FILE shows images under their masks",
            )


def sizes(case: Case) -> None:
    """Masks of another size than their images."""
    other = case.survey.mismatched
    if other.count:
        case.say(
            REFUSE if 2 * other.count >= case.survey.masks else WARN,
            f"{counted(other.count, 'mask')} of another size than the image, such as {other.name}",
            "give masks of the images' own sizes (resized by nearest neighbour); these images are "
            "left out",
            named_later=True,
        )


def pages(case: Case) -> None:
    """Masks of several pages or frames."""
    paged = case.survey.paged
    if paged.count:
        case.say(
            WARN,
            f"{counted(paged.count, 'mask')} of several frames or pages, such as {paged.name}: "
            f"only the first is used",
            "save each page as a file of its own, under its image's name",
        )


def judge_images(case: Case) -> None:
    """Images that cannot be read, and those of several pages; the range of those beyond 8 bits."""
    survey, source = case.survey, case.source
    if survey.images_paged.count:
        case.say(
            WARN,
            f"{counted(survey.images_paged.count, 'image')} of several frames or pages, such as "
            f"{survey.images_paged.name}: only the first is used",
            "save each page as a file of its own",
            named_later=True,
        )
    if survey.damaged.count:
        case.say(
            WARN,
            f"{counted(survey.damaged.count, 'image')} cannot be read, such as "
            f"{survey.damaged.name}",
            "they are left out; mend or remove them",
            named_later=True,
        )
    source.pixel_range = _range_of(case) if survey.deep.count else case.choices.pixel_range
    if source.pixel_range == (0, 65535):
        source.pixel_range = None  # the upper 8 bits, as ever


def _range_of(case: Case) -> tuple[int, int] | None:
    survey, given = case.survey, case.choices.pixel_range
    what = f"{counted(survey.deep.count, 'image')} of 16 or 32 bits, such as {survey.deep.name}"
    if survey.low is None or survey.high is None:
        return given
    seen = f"values from {survey.low} to {survey.high}"
    if given:
        low, high = given
        if survey.low < low or survey.high > high:
            case.say(WARN, f"{what}: {seen}, cut to --range {low}:{high}")
        else:
            case.say(NOTE, f"{what}: {seen}; {low} becomes black, {high} white")
        return given
    if survey.low < 0 or survey.high > 65535:
        case.say(
            REFUSE,
            f"{what}: {seen}, of which none is known to be black or white",
            f"give --range LO:HI, such as --range {survey.low}:{survey.high}",
        )
        return None
    bits = next(bits for bits in (8, 10, 12, 16) if survey.high < 1 << bits)
    if bits < 16:
        case.say(
            NOTE,
            f"{what}: {seen}, taken as {bits}-bit ({(1 << bits) - 1} becomes white)",
            f"--range 16 or --range {survey.low}:{survey.high} decide otherwise",
        )
    elif survey.high < 1 << 14:
        case.say(
            WARN,
            f"{what}: {seen}, dark in the range of 16 bits",
            f"--range {survey.low}:{survey.high} makes the largest value white",
        )
    else:
        case.say(NOTE, f"{what}: {seen}; the upper 8 of 16 bits are kept")
    return 0, (1 << bits) - 1
