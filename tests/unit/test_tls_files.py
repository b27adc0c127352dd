"""Keys and certificates from their files: what belongs together, and what is said of files that cannot be used."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.config import ConfigError
from proxy.tls.files import FILE_MAX, Certificate, read_authorities, read_certificate, read_revocations
from support.certificates import Certificates, Pair, certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


def read(pair: Pair, **others: str) -> Certificate:
    files = {"key": str(pair.key), "certificate": str(pair.certificate), **others}
    return read_certificate("tls", files["key"], files["certificate"], [str(path) for path in pair.above])


def test_a_pair_and_its_names(made: Certificates) -> None:
    found = read(made.server)
    assert found.names == ("localhost",)  # the addresses are none: nobody can ask for them
    assert found.expires == made.server.made.not_valid_after_utc
    assert (found.chain, found.key) == (made.server.certificate.read_bytes(), made.server.key.read_bytes())
    assert read(made.wildcard).names == ("*.wild.example.com",)


def test_the_common_name_where_there_is_no_other(made: Certificates) -> None:
    assert read(made.authority.issue("Host.Example", client=True)).names == ("host.example",)


def test_a_chain_is_taken_once_however_it_is_named(made: Certificates) -> None:
    pair = made.chained
    expected = pair.chain.read_bytes()
    assert read(pair).chain == expected
    assert read_certificate("tls", str(pair.key), str(pair.chain)).chain == expected
    assert read(pair, certificate=str(pair.chain)).chain == expected


def test_the_first_to_expire_counts(made: Certificates) -> None:
    pair = made.authority.issue("long_lived", days=300)
    short = made.authority.issue("short_lived", days=3)
    found = read_certificate("tls", str(pair.key), str(pair.certificate), [str(short.certificate)])
    assert found.expires == short.made.not_valid_after_utc


def test_key_and_certificate_may_share_a_file(made: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(made.server.key.read_bytes() + made.server.certificate.read_bytes())
    assert read(made.server, key=str(both), certificate=str(both)).names == ("localhost",)


def test_a_key_is_never_shown(made: Certificates) -> None:
    assert "PRIVATE" not in repr(read(made.server))


def encrypted(pair: Pair, path: Path) -> Path:
    protection = serialization.BestAvailableEncryption(b"swordfish")
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(pair.private.private_bytes(serialization.Encoding.PEM, form, protection))
    return path


def broken(path: Path, original: Path) -> Path:
    octets = original.read_bytes()
    path.write_bytes(octets[: len(octets) // 2] + b"\n-----END CERTIFICATE-----\n")
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def large(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(FILE_MAX + 1)
    return path


def text_only(path: Path) -> Path:
    path.write_text("# -----BEGIN CERTIFICATE-----\n")
    return path


def cut(path: Path, original: Path, octets: int) -> Path:
    path.write_bytes(original.read_bytes()[:-octets])
    return path


@pytest.mark.parametrize(
    ("which", "file", "text"),
    [
        ("key", lambda made, path: path, "cannot be read: No such file or directory"),
        ("key", lambda made, path: pipe(path), "expected a regular file"),
        ("key", lambda made, path: path.parent, "expected a regular file"),
        ("key", lambda made, path: large(path), f"expected a file of at most {FILE_MAX} octets"),
        ("key", lambda made, path: made.server.certificate, "expected a private key in PEM"),
        ("key", lambda made, path: made.other.key, "and it is another one's"),
        ("key", lambda made, path: made.server_rsa.key, "and it is another one's"),
        ("key", lambda made, path: encrypted(made.server, path), "expected a private key without a passphrase"),
        ("key", lambda made, path: broken(path, made.server.key), "expected a private key in PEM"),
        ("certificate", lambda made, path: path, "cannot be read: No such file or directory"),
        ("certificate", lambda made, path: made.server.key, "expected a certificate in PEM"),
        ("certificate", lambda made, path: text_only(path), "and one is broken"),
        ("certificate", lambda made, path: broken(path, made.server.certificate), "and one is broken"),
        # whoever writes it has not come to the end yet: the chain's second certificate is not all there
        *(
            (
                "certificate",
                lambda made, path, octets=octets: cut(path, made.chained.chain, octets),
                "and one is broken",
            )
            for octets in (3, 20, 300, 600)
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    which: str, file: Callable[[Certificates, Path], Path], text: str, made: Certificates, tmp_path: Path
) -> None:
    path = file(made, tmp_path / "wrong.pem")
    with pytest.raises(ConfigError) as error:
        read(made.server, **{which: str(path)})
    (finding,) = error.value.findings
    assert (finding.place, finding.value) == (f"tls.{which}", str(path))
    assert text in finding.expected
    assert "PRIVATE" not in error.value.message
    assert not any(line and line in error.value.message for line in made.server.key.read_text().splitlines())


def test_authorities_of_several_files(made: Certificates) -> None:
    bundle = read_authorities("ca", [str(made.ca), str(made.foreign.certificate)])
    assert bundle == made.ca.read_bytes() + made.foreign.certificate.read_bytes()
    assert read_authorities("ca", []) == b""
    with pytest.raises(ConfigError, match=r"error: ca\[1\]: .*server.key: expected a certificate in PEM"):
        read_authorities("ca", [str(made.ca), str(made.server.key)])


def test_revocation_lists(made: Certificates, tmp_path: Path) -> None:
    first, second = made.authority.revoke(made.client), made.foreign.revoke(made.foreign_client)
    both = tmp_path / "both.pem"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert read_revocations("crl", [str(both)]) == both.read_bytes()
    with pytest.raises(ConfigError, match=r"crl\[0\]: .*ca.pem: expected a revocation list"):
        read_revocations("crl", [str(made.ca)])
    half = tmp_path / "half.pem"
    half.write_bytes(first.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"crl\[0\]: .*half.pem: expected revocation lists in PEM, and one is broken"):
        read_revocations("crl", [str(half)])
