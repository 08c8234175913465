# SPDX-License-Identifier: Apache-2.0
"""The files in `deploy/`: held against schemas that know every field they use, and against what fedray itself says."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fedray.commands import cli
from fedray.runtime.nodes.launch import Launch, Security
from fedray.runtime.nodes.ports import Ports

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).parent / "deploy_schemas"
NODE = Launch("alice", "alice", "10.0.0.2", None, Ports(head=6379), Path("/r"), 1, Security(None, None))


class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a name that stands twice, of which YAML takes the last and says nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if key.value != "<<"]
        assert len(names) == len(set(names)), f"{node.start_mark}: {names}"
        return super().construct_mapping(node, deep)


def documents(name: str) -> list[Any]:
    return list(yaml.load_all((DEPLOY / name).read_text(), Strict))


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


def check(document: Any, name: str) -> None:
    jsonschema.Draft202012Validator(schema(name)).validate(document)


def parsed(words: list[str]) -> Any:
    """Returns what fedray's own command line makes of a command; an option that is none ends the test."""
    return cli._parser().parse_args(words)


def clusters() -> list[tuple[str, Any]]:
    return [
        ("RayCluster", documents("kubernetes/raycluster.yaml")[0]["spec"]),
        ("RayJob", documents("kubernetes/rayjob.yaml")[0]["spec"]["rayClusterSpec"]),
    ]


def groups(spec: Any) -> dict[str, Any]:
    return {"charlie": spec["headGroupSpec"]} | {group["groupName"]: group for group in spec["workerGroupSpecs"]}


@pytest.mark.parametrize("name", ["raycluster", "rayjob", "volumes-and-network"])
def test_kubernetes_objects_pass_a_schema_that_knows_no_other_field(name: str) -> None:
    for document in documents(f"kubernetes/{name}.yaml"):
        check(document, "kubernetes")


def changed(document: Any, path: list[str | int], value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    *way, last = path
    inner = copy
    for step in way:
        inner = inner[step]
    inner[last] = value
    return copy


POD = ["spec", "workerGroupSpecs", 0, "template", "spec"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "workerGroupSpec"], []),
        (["spec", "workerGroupSpecs", 0, "maxReplicas"], 2),
        (["spec", "workerGroupSpecs", 0, "resources"], {"alice": 1}),
        (["spec", "headGroupSpec", "rayStartParams", "node-manager-port"], 20000),
        ([*POD, "hostNetwork"], True),
        ([*POD, "containers", 0, "securityContext", "readOnlyRootFilesystem"], False),
        ([*POD, "containers", 0, "securityContext", "privileged"], True),
        ([*POD, "securityContext", "runAsUser"], 0),
        ([*POD, "containers", 0, "image"], "fedray:latest"),
        ([*POD, "containers", 0, "env", 0], {"name": "RAY_AUTH_TOKEN", "value": "abc"}),
        (["apiVersion"], "ray.io/v1alpha1"),
    ],
)
def test_what_is_wrong_does_not_pass(path: list[str | int], value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(changed(documents("kubernetes/raycluster.yaml")[0], path, value), "kubernetes")


def assert_token_is_a_file(pod: Any, container: Any) -> None:
    """A variable is inherited by every program that a party starts, and a mounted file is not."""
    variables = {one["name"]: one.get("value") for one in container["env"]}
    assert not variables.get("RAY_AUTH_TOKEN")
    folder, _, key = variables["RAY_AUTH_TOKEN_PATH"].rpartition("/")
    mounts = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == folder and one["readOnly"]]
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    assert (key, [secrets[name] for name in mounts]) == ("auth_token", ["fedray-token"])


@pytest.mark.parametrize(("kind", "spec"), clusters(), ids=lambda value: value if isinstance(value, str) else "")
def test_kuberay_starts_ray_as_fedray_does(kind: str, spec: Any) -> None:
    """KubeRay calls `ray start` by itself: what fedray would say must stand in its file."""
    wanted = {name: value for name, value in NODE.variables({}).items() if "AUTH" not in name and "TLS" not in name}
    wanted["FEDRAY_LINES"] = wanted["FEDRAY_LINES"].replace(NODE.ip, "$(POD_IP)")  # which it learns when it starts
    ports = dict(option.removeprefix("--").split("=") for option in Ports().options())
    for party, group in groups(spec).items():
        assert group["labels"] == {"party": party}
        assert group["resources"] == {party: "1"}
        assert ports.items() <= group["rayStartParams"].items()
        container = group["template"]["spec"]["containers"][0]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert wanted.items() <= variables.items()
        assert (variables["RAY_AUTH_MODE"], variables["RAY_USE_TLS"]) == ("token", "1")
        assert_token_is_a_file(group["template"]["spec"], container)
        assert variables["FEDRAY_PARTY"].startswith("/var/lib/fedray/")
        for probe in ("readinessProbe", "livenessProbe"):  # where there is none KubeRay puts one in, which needs wget
            assert container[probe]["tcpSocket"]["port"] == (6379 if party == "charlie" else 20000)
        issue = next(
            line
            for one in group["template"]["spec"]["initContainers"]
            for line in one["args"][0].splitlines()
            if line.startswith("fedray ")
        )
        assert parsed(shlex.split(issue)[1:]).action == "issue"
    settings = groups(spec)["charlie"]["rayStartParams"]["system-config"]
    assert f"--system-config={settings[1:-1]}" in NODE.command("ray"), "in quotes, since a shell reads it"


def test_whoever_submits_the_job_has_the_token_in_a_file() -> None:
    job, network = documents("kubernetes/rayjob.yaml")
    pod = job["spec"]["submitterPodTemplate"]["spec"]
    assert_token_is_a_file(pod, pod["containers"][0])
    # The operator has it as well, and is let in where it asks for the job's state.
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "fedray-token"}
    head = cluster["headGroupSpec"]["template"]
    assert network["spec"]["podSelector"]["matchLabels"].items() <= head["metadata"]["labels"].items()
    (rule,) = network["spec"]["ingress"]
    open_ports = {one["name"]: one["containerPort"] for one in head["spec"]["containers"][0]["ports"]}
    assert [one["port"] for one in rule["ports"]] == [open_ports["dashboard"]]
    # Told so, KubeRay puts the token into a variable of each container that has none of that name.
    containers = [group["template"]["spec"]["containers"][0] for group in groups(cluster).values()]
    for container in [*containers, pod["containers"][0]]:
        assert {"name": "RAY_AUTH_TOKEN", "value": ""} in container["env"]
    assert "--from-literal" not in (DEPLOY / "kubernetes" / "raycluster.yaml").read_text(), "it would stand in ps"


def test_job_and_cluster_are_the_same_but_for_the_program() -> None:
    (_, cluster), (_, job) = clusters()
    spec = job["headGroupSpec"]["template"]["spec"]
    spec["volumes"] = [one for one in spec["volumes"] if one["name"] != "program"]
    mounts = spec["containers"][0]["volumeMounts"]
    spec["containers"][0]["volumeMounts"] = [one for one in mounts if one["name"] != "program"]
    del job["authOptions"]  # and that the operator knows the token
    for group in groups(job).values():
        group["template"]["spec"]["containers"][0]["env"].remove({"name": "RAY_AUTH_TOKEN", "value": ""})
    assert job == cluster


def test_the_head_s_certificate_is_for_the_service_by_which_it_is_called() -> None:
    """KubeRay gives the cluster of a job a name of chance, and its service that name."""
    for _, spec in clusters():
        pod = spec["headGroupSpec"]["template"]["spec"]
        (own,) = [one for one in pod["initContainers"] if one["name"] == "own-files"]
        assert '--host "$CLUSTER-head-svc.$POD_NAMESPACE.svc.cluster.local"' in own["args"][0]
        fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in own["env"]}
        assert fields["CLUSTER"] == "metadata.labels['ray.io/cluster']"


def test_every_volume_claim_and_label_is_there() -> None:
    claims = {one["metadata"]["name"] for one in documents("kubernetes/volumes-and-network.yaml")}
    for _, spec in clusters():
        for group in groups(spec).values():
            pod = group["template"]["spec"]
            named = {volume["name"]: volume for volume in pod["volumes"]}
            for container in [*pod["initContainers"], *pod["containers"]]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= set(named)
            assert named["home"]["persistentVolumeClaim"]["claimName"] in claims
            assert group["template"]["metadata"]["labels"]["app"] == "fedray", "the network policy goes by it"


def test_the_launcher_s_commands_are_fedray_s() -> None:
    (config,) = documents("launcher/cluster.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
    head, party = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    for command in [*head, *party]:
        words = shlex.split(command.removesuffix(" || true"))
        assert words[0].endswith("/bin/fedray")
        parsed(words[1:])
    assert "~/ray_bootstrap_config.yaml" in head[-1]
    assert parsed(shlex.split(head[-1])[1:]).party == "charlie", (
        "the walk-through's program needs a node of the server's"
    )


@pytest.mark.slow
def test_the_launcher_s_file_passes_ray_s_own_checks() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("launcher/cluster.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config | {"workers": 2}))


def test_compose_file() -> None:
    (file,) = documents("docker/compose.yaml")
    check(file, "compose")
    addresses = [one["networks"]["cluster"]["ipv4_address"] for one in file["services"].values()]
    assert len(set(addresses)) == 3
    for name, service in file["services"].items():
        options = parsed(service["command"])
        assert options.foreground
        assert name == (options.party if options.command == "head" else options.name)
        assert {secret["source"] for secret in service["secrets"]} <= set(file["secrets"])
        targets = {secret["target"] for secret in service["secrets"]}
        assert {f"{options.tls}/{each}" for each in ("node.key", "node.crt", "ca.crt")} | {
            str(options.token)
        } == targets
        assert service["volumes"] == [f"{name}:/var/lib/fedray"]
    with pytest.raises(jsonschema.ValidationError):
        check(changed(file, ["services", "alice", "privileged"], True), "compose")
    with pytest.raises(jsonschema.ValidationError):
        check(changed(file, ["services", "alice", "read_only"], False), "compose")


INSTRUCTIONS = "FROM RUN COPY ARG ENV VOLUME USER WORKDIR HEALTHCHECK ENTRYPOINT CMD"


def instructions(text: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def faults(text: str) -> list[str]:
    """Returns what is wrong with a Dockerfile."""
    found, lines = [], instructions(text)
    found += [f"unknown {name}" for name, _ in lines if name not in INSTRUCTIONS.split()]
    image = lines[0][1] if lines[0][0] == "FROM" else ""
    if not re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", image):
        found.append("the base is not pinned")
    users = [place for place, (name, _) in enumerate(lines) if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", lines[users[-1]][1]):
        found.append("it does not run as an ordinary user, by number")
    elif any(name in ("RUN", "COPY") for name, _ in lines[users[-1] :]):
        found.append("something is installed as the user that runs it")
    for name, rest in lines:
        if name in ("ENTRYPOINT", "CMD") and not isinstance(json.loads(rest), list):
            found.append("a shell stands between the signal and the program")
        if name == "RUN" and "pip install" in rest and ("-c " not in rest or "--no-cache-dir" not in rest):
            found.append("versions are not pinned, or the cache stays")
        if name == "ENV" and re.search(r"TOKEN|KEY=|SECRET|PASSWORD", rest):
            found.append("a secret is in the image")
        if name == "COPY":
            found += [f"no {path}" for path in rest.split()[:-1] if not (ROOT / path).exists()]
    return found


def test_dockerfile() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert faults(text) == []
    assert ("VOLUME", "/var/lib/fedray") in instructions(text)
    for change, fault in (
        (("USER 10001:10001", "USER root"), "ordinary user"),
        (("3.11.14-slim-bookworm", "latest"), "not pinned"),
        (('["fedray"]\n', '"fedray"\n'), "a shell stands"),
        (("-c /src/constraints.txt ", ""), "versions are not pinned"),
        (("PYTHONUNBUFFERED=1", "RAY_AUTH_TOKEN=1"), "a secret"),
        (("COPY fedray /src", "COPY fedrai /src"), "no fedrai"),
    ):
        assert any(fault in each for each in faults(text.replace(*change))), change


def test_what_is_sent_to_the_builder_is_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    copied = {path for name, rest in instructions(text) if name == "COPY" for path in rest.split()[:-1]}
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_start_what_fedray_has(unit: Path) -> None:
    text = unit.read_text()
    line = re.search(r"^ExecStart=(.*)$", text, flags=re.MULTILINE)[1]
    words = shlex.split(line.replace("%i", "alice").replace("${HEAD}", "10.0.0.1:6379").replace("$OPTIONS", "--tls /t"))
    assert parsed(words[1:]).foreground
    for wanted in ("User=fedray", "Restart=always", "KillMode=mixed", "NoNewPrivileges=yes", "StateDirectoryMode=0700"):
        assert wanted in text.splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/fedray/.venv/bin/fedray", sys.executable))
    verify = ["systemd-analyze", "verify", *[str(tmp_path / unit.name) for unit in UNITS]]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / UNITS[0].name).write_text(UNITS[0].read_text().replace("Restart=always", "Restrat=always"))
    assert "Restrat" in subprocess.run(verify, capture_output=True, text=True).stderr


def test_the_walk_through_names_ports_and_links_that_are_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    for rule in Ports(head=6379).firewall():
        assert rule.ports in text
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []
    for command in re.findall(r"^(fedray .*)$", text, flags=re.MULTILINE):
        parsed(shlex.split(command)[1:])
