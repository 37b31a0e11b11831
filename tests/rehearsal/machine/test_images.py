"""Images as copies of disks: what is copied, what shares it, when it goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rehearsal.machine.images import Images
from rehearsal.machine.instance import Folder, Spec
from rehearsal.machine.interface import Launch, MachineError
from rehearsal.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def images(home):
    return Images(home)


@pytest.fixture
def launch(home, images):
    """Makes the folder of an instance, as a launch does, with one file on its disk."""

    def launched(instance_id, image_id="ami-base"):
        known = Launch(instance_id, image_id, "v", "c", "s", "c", "10.0.0.4", "m", "h", 1, 1)
        folder = Folder(home.instances / instance_id)
        folder.create(Spec(known, "/base", (), images.layers(image_id)))
        (folder.path / "disk/upper" / f"from-{instance_id}").write_text("was here")
        return folder

    return launched


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def make(images, image_id, instance_id):
    images.begin(image_id, instance_id)
    images.copy(image_id)


def test_an_image_holds_the_disk_as_it_was_when_it_was_made(images, launch):
    folder = launch("i-1")
    make(images, "ami-1", "i-1")
    (folder.path / "disk/upper/from-i-1").write_text("changed later")
    (layer,) = images.layers("ami-1")
    assert images.state("ami-1") == "available"
    assert Path(layer, "from-i-1").read_text() == "was here"


def test_owners_modes_and_what_overlayfs_noted_are_copied(images, launch):
    disk = launch("i-1").path / "disk/upper"
    (disk / "kept").mkdir(mode=0o700)
    try:
        os.setxattr(disk / "kept", "trusted.overlay.opaque", b"y")
        os.mknod(disk / "removed", 0o020000, os.makedev(0, 0))
        os.chown(disk / "kept", 1234, 1234)
    except PermissionError:
        pytest.skip("only root can have what an instance's disk has")
    make(images, "ami-1", "i-1")
    (layer,) = images.layers("ami-1")
    about = Path(layer, "kept").stat()
    assert (about.st_uid, about.st_mode & 0o777) == (1234, 0o700)
    assert os.getxattr(f"{layer}/kept", "trusted.overlay.opaque") == b"y"
    assert Path(layer, "removed").stat().st_rdev == 0


def test_an_image_of_an_instance_that_had_one_lies_over_that(images, launch):
    launch("i-1")
    make(images, "ami-1", "i-1")
    launch("i-2", "ami-1")
    make(images, "ami-2", "i-2")
    above, below = images.layers("ami-2")
    assert names(above) == ["from-i-2"]
    assert (below,) == images.layers("ami-1")


def test_nothing_boots_from_an_image_that_is_not_whole(images, launch):
    launch("i-1")
    images.begin("ami-1", "i-1")
    with pytest.raises(MachineError, match="ami-1 is pending"):
        images.layers("ami-1")


def test_a_copy_that_was_broken_off_is_made_anew(home, images, launch):
    launch("i-1")
    images.begin("ami-1", "i-1")
    (home.images / "ami-1/layer.new").mkdir()
    (home.images / "ami-1/layer.new/half").touch()
    assert Images(home).pending() == {"ami-1": "i-1"}
    Images(home).copy("ami-1")
    (layer,) = images.layers("ami-1")
    assert names(layer) == ["from-i-1"]


def test_a_disk_that_is_gone_makes_a_failed_image(images, launch):
    folder = launch("i-1")
    images.begin("ami-1", "i-1")
    folder.remove()
    with pytest.raises(MachineError, match="can't be copied"):
        images.copy("ami-1")
    assert images.state("ami-1") == "failed"


def test_a_forgotten_image_goes_with_the_last_that_uses_it(home, images, launch):
    launch("i-1")
    make(images, "ami-1", "i-1")
    folder = launch("i-2", "ami-1")
    make(images, "ami-2", "i-2")
    images.forget("ami-1")
    assert images.state("ami-1") == "unknown"
    folder.remove()
    images.purge()
    assert names(home.images) == ["ami-1", "ami-2"]
    images.forget("ami-2")
    assert names(home.images) == []
