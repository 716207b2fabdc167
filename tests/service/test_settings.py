"""Tests of settings: flags and HSOFTMAX_<NAME>, validation, descriptions, default threads."""

import os

import pytest
from pydantic import ValidationError

from hsoftmax.service import Settings
from hsoftmax.service.resources import available_cores


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HSOFTMAX_REPOSITORY", str(tmp_path))
    monkeypatch.setenv("HSOFTMAX_DRAIN_DELAY", "2.5")
    settings = Settings()
    assert (settings.repository, settings.drain_delay) == (tmp_path, 2.5)


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70000}, {"threads": 0}, {"device": "tpu"}, {"drain_delay": -1}, {"nonesuch": 1}],
)
def test_invalid_settings_are_rejected(tmp_path, wrong):
    with pytest.raises(ValidationError):
        Settings(repository=tmp_path, **wrong)


def test_settings_are_frozen(tmp_path):
    with pytest.raises(ValidationError):
        Settings(repository=tmp_path).port = 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_threads_are_no_more_than_the_cgroup_allows(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))
