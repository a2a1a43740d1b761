"""The partial-key measurement: the score of keys that agree with the owner's in part."""

from segkey.attacks.cipher_parts import changeable, sharing
from segkey.attacks.registry import Budget, Result, attack
from segkey.attacks.target import Target
from segkey.attacks.wrong_keys import spread
from segkey.model.results import KEY_PART
from segkey.system.seeds import seeded

SHARES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)  # per cent


@attack(
    "partial-key",
    "half of the key",
    obstacle=lambda target: changeable(target.cipher),
    required_access=KEY_PART,
)
def partial_key(target: Target, budget: Budget, seed: int) -> Result:
    """Wrong keys that share 0, 10, … 100 % of the key: how fast the score rises.

    Sharing p per cent of a key means: of each of its parts, p per cent of the positions are right,
    and the others are drawn at random from what is left. Of the positions drawn, some are right by
    chance, half of them in a selection.
    """
    curve = []
    with target.task(
        "partial key", len(target.loader) * ((len(SHARES) - 1) * budget.per_level + 1)
    ):
        for share in SHARES:
            keys = budget.per_level if share < 100 else 1
            values = []
            for number in range(keys):
                # The name of earlier versions, so that a seed goes on drawing the same keys.
                generator = seeded("nearby", seed, share, number)
                name = f"partial-key/{seed}/{share}/{number}" if share < 100 else "correct"
                shared = sharing(target.cipher, share / 100, generator)
                values.append(target.evaluate(name, shared).mean_iou)
            # Sorted, as those of wrong keys: the seed tells what was drawn.
            curve.append(
                {"share": share, "keys": keys} | spread(values) | {"values": sorted(values)}
            )
    half = curve[SHARES.index(50)]
    return Result(
        half["mean"],
        f"keys that share half of the right one, mean of {budget.per_level}",
        {"curve": curve},
    )
