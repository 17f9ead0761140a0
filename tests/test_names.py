"""Names that say nothing and functions named by one word become fewer, and never more (tools/names.py counts them)."""

import pytest

from tests.docs.tool import load

#: What was counted when these tests were last changed. Lower both when names become better; never raise them.
MOST_EMPTY = 0
MOST_ONE_WORD = 0.45


names = load("names")


@pytest.fixture(scope="module")
def files():
    """The names of each file."""
    return names.all_names()


def test_no_more_variables_have_a_name_that_says_nothing(files) -> None:
    worst = {str(path.relative_to(names.ROOT)): dict(f.empty) for path, f in files.items() if f.empty}
    assert names.count_empty(files).total() <= MOST_EMPTY, f"rename what these hold: {worst}"


def test_no_larger_share_of_the_functions_has_a_name_of_one_word(files) -> None:
    share = names.one_word_share(files)
    assert share <= MOST_ONE_WORD + 0.005, f"{share:.1%}: begin with a verb, or say in two words what is returned"
