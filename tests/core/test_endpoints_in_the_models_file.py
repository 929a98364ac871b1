"""The models file: several keys of one model, and what is wrong with a file is said with its place and its cure."""

import re
from pathlib import Path

import pytest

from cope.catalog import load_catalog
from cope.core.errors import Misconfigured
from cope.core.limits.types import Limits
from cope.core.models import ModelEntry
from cope.settings import Settings

SMALL = '[[model]]\nname = "s"\nbase_url = "http://s/v1"\ntier = "small"\ncontext_length = 4096\n'
LARGE = '[[model]]\nname = "big"\ntier = "paid"\ncontext_length = 4096\nprice_id = "gpt-4o"\n'
ONE = '[[model.endpoint]]\nname = "one"\nbase_url = "https://one/v1"\napi_key_env = "KEY_1"\n'
TWO = '[[model.endpoint]]\nname = "two"\nbase_url = "https://two/v1"\n'
GROUP = 'limit_group = "g"\nrpm = 5\n'


def load(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    monkeypatch.setenv("KEY_1", "sk-1")
    file = tmp_path / "models.toml"
    file.write_text(SMALL + text)
    return load_catalog(Settings(models_file=file)).entries["big"]


def test_endpoints_have_their_own_address_key_limits_and_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = load(
        tmp_path,
        LARGE
        + ONE
        + "rpm = 500\ntpm = 200000\nconcurrency = 32\n"
        + TWO
        + 'price_id = "other"\nserved_name = "vendor/big"\nweight = 2\nlimit_group = "account-2"\n',
        monkeypatch,
    )
    one, two = entry.variants

    assert (one.base_url, one.api_key, one.price_id, one.served_name) == ("https://one/v1", "sk-1", "gpt-4o", "big")
    assert (two.base_url, two.api_key, two.price_id, two.served_name) == ("https://two/v1", "", "other", "vendor/big")
    assert [(p.endpoint, p.group, p.limits, p.weight) for p in entry.places] == [
        ("one", "big/one", Limits(500, 200_000, 32), 1.0),
        ("two", "account-2", Limits(), 2),
    ]
    assert "sk-1" not in repr(entry)


def test_a_model_without_endpoints_is_its_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = load(tmp_path, LARGE + 'base_url = "https://one/v1"\nrpm = 5\n', monkeypatch)

    assert entry.variants == (entry,)
    assert entry.at("anything") is entry
    assert [(p.endpoint, p.group, p.limits) for p in entry.places] == [("big", "big", Limits(5, None, None))]


def test_the_models_key_and_address_are_those_of_endpoints_that_name_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = load(
        tmp_path,
        LARGE + 'base_url = "https://all/v1"\napi_key_env = "KEY_1"\n[[model.endpoint]]\nname = "only"\n',
        monkeypatch,
    )

    assert (entry.variants[0].base_url, entry.variants[0].api_key) == ("https://all/v1", "sk-1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LARGE + ONE + ONE, "endpoint 'one' of model 'big' is declared twice"),
        (LARGE + ONE + "speed = 9\n", "endpoint 'one' of model 'big': unknown key 'speed'. Known keys: api_key_env"),
        (LARGE + ONE + 'api_key = "sk-1"\n', "unknown key 'api_key'"),
        (LARGE + TWO + 'api_key_env = "KEY_2"\n', "endpoint 'two' of model 'big' takes its key from KEY_2"),
        (LARGE + '[[model.endpoint]]\nbase_url = "https://x/v1"\n', "give it a `name`"),
        (LARGE + '[[model.endpoint]]\nname = "x"\n', "lacks `base_url`, and the model has none either"),
        (LARGE + "rpm = 5\n" + ONE, "state rpm, tpm and concurrency at each of them"),
        (LARGE + ONE + "rpm = 0\n", "rpm is a whole number from 1, not 0"),
        (LARGE + ONE + 'tpm = "many"\n', "tpm is a whole number from 1, not 'many'"),
        (LARGE + ONE + "weight = -1\n", "weight is a number above 0"),
        (LARGE + ONE + 'tpm_counts = "half"\n', 'tpm_counts is "used" or "limit"'),
        (LARGE + 'base_url = "http://x/v1"\nrpm = 2.5\n', "model 'big': rpm is a whole number"),
        (
            LARGE + ONE + GROUP + TWO + GROUP,
            "Two endpoints of model 'big' share a limit_group",
        ),
        (
            LARGE + ONE + GROUP + LARGE.replace("big", "b2") + TWO + GROUP.replace("5", "6"),
            "models 'big' and 'b2' state different limits",
        ),
        (
            LARGE + ONE + SMALL.replace('"s"', '"s2"') + '[[model.endpoint]]\nname = "x"\n',
            "model 's2': only paid models have endpoints",
        ),
    ],
)
def test_a_file_that_can_not_be_meant_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
):
    with pytest.raises(Misconfigured, match=re.escape(complaint)):
        load(tmp_path, text, monkeypatch)
