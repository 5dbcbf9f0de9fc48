"""The files for containers, clusters and init systems are well formed and match the code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from etl.cli.commands import app
from etl.settings.models import ServiceSettings
from etl.settings.names import KNOWN
from etl.settings.sources import _NAMED, _NO_SETTINGS, PREFIX
from tests import dockerfile
from tests.conftest import ROOT

DEPLOY = ROOT / "config" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "orchestra-etl"}
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "config" / "superset" / "Dockerfile")
KUSTOMIZATIONS = sorted((DEPLOY / "kubernetes").glob("*/kustomization.yaml"))
MANIFESTS = [
    pytest.param(manifest, id=f"{path.name}: {manifest['kind']}")
    for path in sorted((DEPLOY / "kubernetes").glob("*/*.yaml"))
    if path not in KUSTOMIZATIONS
    for manifest in yaml.safe_load_all(path.read_text())
]
UNITS = sorted((DEPLOY / "systemd").iterdir())
PORT = ServiceSettings().port
CONTAINERS = (ROOT / "docs" / "how-to" / "containers.md").read_text()
KUBERNETES = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()


def _assert_is_a_command(words: Sequence[str]) -> None:
    """Check that the words are a command of the program with existing options."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(command.name, rest)


def _assert_is_known(variable: str) -> None:
    """Check that the settings, PostgreSQL's image or the dashboards' image know the variable."""
    if variable in _NAMED or variable in _NO_SETTINGS or variable.startswith("POSTGRES_"):
        return
    assert variable.startswith(PREFIX), variable
    assert variable.removeprefix(PREFIX).lower().replace("__", ".", 1) in KNOWN, variable


# Containers


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_are_clean(path: Path) -> None:
    """The linter finds nothing in the Dockerfiles."""
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_copy_existing_files(path: Path) -> None:
    """Copied files exist and are in the build context; the process is not root and has no shell."""
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }  # fmt: skip
    instructions = dockerfile.read(path)
    for one in instructions:
        if one.name == "COPY" and "--from" not in one.text:
            for source in one.words[:-1]:
                assert (ROOT / source).exists()
                assert source.split("/")[0] in let_in
        if one.name in ("ENTRYPOINT", "CMD"):
            assert one.text.startswith("[")
        if one.name == "ENV":
            for variable in re.findall(r"(\w+)=", one.text):
                if variable not in ("PATH", "PYTHONPATH", "PYTHONUNBUFFERED"):
                    _assert_is_known(variable)
    last = [one.name for one in instructions if one.stage == instructions[-1].stage]
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert "HEALTHCHECK" in last


def test_the_image_serves_where_the_code_does() -> None:
    """The exposed and checked ports are those of the code, and the default is a command."""
    one, dashboards = (dockerfile.read(path) for path in DOCKERFILES)
    assert [found.text for found in one if found.name == "EXPOSE"] == [str(PORT)]
    assert f":{PORT}/livez" in next(found.text for found in one if found.name == "HEALTHCHECK")
    assert next(found.words for found in one if found.name == "ENTRYPOINT") == ["orchestra-etl"]
    _assert_is_a_command(next(found.words for found in one if found.name == "CMD"))
    script = next(found.words for found in dashboards if found.name == "ENTRYPOINT")[1]
    assert (
        f'"--port", type=int, default={next(f.text for f in dashboards if f.name == "EXPOSE")}'
        in (ROOT / script).read_text().replace("'", '"')
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_say_what_they_are(path: Path) -> None:
    """Each image has OCI labels with the project's licence and text.

    Version and revision are build arguments.
    """
    last = dockerfile.read(path)[-3:]
    assert [one.name for one in last] == ["ARG", "ARG", "LABEL"]
    given = {one.text.partition("=")[0] for one in last[:2]}
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', last[2].text))
    assert {labels["version"], labels["revision"]} == {f"${name}" for name in given}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["licenses"] == project["license"]
    assert labels["title"] in (project["name"], f"{project['name']}-superset")
    if labels["title"] == project["name"]:
        assert labels["description"] == project["description"]


@pytest.mark.parametrize("name", OURS)
def test_services_run_commands_with_variables_of_the_code(name: str) -> None:
    """Every command, option, variable and mounted file of the project's services exists."""
    service = OURS[name]
    _assert_is_a_command(service["command"])
    for variable in service.get("environment", {}):
        _assert_is_known(variable)
    for volume in service.get("volumes", ()):
        assert (ROOT / volume.split(":")[0]).exists()


@pytest.mark.parametrize("name", ["dashboards", "superset"])
def test_dashboards_are_served_with_options_of_the_script(name: str) -> None:
    """The dashboards' script knows every option that the compose file passes to it."""
    script = next(one.words for one in dockerfile.read(DOCKERFILES[1]) if one.name == "ENTRYPOINT")[
        1
    ]
    command = [sys.executable, ROOT / script, *COMPOSE["services"][name]["command"], "--help"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_secrets_are_files_that_are_not_in_the_repository() -> None:
    """No service gets a secret through its environment; secrets are declared and ignored by git."""
    declared = COMPOSE["secrets"]
    for service in COMPOSE["services"].values():
        for secret in service.get("secrets", ()):
            assert secret in declared
        for variable, value in service.get("environment", {}).items():
            if value.startswith("/run/secrets/"):
                assert variable.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            assert not re.search(r"PASSWORD$|KEY$|^DATABASE_URL$", variable)
    assert all(one["file"].startswith("./secrets/") for one in declared.values())
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_services_wait_for_what_they_need() -> None:
    """Services that use the schema wait for its migration; scalable ones publish no port."""
    services = COMPOSE["services"]
    assert services["etl"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}
    }
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["superset"]["depends_on"] == {
        "dashboards": {"condition": "service_completed_successfully"}
    }
    assert services["dashboards"]["depends_on"] == {
        "roles": {"condition": "service_completed_successfully"}
    }
    assert not {"ports", "container_name"} & services["etl"].keys()
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()


# Kubernetes


def _assert_follows_the_schema(manifest: Mapping[str, Any]) -> None:
    # The import takes two seconds, which only the process that runs these tests should spend.
    import kubernetes_validate

    kubernetes_validate.validate(manifest, "1.34", strict=True)


def _pod(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
    return dict(spec["template"]["spec"]) if "template" in spec else None


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifests_follow_their_schema(manifest: dict[str, Any]) -> None:
    """The manifests fit Kubernetes' schema, and the code has their commands, ports and probes."""
    _assert_follows_the_schema(manifest)
    pod = _pod(manifest)
    if pod is None:
        assert [port["port"] for port in manifest["spec"]["ports"]] == [PORT]
        return
    assert pod["securityContext"]["runAsUser"] == 10001
    [first], [main] = pod["initContainers"], pod["containers"]
    assert first["args"] == ["db", "upgrade"], "the schema comes first"
    assert all(
        first[key] == main[key] for key in ("image", "env", "volumeMounts", "securityContext")
    )
    for container in (first, main):
        _assert_is_a_command(container["args"])
        assert container["resources"].keys() == {"requests", "limits"}
    mounts = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    for variable in main["env"]:
        _assert_is_known(variable["name"])
        assert variable["value"].startswith(tuple(mounts.values()))
    assert {port["containerPort"] for port in main.get("ports", ())} <= {PORT}
    assert {main[one]["httpGet"]["path"] for one in main if one.endswith("Probe")} <= {
        "/livez",
        "/readyz",
    }


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_kustomizations_name_their_manifests(path: Path) -> None:
    """Each kustomization lists every manifest of its folder, and nothing else."""
    others = sorted(one.name for one in path.parent.iterdir() if one != path)
    assert yaml.safe_load(path.read_text())["resources"] == others


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_the_documented_kustomization_is_built(path: Path, tmp_path: Path) -> None:
    """The documented kustomization sets every container's image, and hashes `etl.toml`'s name."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    [block] = re.findall(r"^```yaml\n(.*?)^```", KUBERNETES, re.MULTILINE | re.DOTALL)
    own: dict[str, Any] = yaml.safe_load(block)
    [shown] = own["resources"]
    assert shown.endswith(f"config/deploy/kubernetes/{KUSTOMIZATIONS[-1].parent.name}")
    own["resources"] = [os.path.relpath(path.parent, tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    shutil.copy(ROOT / "etl" / "settings" / "etl.toml", tmp_path)
    done = subprocess.run(
        [kubectl, "kustomize", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    for manifest in built.values():
        _assert_follows_the_schema(manifest)
    [pod] = filter(None, (_pod(one) for one in built.values() if "spec" in one))
    images = {one["image"] for one in (*pod["initContainers"], *pod["containers"])}
    [image] = own["images"]
    assert images == {f"{image['newName']}:{image['newTag']}"}
    [name] = [one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one]
    assert name == built["ConfigMap"]["metadata"]["name"] != "orchestra-etl"


# systemd and cron


def _values(path: Path, key: str) -> list[str]:
    pairs = [line.partition("=") for line in path.read_text().splitlines()]
    return [value for name, _, value in pairs if name == key]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_understood(path: Path, tmp_path: Path) -> None:
    """systemd reads every unit without a warning, and each unit starts a known command."""
    for line in (*_values(path, "ExecStartPre"), *_values(path, "ExecStart")):
        program, *words = shlex.split(line)
        assert Path(program).name == "orchestra-etl"
        _assert_is_a_command(words)
    for line in _values(path, "Environment"):
        _assert_is_known(line.partition("=")[0])
    analyzer = shutil.which("systemd-analyze")
    if analyzer is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS:
        # systemd checks that the program exists.
        text = unit.read_text().replace(
            "/opt/orchestra-etl/bin/orchestra-etl", shutil.which("true") or ""
        )
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [analyzer, "verify", "--man=no", tmp_path / path.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "orchestra-etl" in line] == []


def test_units_upgrade_the_schema_first() -> None:
    """Every unit upgrades the schema before it starts the program.

    The upgrade has no time limit, and systemd does not give up restarts.
    """
    services = [path for path in UNITS if path.suffix == ".service"]
    assert len(services) == 2
    for path in services:
        [before], [program] = _values(path, "ExecStartPre"), _values(path, "ExecStart")
        assert before == f"{program.split()[0]} db upgrade"
        # A oneshot's start has no limit; a service's limit would end an upgrade after 90 s.
        assert "oneshot" in _values(path, "Type") or "infinity" in _values(path, "TimeoutStartSec")
        if "on-failure" in _values(path, "Restart"):
            [pause] = _values(path, "RestartSec")
            assert int(pause) >= 3, "systemd gives up after five starts within ten seconds"


def _cron() -> tuple[dict[str, str], str]:
    """Return the crontab's variables, and the shell command of its line."""
    lines = [
        line
        for line in (DEPLOY / "cron" / "orchestra-etl").read_text().splitlines()
        if not line.startswith("#")
    ]
    *variables, job = lines
    fields = job.split(maxsplit=6)
    assert re.fullmatch(r"[\d*/, -]+", " ".join(fields[:5]))
    assert "%" not in job, "cron takes it for a line break"
    return dict(line.split("=", 1) for line in variables), fields[6]


def test_the_crontab_line_runs_commands() -> None:
    """The crontab line has five fields, a user and known commands, the schema's first.

    Its variables are known.
    """
    variables, line = _cron()
    for name in variables.keys() - {"SHELL"}:
        _assert_is_known(name)
    commands = [words.split() for words in re.findall(r"/orchestra-etl ([a-z][a-z -]+)", line)]
    assert [words[:2] for words in commands] == [["db", "upgrade"], ["sync", "--json"]]
    for words in commands:
        _assert_is_a_command(words)


@pytest.mark.parametrize(
    ("upgrade", "sync", "reported"), [(0, 0, None), (0, 6, 6), (4, 0, 4), (0, 130, 130)]
)
def test_the_crontab_line_keeps_the_exit_status(
    tmp_path: Path, upgrade: int, sync: int, reported: int | None
) -> None:
    """Output goes to the logger, and an exit status other than 0 is printed, which cron mails.

    Without the schema no sync starts.
    """
    variables, line = _cron()
    for name, text in (
        (
            "orchestra-etl",
            (
                f"echo ran $1; echo trouble >&2; if [ $1 = db ]; then exit {upgrade}; else "
                f"exit {sync}; fi"
            ),
        ),
        ("logger", f"cat > {tmp_path}/journal"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    line = line.replace("/opt/orchestra-etl/bin/", f"{tmp_path}/")
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        [variables.get("SHELL", "/bin/sh"), "-c", line],
        env={"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert f"exit status {reported}:" in done.stdout if reported else done.stdout == ""
    ran = [row for row in (tmp_path / "journal").read_text().splitlines() if row.startswith("ran")]
    assert ran == (["ran db"] if upgrade else ["ran db", "ran sync"])


# Documented commands


def test_commands_in_containers_are_written_down() -> None:
    """The compose file and its page name `workflows` and `status`, and only existing commands."""
    for text in ((ROOT / "docker-compose.yml").read_text(), CONTAINERS):
        found = [
            re.split(r"  |`|#", line)[0].split()
            for line in re.findall(r"docker compose run --rm (.*)", text)
        ]
        assert {"workflows", "status"} <= {words[1] for words in found if len(words) > 1}
        for service, *words in found:
            assert service in OURS
            if words:
                _assert_is_a_command(words)
