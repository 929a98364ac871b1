"""A model's batch tier, from the models file and from the shorthand."""

from pathlib import Path

import pytest

from cope.catalog import load_catalog
from cope.core.errors import Misconfigured
from cope.core.models import BatchTier
from cope.settings import Settings

_SMALL = '[[model]]\nname = "s"\nbase_url = "http://s/v1"\ntier = "small"\ncontext_length = 1024\n'
_LARGE = '[[model]]\nname = "l"\nbase_url = "http://l/v1"\ntier = "paid"\ncontext_length = 1024\nprice_id = "p"\n'


def tier_of(folder: Path, *lines: str, small: tuple[str, ...] = ()) -> BatchTier | None:
    file = folder / "models.toml"
    file.write_text(_SMALL + "\n".join(small) + "\n" + _LARGE + "\n".join(lines))
    return load_catalog(Settings(models_file=file)).entries["l"].batch


def test_a_model_has_a_batch_tier_only_where_its_entry_says_so(tmp_path: Path) -> None:
    assert tier_of(tmp_path) is None
    assert tier_of(tmp_path, "batch_tier = false") is None
    assert tier_of(tmp_path, "batch_tier = true") == BatchTier()
    assert tier_of(
        tmp_path, "batch_tier = true", "batch_min = 5", "batch_turnaround_s = 3600", 'batch_price_id = "q"'
    ) == BatchTier(min_lines=5, turnaround_s=3600.0, price_id="q")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["batch_min = 5"], "batch_min says nothing without batch_tier = true"),
        (['batch_tier = "yes"'], "batch_tier is true or false"),
        (["batch_tier = true", "batch_min = 0"], "batch_min is a whole number above 0, not 0"),
        (["batch_tier = true", "batch_min = true"], "batch_min is a whole number above 0"),
        (["batch_tier = true", 'batch_margin_s = "1h"'], "batch_margin_s is a number above 0"),
        (["batch_tier = true", "batch_window = 24"], "batch_window is a text"),
        (["batch_tier = true", "batch_max_lines = 10"], "below batch_min"),
        (["batch_tier = true", "batch_size = 10"], "unknown key 'batch_size'"),
    ],
)
def test_nonsense_is_refused_by_name(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        tier_of(tmp_path, *lines)


def test_a_small_model_can_have_none(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="a small model's calls are free"):
        tier_of(tmp_path, small=("batch_tier = true",))


def test_the_shorthand_knows_it_too() -> None:
    common = {
        "small_base_url": "http://s/v1",
        "small_model": "s",
        "large_base_url": "http://l/v1",
        "large_model": "l",
        "large_price": "p",
    }
    assert load_catalog(Settings(**common)).entries["l"].batch is None
    settings = Settings(**common, large_batch_tier=True, large_batch_turnaround_s=7200)
    assert load_catalog(settings).entries["l"].batch == BatchTier(turnaround_s=7200.0)
    with pytest.raises(Misconfigured, match="without batch_tier"):
        load_catalog(Settings(**common, large_batch_min=5))
