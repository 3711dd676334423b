"""What the Dockerfile says, and docker's command lines held against it; no test starts docker."""

import argparse
import re

from helpers.documents import ROOT


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions in order, each with what follows it on one line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, rest in lines]


def stages() -> set[str]:
    return {rest.split(" AS ")[1] for name, rest in instructions() if name == "FROM" and " AS " in rest}


def check_build(arguments: list[str]) -> None:
    """Check what an image is to be built of: each argument is one that the Dockerfile declares."""
    parser = argparse.ArgumentParser("docker build")
    parser.add_argument("--tag")
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("folder", choices=["."])
    given = dict(text.split("=", 1) for text in parser.parse_args(arguments).build_arg)
    assert given.keys() <= {rest.partition("=")[0] for name, rest in instructions() if name == "ARG"}
    assert given.get("DEVICE", "cpu") in stages()


def of_isara(arguments: list[str]) -> list[str]:
    """Give what the image's own command is given by `docker run`."""
    parser = argparse.ArgumentParser("docker run")
    parser.add_argument("--rm", action="store_true")
    for option in ("--user", "--gpus"):
        parser.add_argument(option)
    parser.add_argument("--volume", action="append")
    parser.add_argument("image", choices=["isara_pl", "isara_pl:gpu"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    assert ("ENTRYPOINT", '["isara-pl"]') in instructions()
    return list(given.command)
