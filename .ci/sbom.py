"""Write the program's software bill of materials, in CycloneDX 1.6, from requirements-run.lock.

Versions and hashes come from the lock file. Licences and dependencies come from the packages in the
environment that runs this, which `make` installs from the lock file. The same input gives the same
bytes.
"""

from __future__ import annotations

import sys
import tomllib
import uuid
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from pip_requirements_parser import RequirementsFile

ROOT = Path(__file__).resolve().parent.parent


def _license(name: str) -> License | None:
    """Return the licence that the installed package names; None if it names none."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None  # for another platform
    if "License-Expression" in found:
        return LicenseExpression(found["License-Expression"])
    classified = [
        one.rpartition(" :: ")[2]
        for one in found.get_all("Classifier", [])
        if one.startswith("License :: ")
    ]
    named = next(iter([*classified, *found.get_all("License", [])]), "")
    # Some packages put the whole licence text there.
    return DisjunctiveLicense(name=named) if named and "\n" not in named else None


def _needs(name: str, extras: Iterable[str]) -> set[NormalizedName]:
    """Return the names of the package's dependencies here, with these of its extras."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()
    needed = map(Requirement, lines)
    return {
        canonicalize_name(one.name)
        for one in needed
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    }


def _component(name: str, version: str, hashes: Iterable[str]) -> Component:
    purl = PackageURL("pypi", None, name, version)
    license = _license(name)
    # A hash belongs to one file of the release, not to the component itself.
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        hashes=[
            HashType(alg=HashAlgorithm.SHA_256, content=one.removeprefix("sha256:"))
            for one in hashes
        ],
    )
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=[license] if license else [],
        external_references=[files],
    )


def sbom() -> str:
    """Return the bill of materials as JSON.

    Raises:
        ValueError: the JSON does not fit the CycloneDX schema.
    """
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = ROOT / "requirements-run.lock"
    purl = PackageURL("pypi", None, project["name"], project["version"])
    program = Component(
        name=project["name"],
        version=project["version"],
        description=project["description"],
        type=ComponentType.APPLICATION,
        bom_ref=str(purl),
        purl=purl,
        licenses=[LicenseExpression(project["license"])],
    )
    found = {}
    for one in RequirementsFile.from_file(str(lock)).requirements:
        name = canonicalize_name(one.name)
        found[name] = _component(name, one.get_pinned_version, one.hash_options)
    bom = Bom(
        components=found.values(),
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{purl}\n{lock.read_text()}"),
    )
    bom.metadata.component = program
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the library then omits it
    asked_for = [Requirement(one) for one in project["dependencies"]]
    extras = {canonicalize_name(one.name): one.extras for one in asked_for}
    bom.register_dependency(program, [found[name] for name in sorted(extras)])
    for name, component in found.items():
        needed = _needs(name, ("", *extras.get(name, ()))) & found.keys()
        bom.register_dependency(component, [found[one] for one in sorted(needed)])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(str(problem))
    return text + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(sbom())
