from __future__ import annotations

import pytest
import yaml

from rehearsal.driver import stackfile
from rehearsal.driver.errors import DriverError


def write(folder, name, text):
    (folder / f"Pulumi.{name}.yaml").write_text(text)


def test_a_missing_stack_is_an_error_that_lists_those_there_are(tmp_path):
    write(tmp_path, "rehearsal", "config: {}")
    write(tmp_path, "wide-ep", "config: {}")
    with pytest.raises(DriverError, match=r"Pulumi\.typo\.yaml.*rehearsal, wide-ep"):
        stackfile.read(tmp_path, "typo")


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    write(tmp_path, "dev", "config: [")
    with pytest.raises(DriverError, match=r"Pulumi\.dev\.yaml isn't YAML"):
        stackfile.read(tmp_path, "dev")


def test_values_encrypted_elsewhere_are_refused_each_by_its_key(tmp_path):
    write(tmp_path, "dev", "config:\n  a:token: {secure: v1:x}\n  a:list: [{key: {secure: v1:y}}]")
    with pytest.raises(DriverError, match=r"a:list\[0\]\.key, a:token"):
        stackfile.read(tmp_path, "dev")


def test_an_empty_file_has_no_model(tmp_path):
    write(tmp_path, "dev", "")
    assert stackfile.read(tmp_path, "dev").model == {}


def test_the_copy_has_the_checkouts_settings_and_keeps_its_own_salt(tmp_path):
    write(tmp_path, "dev", "encryptionsalt: theirs\nconfig:\n  moe-serving:model: {name: new}\n")
    copy = tmp_path / "rehearsal" / "Pulumi.dev.yaml"
    copy.parent.mkdir()
    copy.write_text("encryptionsalt: ours\nconfig:\n  moe-serving:model: {name: old}\n  x: 1\n")
    stackfile.write_copy(stackfile.read(tmp_path, "dev"), copy)
    assert yaml.safe_load(copy.read_text()) == {
        "config": {"moe-serving:model": {"name": "new"}},
        "encryptionsalt": "ours",
    }


def test_a_salt_of_another_passphrase_is_left_out_of_a_first_copy(tmp_path):
    write(tmp_path, "dev", "encryptionsalt: theirs\nconfig: {}\n")
    copy = tmp_path / "rehearsal" / "Pulumi.dev.yaml"
    stackfile.write_copy(stackfile.read(tmp_path, "dev"), copy)
    assert yaml.safe_load(copy.read_text()) == {"config": {}}


def test_a_secret_that_was_set_for_the_rehearsal_stays_in_its_copy(tmp_path):
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {aws:region: us-east-1}\n")
    copy = tmp_path / "copy.yaml"
    stackfile.write_copy(stackfile.read(tmp_path, "dev"), copy)
    held = yaml.safe_load(copy.read_text())
    held["config"]["moe-serving:huggingface_token"] = {"secure": "v1:x"}
    copy.write_text(yaml.safe_dump(held))
    stackfile.write_copy(stackfile.read(tmp_path, "dev"), copy)
    assert yaml.safe_load(copy.read_text()) == held
