"""What is said about a folder of images when it is read."""

import logging

import pytest
from PIL import Image

from diffit.data import folder


@pytest.mark.parametrize(
    ("subfolders", "labels", "noted"), [(["a", "b"], False, True), (["a", "b"], True, False), ([], False, False)]
)
def test_subfolders_that_are_no_classes_are_noted_in_one_line(subfolders, labels, noted, tmp_path, caplog):
    caplog.set_level(logging.INFO, "diffit")
    for name in subfolders or ["."]:
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name / "0.png")
    (tmp_path / "out").mkdir()
    found = folder.fetch({"path": str(tmp_path / "in"), "labels": labels}, tmp_path / "out")
    assert found["class_names"] == (subfolders if labels else [])
    messages = [message for message in caplog.messages if "not used as classes; set labels: true" in message]
    assert len(messages) == noted and "\n" not in "".join(messages)
