"""Key roll-over as files and times: RFC 4322 section 5.4. The clock is a number."""

import os

import pytest

from oesvc.keys import key_pair
from oesvc.keys.key_pair import KeyPairError
from oesvc.keys.rollover import KeyRing, RollOver, Stage

NOW = 1_800_000_000.0
MINIMUM, LONGEST = 7200.0, 3600.0


@pytest.fixture
def ring(tmp_path):
    key_pair.generate(tmp_path / "private" / "gateway.pem")
    return KeyRing(tmp_path / "private" / "gateway.pem")


def which(file):
    return key_pair.public_key(key_pair.load(file))


@pytest.mark.conformance("C-5.4-02", "C-5.4-03")
def test_new_key_is_not_used_before_the_minimum_of_the_zone_is_over(ring):
    old = which(ring.in_use)
    ring.begin(NOW)
    new = which(ring.next)
    assert ring.seen(NOW + 60, MINIMUM, LONGEST).stage is Stage.WAITING
    with pytest.raises(KeyPairError, match="not yet to be used"):
        ring.use(NOW + MINIMUM - 1)
    assert which(ring.in_use) == old
    state = ring.use(NOW + MINIMUM)
    assert (which(ring.in_use), which(ring.former), ring.next.exists()) == (new, old, False)
    assert (state.stage, state.due) == (Stage.RETIRING, NOW + 2 * MINIMUM)
    ring.retire()
    assert ring.state(NOW) is None
    assert [file.name for file in ring.in_use.parent.iterdir()] == ["gateway.pem"]


def test_answers_that_caches_may_still_hold_are_waited_for_where_they_last_longer(ring):
    ring.begin(NOW)
    assert ring.seen(NOW + 5000, MINIMUM, LONGEST).due == NOW + 5000 + LONGEST


def test_key_that_no_server_has_yet_is_not_used(ring):
    ring.begin(NOW)
    with pytest.raises(KeyPairError, match="is being published"):
        ring.use(NOW + 10 * MINIMUM)


def test_roll_over_begins_once(ring):
    ring.begin(NOW)
    first = which(ring.next)
    with pytest.raises(KeyPairError, match="there is a key already"):
        ring.begin(NOW + 1)
    assert which(ring.next) == first


def test_looking_changes_nothing(ring):
    """On a file system that cannot be written it is no error either."""
    ring.in_use.with_suffix(".roll.json").write_text("left by a crash")
    before = sorted(file.name for file in ring.in_use.parent.iterdir())
    assert ring.state(NOW) is None
    assert sorted(file.name for file in ring.in_use.parent.iterdir()) == before


def test_giving_up_leaves_the_key_in_use(ring):
    old = which(ring.in_use)
    ring.begin(NOW)
    ring.retire()
    assert (which(ring.in_use), ring.state(NOW)) == (old, None)


# What a crash leaves at each step, and how it goes on.

def test_crash_after_the_new_key_was_made(ring):
    key_pair.generate(ring.next)
    os.utime(ring.next, (NOW, NOW))
    assert ring.state(NOW + 5) == RollOver(NOW)


@pytest.mark.parametrize("done", ["linked", "replaced"])
def test_crash_while_the_new_key_takes_the_old_ones_place(ring, done):
    old = which(ring.in_use)
    ring.begin(NOW)
    new = which(ring.next)
    ring.seen(NOW, MINIMUM, LONGEST)
    os.link(ring.in_use, ring.former)
    if done == "replaced":
        ring.next.replace(ring.in_use)
    then = NOW + MINIMUM + 5
    state = ring.state(then)
    if done == "linked":
        assert (state.stage, which(ring.in_use)) == (Stage.WAITING, old)
        state = ring.use(then)
    assert (state.stage, state.due) == (Stage.RETIRING, then + MINIMUM)
    assert (which(ring.in_use), which(ring.former)) == (new, old)
    assert ring.state(then + 100) == state, "written down, so that the time does not begin again"


def test_crash_after_the_old_key_was_deleted(ring):
    ring.begin(NOW)
    ring.seen(NOW, MINIMUM, LONGEST)
    ring.use(NOW + MINIMUM)
    ring.former.unlink()
    assert ring.state(NOW + MINIMUM) is None
    assert ring.begin(NOW + MINIMUM).stage is Stage.PUBLISHING


def test_times_of_the_last_roll_over_say_nothing_of_the_next(ring):
    """Crashed at the end of one, and again as the next had just made its key."""
    ring.begin(NOW)
    ring.seen(NOW, MINIMUM, LONGEST)
    ring.use(NOW + MINIMUM)
    ring.former.unlink()
    ring.next.mkdir()
    with pytest.raises(KeyPairError):
        ring.begin(NOW + 3 * MINIMUM)
    ring.next.rmdir()
    key_pair.generate(ring.next)
    assert ring.state(NOW + 3 * MINIMUM).stage is Stage.PUBLISHING


@pytest.mark.parametrize("text", ["", "{", "[]", '{"begun": "then"}', '{"begun": 1}', "\x00"])
def test_times_that_cannot_be_read_begin_anew_and_never_use_a_key_too_early(ring, text):
    ring.begin(NOW)
    ring.seen(NOW, MINIMUM, LONGEST)
    ring.in_use.with_suffix(".roll.json").write_text(text)
    assert ring.state(NOW + 2 * MINIMUM).stage is Stage.PUBLISHING


def test_broken_next_key_never_takes_the_place_of_a_good_one(ring):
    old = which(ring.in_use)
    ring.begin(NOW)
    ring.seen(NOW, MINIMUM, LONGEST)
    ring.next.write_text("torn")
    with pytest.raises(KeyPairError, match=r"next\.pem: this is no"):
        ring.use(NOW + MINIMUM)
    assert which(ring.in_use) == old
