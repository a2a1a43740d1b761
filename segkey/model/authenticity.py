"""Documents of measurements: authenticated with the owner's key, compared by their conditions.

They lie in folders that may come from an untrusted source. Needs no torch.
"""

import hmac

from segkey.crypto.keys import Key


def authenticated(what: str, document: dict, key: Key | None) -> dict:
    """A document with an ``hmac`` that only a holder of the key can make, if there is a key."""
    document = {name: value for name, value in document.items() if name != "hmac"}
    return document | ({"hmac": key.authenticate(what, document)} if key else {})


def is_authentic(what: str, document: dict, key: Key | None) -> bool:
    """Whether a document is as `authenticated` made it with this key."""
    content = {name: value for name, value in document.items() if name != "hmac"}
    stated = document.get("hmac")
    return (
        bool(key) and isinstance(stated, str) and same_text(stated, key.authenticate(what, content))
    )


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())


def differences(before: dict, now: dict) -> list[str]:
    """In words, what differs between the settings of two measurements."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    return [_WORDS.get(name, f"the {name.replace('_', ' ')}") for name in names]


_WORDS = {
    "run": "the run's name",
    "weights_sha256": "the weights",
    "images": "the number of test images",
    "fingerprint": "the test images or masks",
    "labels": "the names or masks of the test images",
    "dtype": "the data type of the computation",
    "precise": "the precision",
    "batch_size": "the batch size",
    "versions": "the version of segkey or torch",
    "attackers_images": "the attacker's own images",
    "start": "the weights that its training began with",
}
