"""The lab's tests dealt out to several kernels at once (`tools/lab-tests`): whole files, about as much to each."""

from collections.abc import Iterable

SECONDS = {
    "test_addresses": 120,
    "test_broken_set_ups": 330,
    "test_configured": 100,
    "test_gateway_nat": 120,
    "test_interop": 330,
    "test_interop_lives": 200,
    "test_life_and_death": 225,
    "test_main_job": 150,
    "test_multihoming": 140,
    "test_nat": 150,
    "test_plane": 150,
    "test_policy": 200,
    "test_reboots": 150,
    "test_rekey": 165,
    "test_resolvers": 120,
}
"What a file takes under emulation, about, where it is much more than the others' minute."
USUAL = 60


def share(names: Iterable[str], number: int, of: int) -> set[str]:
    """The names of test files for kernel `number`, from 1: the longest first, each to whoever has least to do."""
    loads = [0] * of
    mine = set()
    for name in sorted(names, key=lambda name: (-SECONDS.get(name, USUAL), name)):
        least = loads.index(min(loads))
        loads[least] += SECONDS.get(name, USUAL)
        if least == number - 1:
            mine.add(name)
    return mine
