"""Names that say nothing and functions named by one word become fewer, and never more (tools/names.py counts them)."""

from tests.docs.tool import load

#: What was counted when these tests were last changed. Lower both when names become better; never raise them.
MOST_EMPTY = 0
MOST_ONE_WORD = 0.45


names = load("names")


def test_no_more_variables_have_a_name_that_says_nothing() -> None:
    files = names.all_names()
    worst = {str(path.relative_to(names.ROOT)): dict(f.empty) for path, f in files.items() if f.empty}
    assert names.count_empty(files).total() <= MOST_EMPTY, f"rename what these hold: {worst}"


def test_no_larger_share_of_the_functions_has_a_name_of_one_word() -> None:
    share = names.one_word_share(names.all_names())
    assert share <= MOST_ONE_WORD + 0.005, f"{share:.1%}: begin with a verb, or say in two words what is returned"
