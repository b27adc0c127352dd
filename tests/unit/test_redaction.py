"""Configurations as the management API shows them."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.findings import render_value
from proxy.config.redaction import HIDDEN, redacted


def test_what_holds_no_secret_is_shown_as_it_was_given():
    config = {
        "type": "websocket",
        "endpoint": {"type": "tcp", "port": 8080, "tls": {"key": "server.key", "certificate": "server.crt"}},
        "auth": {"ticket": {"type": "dynamic", "authenticator": "com.example.authenticate"}},
        "serializers": ["json", "cbor"],
        "options": {"auto_ping_interval": None, "tcp_nodelay": True},
        "url": "ws://example.com/ws",
    }
    before = copy.deepcopy(config)
    assert redacted(config) == config
    assert config == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"ticket": {"principals": {"joe": {"ticket": "s3", "role": "user"}}}},
         {"ticket": {"principals": {"joe": {"ticket": HIDDEN, "role": "user"}}}}),
        ({"users": {"joe": {"secret": "s3", "salt": "s3", "iterations": 100}}},
         {"users": {"joe": {"secret": HIDDEN, "salt": HIDDEN, "iterations": 100}}}),
        ({"stored-key": "s3", "server-key": "s3", "kdf": "pbkdf2"},
         {"stored-key": HIDDEN, "server-key": HIDDEN, "kdf": "pbkdf2"}),
        ({"headers": {"X-Whatever": "s3"}, "url": "ws://joe:s3@host/ws"},
         {"headers": {"X-Whatever": HIDDEN}, "url": f"ws://{HIDDEN}@host/ws"}),
        ({"users": [{"user": "joe", "password": "s3"}]}, {"users": [{"user": "joe", "password": HIDDEN}]}),
        ({"tls": {"key": "-----BEGIN PRIVATE KEY-----\ns3"}}, {"tls": {"key": HIDDEN}}),
        ({"url": "ws://joe:s3@s3@host/ws"}, {"url": f"ws://{HIDDEN}@host/ws"}),
        ({"url": "ws://host/ws?a=1&access_token=s3&b=@"}, {"url": f"ws://host/ws?a=1&access_token={HIDDEN}&b=@"}),
        ({"password": "$s3"}, {"password": HIDDEN}),  # not every secret that looks like a variable is one
        ({"password": "s3.key", "ticket": "s3.pem"}, {"password": HIDDEN, "ticket": HIDDEN}),
        ({"authextra": {"a": {"b": ["s3", 17]}}}, {"authextra": {"a": {"b": [HIDDEN, HIDDEN]}}}),
    ],
)  # fmt: skip
def test_secrets_are_hidden(config, expected):
    assert redacted(config) == expected


def test_references_to_the_environment_are_shown():
    assert redacted({"secret": "${JOES_SECRET}"}) == {"secret": "${JOES_SECRET}"}


def test_texts_about_urls_show_no_credentials():
    url = "ws://joe:s3@s3@host/ws?key=s3"
    assert render_value(url, ("url",)) == f'"ws://{HIDDEN}@host/ws?key={HIDDEN}"'


secret = st.text("abcXYZ0123456789-_+/=", min_size=12) | st.integers()
keys = st.sampled_from(["ticket", "secret", "password", "private_key", "api_token", "seed", "cookie_secret"])


@given(st.recursive(st.dictionaries(keys, secret, min_size=1, max_size=3),
                    lambda inner: st.dictionaries(st.sampled_from(["a", "auth", "ticket"]), inner, max_size=3)
                    | st.lists(inner, max_size=3)))  # fmt: skip
def test_nothing_under_a_secret_key_gets_out(config):
    def leaves(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [leaf for item in inner for leaf in leaves(item)]

    assert set(leaves(redacted(config))) <= {HIDDEN}
