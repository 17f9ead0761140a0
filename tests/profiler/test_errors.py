"""Messages for people."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeprof.errors import about, without_subject


@given(
    subject=st.from_regex(r"[a-z]{3,8}\.[a-z]{1,6}", fullmatch=True),
    rest=st.from_regex(r"[a-z]{2,9}( [a-z]{1,9}){1,4}", fullmatch=True),
)
def test_a_message_names_its_subject_once(subject, rest):
    for message in (rest, f"{subject} {rest}", f"{subject}: {rest}", f"zoo/{subject}: {rest}"):
        assert about(subject, message).split().count(f"{subject}:") <= 1
        assert about(subject, message).startswith((subject, f"zoo/{subject}"))
        assert about(subject, about(subject, message)) == about(subject, message)
    for message in (f"{subject} {rest}", f"{subject}: {rest}"):
        assert without_subject(subject, message) == rest
