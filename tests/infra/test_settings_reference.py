from __future__ import annotations

from infra.settings_reference import markdown
from infra.sources import PROJECT


def test_the_reference_in_the_checkout_is_the_one_of_the_settings():
    # python -m infra.settings_reference > docs/settings.md
    assert (PROJECT / "docs" / "settings.md").read_text() == markdown()


def test_every_key_of_a_group_is_in_it():
    page = markdown()
    for key in ("tensor_parallel_size", "num_redundant_experts", "kv_load_failure_policy"):
        assert f"| `{key}` |" in page
