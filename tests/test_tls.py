"""TLS handshakes in memory, between what `TLS` makes and a server with a certificate of its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from oneatatime._endpoint import TLS
from oneatatime._errors import InvalidInput

SECRET = "s3cr3tpassw0rd"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield path


def _handshake(
    tls: TLS, authority: trustme.CA, *, host: str = "redis.example", client_ca: bool = False
) -> ssl.SSLObject:
    """The client's end after a handshake with redis.example, asked for by the name of `host`."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("redis.example").configure_cert(accepting)
    if client_ca:
        authority.configure_trust(accepting)
        accepting.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = accepting.wrap_bio(up, down, server_side=True)
    client = tls.ssl_context().wrap_bio(down, up, server_hostname=host)
    for end in (client, server) * 3:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client


def test_tls_of_a_known_authority(authority: trustme.CA, ca: str) -> None:
    assert _handshake(TLS(ca_certs=ca), authority).getpeercert()
    assert _handshake(TLS(ca_data=authority.cert_pem.bytes().decode()), authority).getpeercert()


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_tls_refuses_an_unknown_authority(authority: trustme.CA, verify: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(TLS(verify=verify), authority)


def test_tls_of_one_authority_refuses_all_others(authority: trustme.CA) -> None:
    other = trustme.CA().cert_pem.bytes().decode()
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(TLS(ca_data=other), authority)
    assert len(TLS(ca_data=other).ssl_context().get_ca_certs()) == 1  # the system's are not trusted beside it


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_tls_refuses_another_host(authority: trustme.CA, ca: str, verify: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(TLS(ca_certs=ca, verify=verify), authority, host="other.example")


def test_tls_that_was_told_to_look_away(authority: trustme.CA, ca: str) -> None:
    _handshake(TLS(ca_certs=ca, check_hostname=False), authority, host="other.example")
    _handshake(TLS(verify="none"), authority, host="other.example")


@pytest.mark.parametrize("password", [None, SECRET], ids=["plain key", "encrypted key"])
def test_tls_with_a_certificate_of_our_own(
    authority: trustme.CA, ca: str, tmp_path: Path, password: str | None
) -> None:
    certfile, keyfile = _certificate(authority, tmp_path, password)
    tls = TLS(ca_certs=ca, certfile=certfile, keyfile=keyfile, key_password=password)
    _handshake(tls, authority, client_ca=True)


def _certificate(authority: trustme.CA, directory: Path, password: str | None) -> tuple[str, str]:
    from cryptography.hazmat.primitives import serialization

    issued = authority.issue_cert("client.example")
    key = issued.private_key_pem.bytes()
    if password is not None:
        key = serialization.load_pem_private_key(key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    certfile, keyfile = directory / "client.pem", directory / "client.key"
    certfile.write_bytes(issued.cert_chain_pems[0].bytes())
    keyfile.write_bytes(key)
    return str(certfile), str(keyfile)


def test_tls_key_without_its_password_is_no_question_on_the_terminal(
    authority: trustme.CA, tmp_path: Path
) -> None:
    certfile, keyfile = _certificate(authority, tmp_path, SECRET)
    with pytest.raises(InvalidInput, match="give ssl_password"):
        TLS(certfile=certfile, keyfile=keyfile).ssl_context()
    with pytest.raises(InvalidInput, match="cannot be used") as caught:
        TLS(certfile=certfile, keyfile=keyfile, key_password=f"not {SECRET}").ssl_context()
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        (TLS(ca_certs="/no/such.pem"), "ssl_ca_certs='/no/such.pem' cannot be used"),
        (TLS(ca_path="/no/such"), "ssl_ca_path='/no/such' cannot be used"),
        (TLS(ca_data="no PEM"), "ssl_ca_data"),
        (TLS(ca_data="\N{SNOWMAN}"), "ssl_ca_data"),
        (TLS(certfile="/no/such.pem"), "ssl_certfile='/no/such.pem' cannot be used"),
        (TLS(keyfile="/no/such.key"), "ssl_keyfile='/no/such.key' cannot be used"),
        (TLS(ciphers="NO-SUCH"), "ssl_ciphers='NO-SUCH' cannot be used"),
        (TLS(include_verify_flags=("NO_SUCH",)), "ssl_include_verify_flags"),
        (TLS(exclude_verify_flags=("NO_SUCH",)), "ssl_exclude_verify_flags"),
    ],
)
def test_tls_options_that_make_no_sense(tls: TLS, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        tls.ssl_context()
    assert says in str(caught.value)


def test_tls_version_ciphers_and_flags() -> None:
    strict = ssl.VerifyFlags.VERIFY_X509_STRICT
    context = TLS(
        minimum_version=772, ciphers="HIGH", include_verify_flags=(strict.name or "",)
    ).ssl_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_flags & strict
    assert not TLS(exclude_verify_flags=(strict.name or "",)).ssl_context().verify_flags & strict
