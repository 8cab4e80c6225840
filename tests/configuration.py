"""Configurations on disk, for tests."""

from pathlib import Path


def write_configuration(folder: Path, text: str = "", **policies: str) -> Path:
    """Write oegw.conf and policy files (`private_or_clear` for private-or-clear); the path of the former."""
    directory = folder / "policies"
    directory.mkdir(exist_ok=True)
    for name, lines in policies.items():
        (directory / name.replace("_", "-")).write_text(lines)
    file = folder / "oegw.conf"
    file.write_text(f"{text}\n[paths]\npolicies = {directory}\n")
    return file
