"""What somebody without the key can try.

An attack is a function of a `Subject` (the stolen model and the owner's test images, plain, on the device), a `Budget`
and a seed; it returns a `Result`. The owner's key only judges. Each attack registers itself with `attack`, which names
what its attacker is assumed to know; one of your own does the same, in a file that ``SEGKEY_METHODS`` names.

The modules ``wrong_keys`` … ``nearby`` hold the attacks; ``registry``, ``subject`` and ``suite`` what runs them,
``key_parts`` how keys are guessed and changed, ``likeness`` how well an image was restored.

    >>> from segkey.attacks import ATTACKS
    >>> "known-pair" in ATTACKS
    True
"""

# Imported to register themselves, in the order in which a suite runs them: what is cheap and telling comes first.
from segkey.attacks import wrong_keys, known_pair, ciphertext_only, exhaustive, fine_tune, search, nearby  # noqa: F401, I001
from segkey.attacks.registry import ATTACKS, Attack, Budget, Result, attack
from segkey.attacks.subject import Cost, Subject, ways_of_plain
from segkey.attacks.suite import merge, run_attacks, won
from segkey.attacks.wrong_keys import correct_plain_incorrect, wrong_ciphers

__all__ = [
    "ATTACKS",
    "Attack",
    "Budget",
    "Cost",
    "Result",
    "Subject",
    "attack",
    "correct_plain_incorrect",
    "merge",
    "run_attacks",
    "ways_of_plain",
    "won",
    "wrong_ciphers",
]
