from __future__ import annotations

import itertools

import pytest

from infra.catalog import (
    UNSET,
    UnknownNameError,
    changed_defaults,
    env_life,
    flag_life,
    release,
    release_versions,
)

PRESENCE = {
    "--all2all-backend": ("0.11.2", "0.33.0"),
    "--enable-eplb": ("0.11.0", "0.33.0"),
    "--num-redundant-experts": ("0.11.0", "0.11.2"),
    "--enable-ep-weight-filter": ("0.18.1", "0.33.0"),
    "--nnodes": ("0.11.2", "0.33.0"),
    "--ubatch-size": ("0.14.1", "0.33.0"),
    "--enable-elastic-ep": ("0.17.1", "0.33.0"),
    "--enable-fault-tolerance": ("0.27.1", "0.33.0"),
    "--cpu-distributed-timeout-seconds": ("0.22.1", "0.33.0"),
    "--device-ids": ("0.24.0", "0.33.0"),
    "--calculate-kv-scales": ("0.11.0", "0.27.1"),
    "--dp-sync-interval": ("0.30.0", "0.33.0"),
}


def test_24_releases_from_0_11_0_to_0_33_0_are_known():
    versions = release_versions()

    assert (len(versions), versions[0], versions[-1]) == (24, "0.11.0", "0.33.0")


@pytest.mark.parametrize("flag", PRESENCE)
def test_a_flag_lives_as_long_as_the_sources_have_it(flag):
    assert flag_life(flag) == (PRESENCE[flag],)


def test_a_flag_that_never_was_has_no_life():
    assert flag_life("--moon-phase") == ()


@pytest.mark.parametrize("version", release_versions())
def test_presence_in_a_release_agrees_with_the_life_of_each_flag(version):
    order = release_versions()
    for flag in ("--num-redundant-experts", "--moe-backend", "--headless", "--nnodes"):
        alive = any(
            order.index(first) <= order.index(version) <= order.index(last)
            for first, last in flag_life(flag)
        )
        assert release(version).accepts(flag) is alive


def test_the_environment_variable_for_all2all_ends_with_0_15():
    assert env_life("VLLM_ALL2ALL_BACKEND") == (("0.11.0", "0.15.1"),)
    assert "VLLM_ALL2ALL_BACKEND" not in release("0.16.0").env


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("-tp", "--tensor-parallel-size"),
        ("--no-enable-eplb", "--enable-eplb"),
        ("--max_model_len", "--max-model-len"),
        ("--max-model-len=4096", "--max-model-len"),
        ("--compilation-config.mode", "--compilation-config"),
    ],
)
def test_an_option_is_found_under_every_spelling_vllm_takes(typed, name):
    found = release("0.33.0").flag(typed)

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("asked", "read"),
    [("v0.33.0", "0.33.0"), ("0.11.1", "0.11.2"), ("0.26.7", "0.26.0"), ("0.20", "0.20.2")],
)
def test_a_patch_that_was_not_read_is_its_nearest_in_the_series(asked, read):
    assert release(asked).version == read


@pytest.mark.parametrize("version", ["0.10.2", "0.34.0", "latest", "", "1"])
def test_a_series_that_was_not_read_is_unknown(version):
    with pytest.raises(UnknownNameError, match="vLLM release"):
        release(version)


def test_all2all_is_a_variable_in_0_11_0_and_a_flag_after():
    assert release("0.11.0").all2all.how == "env"
    assert all(release(v).all2all.how == "flag" for v in release_versions()[1:])


def test_changed_defaults_name_the_flag_with_both_values():
    assert changed_defaults("0.19.1", "0.20.2") == (("--gpu-memory-utilization", 0.9, 0.92),)


def test_no_default_changes_between_a_release_and_itself():
    assert all(changed_defaults(v, v) == () for v in release_versions())


def test_a_default_that_vllm_computes_is_not_stated():
    flags = [f for v in release_versions() for f in release(v).flags.values()]

    assert any(flag.default is UNSET for flag in flags)
    assert all(flag.default is not UNSET for flag in flags if flag.name == "--enable-eplb")


@pytest.mark.parametrize(
    ("version", "field", "default"),
    [
        ("0.11.0", "use_async", None),
        ("0.12.0", "use_async", False),
        ("0.23.0", "use_async", True),
        ("0.19.1", "communicator", None),
        ("0.33.0", "enable_migration_batching", False),
    ],
)
def test_eplb_fields_follow_the_release(version, field, default):
    assert release(version).eplb_fields.get(field) == default


def test_eplb_has_a_communicator_from_0_20():
    having = [v for v in release_versions() if "communicator" in release(v).eplb_fields]

    assert having[0] == "0.20.2"
    assert "torch_gloo" in release("0.20.2").eplb_communicators


def test_the_side_channel_port_moved_after_0_11_0():
    ports = [release(v).nixl_side_channel_port for v in release_versions()]

    assert list(dict.fromkeys(ports)) == [5557, 5600]


def test_kv_load_failure_policy_exists_from_0_13():
    having = [v for v in release_versions() if release(v).kv_load_failure_policies]

    assert having[0] == "0.13.0"


def test_pins_state_torch_and_nixl():
    assert release("0.33.0").pins["torch"] == "==2.14.0"
    assert release("0.33.0").pins["nixl"] == "==1.5.0"


def test_no_two_flags_of_a_release_share_a_spelling():
    for version in release_versions():
        spellings = list(
            itertools.chain.from_iterable(
                (f.name, *f.aliases, *f.negatives) for f in release(version).flags.values()
            )
        )
        assert len(spellings) == len(set(spellings)), version
