"""Attacks: what an attacker without the key can try against a stolen model.

An attack is a function of a `Target` (the stolen model and the owner's test images, plain, on the
device), a `Budget` and a seed; it returns a `Result`. The owner's key only judges. Each attack
registers itself with `attack`, which names what its attacker is assumed to know; one of your own
does the same, in a file that ``SEGKEY_PLUGINS`` names.

The attacks are in ``wrong_keys``, ``stem``, ``public_twin``, ``statistics``, ``known_pair``,
``ciphertext_only``, ``exhaustive``, ``fine_tune``, ``search`` and ``partial_key``. ``registry``,
``target``, ``suite`` and ``journal`` run them, ``cipher_parts`` guesses and changes keys,
``stem_moments``, ``layer_statistics`` and ``fitted_permutation`` serve ``statistics``,
``stem_taps`` and ``stem_signs`` serve ``stem``, and ``similarity`` measures how well an image was
restored (PSNR, SSIM).

    >>> from segkey.attacks import ATTACKS
    >>> "known-pair" in ATTACKS
    True
"""

# Imported to register themselves, in the order in which a suite runs them: what is cheap and
# telling comes first.
from segkey.attacks import (
    wrong_keys,
    stem,
    public_twin,
    statistics,
    known_pair,
    ciphertext_only,
    exhaustive,
    fine_tune,
    search,
    partial_key,
)  # noqa: F401, I001
from segkey.attacks.exhaustive import too_many_keys
from segkey.attacks.cipher_parts import changeable_parts, secret_parts_of
from segkey.attacks.registry import ATTACKS, Attack, Budget, Result, attack
from segkey.attacks.journal import Cost
from segkey.attacks.target import Target, ways_of_plain
from segkey.attacks.suite import Plan, attack_and_keep, merge, recovered, run_attacks
from segkey.attacks.wrong_keys import correct_plain_incorrect, wrong_ciphers
from segkey.crypto.ciphers import METHODS


def searches_that_fit(
    method: str, block_size: int, channels: int = 3, fixed_password: bool = False
) -> list[str]:
    """Options of ``segkey attack`` whose key search fits a method and block size."""
    fitting = []
    if method in METHODS and not too_many_keys(method, block_size, channels, fixed_password):
        fitting.append("--exhaustive")
    if method in METHODS and not changeable_parts(secret_parts_of(METHODS[method], fixed_password)):
        fitting.append("--search")
    return fitting


__all__ = [
    "ATTACKS",
    "Attack",
    "Budget",
    "Cost",
    "Plan",
    "Result",
    "Target",
    "attack",
    "attack_and_keep",
    "correct_plain_incorrect",
    "merge",
    "run_attacks",
    "searches_that_fit",
    "too_many_keys",
    "ways_of_plain",
    "recovered",
    "wrong_ciphers",
]
