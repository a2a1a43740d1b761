"""Age identities of keys, and files in the age format."""

import io
import pickle

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from segkey.crypto import age
from segkey.crypto.age import Identity, NoMatch
from segkey.crypto.keys import Key
from segkey.errors import SealedKeyError, SegkeyError

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(32, 64)))
RECIPIENT = "age1phj48zsr6urhdxau572nxft7cytjvlqvvhqgu2fk3fd6g6js69psvpf7a3"
SECRET = "AGE-SECRET-KEY-1TAN0PLP7XD4UEMUWKAZ5G7X5LVSDMN3J3TD9H246YKA43FAQD9YSN0J9JZ"


def opened(data: bytes, key: Key = KEY) -> bytes:
    return age.decrypted(io.BytesIO(data), Identity.of(key)).getvalue()


def test_golden_identity():
    assert KEY.age_secret() == KEY.stream(b"age-x25519", 32)
    assert (
        KEY.age_secret().hex() == "5f66f0fc3e336bccef8eb7454478d4fb20ddce328ada5baaba25bb58a7a06949"
    )
    assert Identity.of(KEY).recipients == (RECIPIENT,)
    assert str(pyrage.x25519.Identity.from_str(SECRET).to_public()) == RECIPIENT


@given(st.binary(min_size=32, max_size=32))
def test_recipients_are_the_x25519_public_keys_of_what_is_derived(secret):
    key = Key(secret)
    public = X25519PrivateKey.from_private_bytes(key.age_secret()).public_key().public_bytes_raw()
    assert Identity.of(key).recipients == (age._bech32("age", public),)


@pytest.mark.parametrize(
    "prefix, data, text",
    [
        ("a", b"", "a12uel5l"),
        ("?", b"", "?1ezyfcl"),
    ],
)
def test_bech32_of_bip_173(prefix, data, text):
    assert age._bech32(prefix, data) == text


def test_an_identity_shows_its_recipient_and_never_its_secret():
    identity = Identity.of(KEY)
    assert repr(identity) == f"<segkey age identity {RECIPIENT}>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(identity)


@given(st.binary(max_size=200_000))
def test_round_trip(data):
    assert opened(age.encrypted(data, [RECIPIENT])) == data


def test_interoperates_with_age_both_ways():
    theirs = pyrage.x25519.Identity.generate()
    made_by_age = pyrage.encrypt(b"weights", [pyrage.x25519.Recipient.from_str(RECIPIENT)])
    assert opened(made_by_age) == b"weights"
    ours = age.encrypted(b"weights", [RECIPIENT, str(theirs.to_public())])
    assert pyrage.decrypt(ours, [theirs]) == b"weights"
    assert opened(ours) == b"weights"


def test_every_flipped_bit_and_every_cut_is_found():
    data = age.encrypted(b"weights", [RECIPIENT])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((NoMatch, ValueError)):
            opened(bytes(flipped))
    for size in range(len(data)):
        with pytest.raises((NoMatch, ValueError)):
            opened(data[:size])
    with pytest.raises(ValueError):
        opened(data + b"x")


def test_a_chunk_that_is_left_out_is_found():
    data = age.encrypted(bytes(200_000), [RECIPIENT])
    chunk = 65536 + 16
    with pytest.raises(ValueError):
        opened(data[:-chunk])
    with pytest.raises(ValueError):
        opened(data[: -2 * chunk] + data[-chunk:])


def test_another_key_opens_nothing():
    with pytest.raises(NoMatch):
        opened(age.encrypted(b"weights", [RECIPIENT]), OTHER)


def test_recipients_are_counted_without_a_key():
    both = [RECIPIENT, *Identity.of(OTHER).recipients]
    assert age.count_recipients(io.BytesIO(age.encrypted(b"weights", both))) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"age-encryption.org/v2\n-> X25519 a\n--- b\n",
        b"no age file",
        b"age-encryption.org/v1\n" + b"-> X25519 a\nb\n" * 100_000 + b"--- c\n",
    ],
)
def test_what_is_no_age_file_or_has_an_endless_header_is_refused(content):
    """pyrage would read such a header for minutes."""
    with pytest.raises(ValueError, match="no age file"):
        opened(content)


def test_as_many_recipients_as_are_allowed_open_and_more_are_refused():
    keys = [Key(number.to_bytes(32, "big")) for number in range(age.MOST_RECIPIENTS + 1)]
    recipients = [Identity.of(key).recipients[0] for key in keys]
    with pytest.raises(SegkeyError, match="1001 recipients: there must be 1 to 1000"):
        age.check_recipients(recipients)
    found = age.check_recipients(recipients[:-1] * 2)  # each counts once
    assert opened(age.encrypted(b"weights", found), keys[-2]) == b"weights"


@pytest.mark.parametrize(
    "text", ["age1", "age1" + "q" * 58, "", "ssh-ed25519 AAAA", RECIPIENT[:-1] + "q", "age1pq1abc"]
)
def test_what_is_no_recipient_is_named(text):
    with pytest.raises(SegkeyError, match="is no age recipient"):
        age.check_recipients([text])


def test_a_secret_given_as_a_recipient_is_not_shown():
    with pytest.raises(SegkeyError) as refused:
        age.check_recipients([SECRET.lower()])
    assert SECRET[20:40].lower() not in str(refused.value).lower()


def test_identities_are_read_from_keys_and_from_files_of_age_keygen(tmp_path):
    KEY.save(tmp_path / "plain.key")
    KEY.save(tmp_path / "sealed.key", "words")
    (tmp_path / "age.txt").write_text(f"# created: today\n# public key: {RECIPIENT}\n{SECRET}\n")
    assert Identity.read(tmp_path / "plain.key").recipients == (RECIPIENT,)
    assert Identity.read(tmp_path / "sealed.key", "words").recipients == (RECIPIENT,)
    assert Identity.read(tmp_path / "age.txt").recipients == (RECIPIENT,)
    with pytest.raises(SealedKeyError):
        Identity.read(tmp_path / "sealed.key")
    (tmp_path / "age.txt").write_text(SECRET[:-1] + "Q")
    with pytest.raises(SegkeyError, match="damaged age identity") as refused:
        Identity.read(tmp_path / "age.txt")
    assert SECRET[20:40] not in str(refused.value)
    with pytest.raises(SegkeyError, match="there is no key at"):
        Identity.read(tmp_path / "missing.key")
