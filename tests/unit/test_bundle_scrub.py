"""What strangers are shown of facts."""

from __future__ import annotations

import json
import re
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from guardfs.bundle.scrub import Scrubber

HASH = sha256(b"an event").hexdigest()


def test_equal_ones_stay_equal_and_nobody_is_named() -> None:
    scrub = Scrubber()
    event = {
        "session": "agent:main:x:direct:ou_1",
        "uid": 1000,
        "gid": 1000,
        "lane": "session:agent:main:x:direct:ou_1",
    }
    one, two = scrub.value(event), scrub.value(event)
    assert one == two != Scrubber().value(event)
    assert re.fullmatch("h:[0-9a-f]{16}", one["session"]) and one["lane"] == f"session:{one['session']}"
    assert one["uid"] != one["gid"] and str(one["uid"]).startswith("h:")
    assert scrub.value({"session": one["session"]}) == {"session": one["session"]}, (
        "hashed by the log already"
    )
    assert scrub.text("/home/ada/x /home/ada /srv/home/ada").count("ada") == 1


def test_the_chain_stays_and_a_key_does_not() -> None:
    found = Scrubber().value(
        {"prev": HASH, "digest": HASH, "id": HASH, "args": ["--token", "x", f"--k={HASH}"]}
    )
    assert found["prev"] == found["digest"] == HASH
    assert HASH not in json.dumps([found["id"], found["args"]])
    assert found["args"][:2] == ["--token", "***"]


def test_what_the_environment_keeps_is_masked_wherever_it_stands() -> None:
    scrub = Scrubber(
        [{"ACME_TOKEN": "plain words", "HOME": "/srv", "KEY_FILE": "/etc/key", "TOKEN_KIND": "short"}]
    )
    found = scrub.value(
        {"a": ["said plain words", {"plain words": 1}], "home": "/srv/etc/key", "kind": "short"}
    )
    assert found == {"a": ["said ***", {"***": 1}], "home": "/srv/etc/key", "kind": "short"}


def test_pieces_of_lines_and_variables_are_left_out() -> None:
    assert Scrubber().value(
        {"text": "x", "environ": {"A": "b"}, "op": "torn", "n": [1, 2.5, True, None]}
    ) == {
        "op": "torn",
        "n": [1, 2.5, True, None],
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_anything_that_json_can_say_comes_through(value: object) -> None:
    json.dumps(Scrubber([{"API_KEY": "0123456789"}]).value(value))
