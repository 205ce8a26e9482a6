"""What is kept of graphs that were lowered before."""

from pocketxl.export.graph.memo import Memo


def test_the_results_that_were_asked_for_last_are_kept() -> None:
    memo: Memo[str] = Memo(2)
    made = []

    def ask(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key.upper()

        return memo.get(key, make)

    assert [ask(key) for key in "aab"] == ["A", "A", "B"]
    assert made == ["a", "b"]
    ask("a")
    ask("c")  # b goes, which was not asked for since
    ask("a")
    assert made == ["a", "b", "c"]
    ask("b")
    assert made == ["a", "b", "c", "b"]
