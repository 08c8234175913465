# SPDX-License-Identifier: Apache-2.0
"""`constraints.txt` pins whatever an installation brings, and pins it inside the ranges of `pyproject.toml`."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "constraints.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MACHINES = {"linux": "x86_64", "darwin": "arm64"}


def pins() -> list[Requirement]:
    return [Requirement(line) for line in TEXT.splitlines() if line and not line.startswith("#")]


def asked_for() -> list[Requirement]:
    """Returns every requirement of the base installation and of all extras."""
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    return [r for r in map(Requirement, [*PROJECT["dependencies"], *extras]) if r.name != PROJECT["name"]]


def pinned(environment: dict[str, str] | None = None) -> dict[str, Version]:
    """Returns the pins that hold in an environment, or here."""
    found: dict[str, Version] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in found, f"{pin.name} is pinned twice"
            (specifier,) = pin.specifier
            found[canonicalize_name(pin.name)] = Version(specifier.version)
    return found


@pytest.mark.parametrize(("python", "system"), list(product(["3.11", "3.12", "3.13"], MACHINES)))
def test_every_requirement_is_pinned_inside_its_range(python: str, system: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "sys_platform": system,
        "platform_machine": MACHINES[system],
    }
    found = pinned(environment)
    for requirement in asked_for():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = found.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not pinned"
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned at {version}"


def brought(names: list[str], found: dict[str, Version]) -> Iterator[str]:
    """Yields all that these packages bring where they are installed at their pin, and those that these bring."""
    seen = set[str]()
    while names:
        name = canonicalize_name(names.pop())
        if name in seen:
            continue
        seen.add(name)
        yield name
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if Version(installed.version) == found.get(name):
            needs = map(Requirement, installed.requires or [])
            names += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def test_what_these_bring_is_pinned_too() -> None:
    found = pinned()
    here = [r.name for r in asked_for() if r.marker is None or r.marker.evaluate()]
    needed = set(brought(here, found))
    assert len(needed) > len(here)
    assert needed - set(found) == set()


def test_nothing_but_pins_is_in_it() -> None:
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins())
    assert not any(pin.url or pin.extras for pin in pins())
    assert "://" not in TEXT
    assert not re.search(r"(^|\s)[/~]|--(index|extra-index|find-links|trusted)", TEXT, flags=re.MULTILINE)


def test_the_command_that_made_it_is_the_one_that_contributors_are_given() -> None:
    made = TEXT.splitlines()[1].removeprefix("#").strip()
    told = re.search(r"`(uv pip compile [^`]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert told is not None
    assert told[1].replace("--upgrade ", "").split() == made.split()


def test_the_weekly_job_leaves_it_out() -> None:
    script = ROOT / ".ci" / "newest"
    assert script.stat().st_mode & 0o111, "it must be executable"
    assert " -c " not in script.read_text()
    assert '"$place/bin/pytest" --hypothesis-profile=fresh' in script.read_text()
