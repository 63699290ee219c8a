"""What scripts/image hands to a build of this machine's pip configuration."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """scripts/image_site.py."""
    spec = importlib.util.spec_from_file_location("image_site", PROJECT / "scripts/image_site.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_variable_counts_more_than_a_file(site: ModuleType) -> None:
    listing = ":env:.index-url='https://env.example/simple'\nglobal.index-url='https://file.example/simple'\n"
    assert site.configured(listing) == {"index-url": "https://env.example/simple"}


def test_settings_of_other_commands_are_left_out(site: ModuleType) -> None:
    assert site.configured("freeze.timeout='10'\nwheel.retries='3'\n") == {"retries": "3"}


def test_directories_become_volumes_and_addresses_stay(site: ModuleType) -> None:
    volumes: dict[str, str] = {}
    text = "https://index.example/simple file:///opt/pypi/simple /opt/pypi /srv/wheels/a/b"
    assert site.inside(text, volumes) == (
        "https://index.example/simple file:///run/site-0/simple /run/site-0 /run/site-1/a/b"
    )
    assert volumes == {"/opt/pypi": "/run/site-0", "/srv/wheels": "/run/site-1"}
