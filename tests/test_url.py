"""URLs: what they mean, which make no sense, and no password in any text."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oneatatime._endpoint import TLS, Endpoint
from oneatatime._errors import InvalidInput

SECRET = "s3cr3tpassw0rd"


URL = {
    "the shortest": ("redis://localhost", Endpoint()),
    "port and db": ("redis://redis.example:7000/3", Endpoint("redis.example", 7000, db=3)),
    "a slash and no db": ("redis://h/", Endpoint("h")),
    "a colon and no port": ("redis://h:", Endpoint("h")),
    "db as an option": ("redis://h?db=4", Endpoint("h", db=4)),
    "db twice: the option wins": ("redis://h/1?db=4", Endpoint("h", db=4)),
    "scheme in capitals": ("REDIS://h", Endpoint("h")),
    "the line end of a file": ("  redis://h\n", Endpoint("h")),
    "valkey": ("valkey://h", Endpoint("h")),
    "user and password": ("redis://u:p@h", Endpoint("h", username="u", password="p")),
    "password alone": ("redis://:p@h", Endpoint("h", password="p")),
    "user without password": ("redis://u@h", Endpoint("h", username="u", password="")),
    "nobody at all": ("redis://@h", Endpoint("h")),
    "bare @ in the password": ("redis://:p@w@h", Endpoint("h", password="p@w")),
    "percent-encoded password": ("redis://:p%40%2F@h", Endpoint("h", password="p@/")),
    "in options": ("redis://h?username=u&password=p%2520", Endpoint("h", username="u", password="p%20")),
    "host and port in options": ("redis://?host=h&port=7000", Endpoint("h", 7000)),
    "host twice: before the ? wins": ("redis://h:1?host=x&port=2", Endpoint("h", 1)),
    "IPv6": ("redis://[::1]:7000", Endpoint("::1", 7000)),
    "zone": ("redis://u:p@[fe80::1%25eth0]", Endpoint("fe80::1%eth0", username="u", password="p")),
    "protocol": ("redis://h?protocol=2", Endpoint("h", protocol=2)),
    "an empty option is none": ("redis://h?ssl_cert_reqs=", Endpoint("h")),
    "unix": ("unix:///run/redis.sock", Endpoint(path="/run/redis.sock")),
    "unix with everything": (
        "unix://u:p@/run/my%20redis.sock?db=2",
        Endpoint(path="/run/my redis.sock", db=2, username="u", password="p"),
    ),
    "TLS": ("rediss://h", Endpoint("h", tls=TLS())),
    "TLS to valkey": ("valkeys://h", Endpoint("h", tls=TLS())),
    "TLS unverified": (
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=False",
        Endpoint("h", tls=TLS(verify="none", check_hostname=False)),
    ),
    "Celery's word": ("rediss://h?ssl_cert_reqs=CERT_OPTIONAL", Endpoint("h", tls=TLS(verify="optional"))),
    "all options of TLS": (
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_ca_path=/ca&ssl_ca_data=PEM&ssl_certfile=/c&ssl_keyfile=/k"
            "&ssl_password=s&ssl_min_version=772&ssl_ciphers=HIGH&ssl_include_verify_flags=[VERIFY_X509_STRICT]"
            "&ssl_exclude_verify_flags=VERIFY_X509_TRUSTED_FIRST,VERIFY_X509_PARTIAL_CHAIN"
        ),
        Endpoint(
            "h",
            tls=TLS(
                ca_certs="/ca.pem",
                ca_path="/ca",
                ca_data="PEM",
                certfile="/c",
                keyfile="/k",
                key_password="s",
                minimum_version=772,
                ciphers="HIGH",
                include_verify_flags=("VERIFY_X509_STRICT",),
                exclude_verify_flags=("VERIFY_X509_TRUSTED_FIRST", "VERIFY_X509_PARTIAL_CHAIN"),
            ),
        ),
    ),
}


@pytest.mark.parametrize(("url", "expected"), URL.values(), ids=URL)
def test_url(url: str, expected: Endpoint) -> None:
    assert Endpoint.of(url) == expected


URL_THAT_MAKES_NO_SENSE = {
    "no URL at all": (SECRET, "begins with one of redis://"),
    "host and port alone": (f"localhost:6379:{SECRET}", "begins with one of redis://"),
    "nothing": ("", "begins with one of redis://"),
    "another scheme": (f"http://u:{SECRET}@h", "begins with one of redis://"),
    "a slip in the scheme": (f"redi://u:{SECRET}@h", "did you mean redis://"),
    "password before the scheme": (f"{SECRET}@redis://h", "begins with one of"),
    "cluster": (f"redis-cluster://:{SECRET}@h", "write redis+cluster://"),
    "Sentinel": (f"redis-sentinel://:{SECRET}@h", "write redis+sentinel://"),
    "two hosts in an option": ("redis://?host=h1,h2", "several hosts"),
    "two hosts": (f"redis://:{SECRET}@h1,h2", "several hosts"),
    "no host": (f"redis://:{SECRET}@", "no host"),
    "no host but a path": (f"redis:///{SECRET}", "no host"),
    "space in the host": (f"redis://:{SECRET}@h h", "no host name"),
    "empty label": (f"redis://:{SECRET}@a..b", "no host name"),
    "label too long": (f"redis://:{SECRET}@{'a' * 64}.example", "no host name"),
    "password without @": (f"redis://u:{SECRET}", "the port must be a number"),
    "password of digits without @": ("redis://u:999999999", "the port must be a number"),
    "port too high": (f"redis://:{SECRET}@h:99999", "from 1 to 65535"),
    "port 0": (f"redis://:{SECRET}@h:0", "from 1 to 65535"),
    "port below 0": (f"redis://:{SECRET}@h:-1", "from 1 to 65535"),
    "bad port in an option": ("redis://h?port=x", "port must be a number"),
    "IPv6 without brackets": (f"redis://:{SECRET}@::1", "in brackets"),
    "half a bracket": (f"redis://:{SECRET}@[::1", "in brackets"),
    "db in words": (f"redis://:{SECRET}@h/zero", "number of a database"),
    "two dbs": (f"redis://:{SECRET}@h/1/2", "number of a database"),
    "db beyond all bounds": (f"redis://h/{'9' * 5000}", "number of a database"),
    "db below 0": ("redis://h?db=-1", "from 0 up"),
    "bad db in an option": ("redis://h?db=x", "db must be a number"),
    "an option twice": ("redis://h?db=1&db=2", "twice"),
    "protocol 4": ("redis://h?protocol=4", "2 or 3"),
    "a slip in an option": ("rediss://h?ssl_cert_req=none", "did you mean ssl_cert_reqs"),
    "a slip in one without use": ("redis://h?sockettimeout=1", "did you mean socket_timeout"),
    "an option of nobody": ("redis://h?colour=red", "no option 'colour'"),
    "ssl as an option": ("redis://h?ssl=true", "rediss://"),
    "a socket's option for a host": ("redis://h?path=/x", "no option 'path'"),
    "a host's option for a socket": ("unix:///x?host=h", "no option 'host'"),
    "options of TLS without TLS": ("redis://h?ssl_ca_certs=/ca.pem", "without TLS"),
    "options of TLS for a socket": ("unix:///x?ssl_cert_reqs=none", "without TLS"),
    "bad ssl_cert_reqs": ("rediss://h?ssl_cert_reqs=maybe", "required, optional or none"),
    "bad ssl_check_hostname": ("rediss://h?ssl_check_hostname=maybe", "true or false"),
    "bad ssl_min_version": ("rediss://h?ssl_min_version=3", "771"),
    "OCSP, which would not be checked": ("rediss://h?ssl_validate_ocsp=true", "OCSP"),
    "relative path": ("unix://tmp/x.sock", "three slashes"),
    "no path": (f"unix://:{SECRET}@", "no socket"),
    "root as path": ("unix:///", "no socket"),
    "NUL in the path": ("unix:///a%00b", "no path of a socket"),
    "password of other bytes": (f"redis://:{SECRET}%FF@h", "not text in UTF-8"),
    "the same as an option": (f"redis://h?password={SECRET}%FF", "not text in UTF-8"),
    "bare / in the password": (f"redis://:pa/{SECRET}@h", "%2F"),
    "bare ? in the password": (f"redis://:pa?{SECRET}@h", "%3F"),
    "bare ? that makes an option": (f"redis://:12?{SECRET}=1@h", "%3F"),
    "bare # in the password": (f"redis://u:12#{SECRET}@h", "%23"),
    "bare / that makes a db": (f"redis://u:12/{SECRET}@h", "%2F"),
    "what urlsplit would quote in full": (f"redis://:\N{ACCOUNT OF}{SECRET}@[x", "no host name"),
}


@pytest.mark.parametrize(("url", "says"), URL_THAT_MAKES_NO_SENSE.values(), ids=URL_THAT_MAKES_NO_SENSE)
def test_url_that_makes_no_sense(url: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Endpoint.of(url)
    assert says in str(caught.value)
    assert SECRET not in _everything_said(caught.value)
    assert "999999999" not in _everything_said(caught.value)


def _everything_said(error: BaseException | None) -> str:
    """The text of an error and of all that a traceback would show with it."""
    said = ""
    while error is not None:
        said += repr(error) + str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said


def test_options_of_pools_are_accepted_and_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="oneatatime"):
        url = f"redis://:{SECRET}@h?socket_timeout=5&decode_responses={SECRET}&max_connections=10"
        assert Endpoint.of(url) == Endpoint("h", password=SECRET)
    assert "socket_timeout, decode_responses, max_connections" in caplog.text
    assert SECRET not in caplog.text


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
HOSTS = st.one_of(
    st.from_regex(
        r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)


@given(user=ANY_TEXT, password=ANY_TEXT, host=HOSTS, port=st.integers(1, 65535), db=st.integers(0, 10**6))
@example(user="\N{ACCOUNT OF}", password="\0 +%40@:/?#[]\n", host="::1", port=1, db=0)
def test_url_round_trip(user: str, password: str, host: str, port: int, db: int) -> None:
    place = f"[{host}]" if ":" in host else host
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@{place}:{port}/{db}"
    assert Endpoint.of(url) == Endpoint(host, port, db=db, username=user, password=password)


BARE = st.lists(st.sampled_from([*"/?#@:%&=[], \n", "1", "12", SECRET]), max_size=12).map("".join)


@given(scheme=st.sampled_from(["redis", "rediss", "unix", "http"]), before=BARE, after=BARE)
@example(scheme="redis", before="12?", after="=1")
@example(scheme="unix", before="@/", after="")
def test_bare_password_is_in_no_text(scheme: str, before: str, after: str) -> None:
    url = f"{scheme}://user:{before}{SECRET}{after}@redis.example/0"
    try:
        said = repr(Endpoint.of(url))
    except InvalidInput as error:
        said = _everything_said(error)
    assert SECRET not in said
