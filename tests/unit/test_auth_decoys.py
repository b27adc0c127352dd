"""What is made up for clients that name nobody who is known."""

import string

import pytest

from proxy.auth import decoys as module
from proxy.auth.decoys import Decoys, decoy_key

KEY = b"k" * 32


def salts(*samples, names=("a", "b", "c")):
    decoys = Decoys(KEY, "wampcra", dict(samples))
    return [decoys.salt(name) for name in names]


def key_of(monkeypatch, *files):
    monkeypatch.setattr(module, "_MACHINE_IDS", files)
    return decoy_key()


@pytest.fixture
def machine_id(tmp_path):
    """A file with an ID."""
    number = iter(range(10))

    def write(text):
        path = tmp_path / f"machine-id{next(number)}"
        path.write_text(text)
        return path

    return write


def test_the_key_is_the_machines(monkeypatch, machine_id):
    here, same, other = (machine_id(text) for text in ("1a" * 16 + "\n", "1A" * 16, "2b" * 16))
    key = key_of(monkeypatch, here)
    assert key == key_of(monkeypatch, same) == key_of(monkeypatch, here, other)
    assert key != key_of(monkeypatch, other)
    # It is not to be found out by what is made of it.
    assert "1a1a" not in key.hex()


@pytest.mark.parametrize("text", ["", "uninitialized\n", "1a" * 15, "\0" * 32])
def test_a_machine_without_an_id_is_known_by_its_boot(text, monkeypatch, machine_id, tmp_path):
    boot_id = machine_id("11111111-2222-3333-4444-555555555555\n")
    expected = key_of(monkeypatch, boot_id)
    assert key_of(monkeypatch, machine_id(text), boot_id) == expected
    assert key_of(monkeypatch, tmp_path / "missing", boot_id) == expected


def test_without_any_id_the_key_is_the_processs(monkeypatch, tmp_path):
    key = key_of(monkeypatch, tmp_path / "missing")
    assert len(key) == 32
    assert key_of(monkeypatch) == key


def test_here_there_is_an_id():
    assert decoy_key() == decoy_key()
    assert decoy_key() != module._process_key()


def test_the_same_each_time_and_for_nobody_else():
    first, again, other = (Decoys(key, "scram", {}) for key in (KEY, KEY, b"x" * 32))
    names = ["a", "b", "", None, "\ud800", "a\0b"]
    made = [first.octets("salt", name, 16) for name in names]
    assert made == [again.octets("salt", name, 16) for name in names]
    assert len({*made, *(other.octets("salt", name, 16) for name in names)}) == 2 * len(names)
    assert first.octets("salt", "a", 16) != first.octets("keys", "a", 16)
    assert first.octets("salt", "a", 16) != Decoys(KEY, "wampcra", {}).octets("salt", "a", 16)


@pytest.mark.parametrize(
    ("sample", "alphabet"),
    [
        ("0123456789", string.digits),
        ("00ff00ff", string.digits + "abcdef"),
        ("00FF00FF", string.digits + "ABCDEF"),
        ("saltysalt", string.ascii_lowercase),
        ("salt123z", string.ascii_lowercase + string.digits),
        ("Salt123z", string.ascii_letters + string.digits),
        ("Sa+t/23z", string.ascii_letters + string.digits + "+/"),
        ("Sa-t_23z", string.ascii_letters + string.digits + "-_"),
        ("salt of joe!", string.printable),
        ("sält", string.ascii_letters),
    ],
)
def test_salts_look_like_those_that_there_are(sample, alphabet):
    made = salts(("joe", {"salt": sample}))
    assert {len(salt) for salt in made} == {len(sample)}
    assert set("".join(made)) <= set(alphabet)
    assert len({*made, sample}) == len(made) + 1


def test_salts_in_base64_end_like_it():
    (made,) = salts(("joe", {"salt": "c2FsdA=="}), names=("a",))
    assert made[-2:] == "=="
    assert "=" not in made[:-2]


def test_a_salt_that_several_have_is_nobodys_too():
    samples = [("joe", {"salt": "same"}), ("ann", {"salt": "same"})]
    assert salts(*samples) == ["same"] * 3


def test_salts_that_are_the_names():
    assert salts(("joe", {"salt": "joe"})) == ["a", "b", "c"]


def test_all_who_are_known_are_imitated():
    decoys = Decoys(KEY, "wampcra", {name: {"role": name} for name in ("joe", "ann", "eve")})
    assert {decoys.sample(f"nobody{number}")[0] for number in range(100)} == {"joe", "ann", "eve"}


def test_what_is_learned_is_no_secret_and_does_not_change():
    decoys = Decoys(KEY, "wampcra", {})
    assert decoys.sample("nobody") == (None, {})
    decoys.learn("joe", {"role": "user", "secret": "s3cret"}, ("role", "salt"))
    decoys.learn("ann", {"role": "admin"}, ("role",))
    assert decoys.sample("nobody") == ("joe", {"role": "user"})


def test_what_the_configuration_knows_is_not_learned_anew():
    decoys = Decoys(KEY, "wampcra", {"joe": {"role": "user"}})
    decoys.learn("ann", {"role": "admin"}, ("role",))
    assert decoys.sample("nobody") == ("joe", {"role": "user"})
