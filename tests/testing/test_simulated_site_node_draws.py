from __future__ import annotations

from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.testing.simulated_site.node_draws import NodeDraws


class Node:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.closed = False

    def draw_watts(self) -> float:
        text = self._path.read_text()
        if text == "broken":
            raise Unavailable("torn state")
        return float(text)

    def close(self) -> None:
        self.closed = True


def test_the_site_draws_what_its_nodes_draw(tmp_path: Path) -> None:
    for name, watts in (("a", 500), ("b", 700)):
        (tmp_path / name).write_text(str(watts))
    draws = NodeDraws([tmp_path / "a", tmp_path / "b"], Node)
    assert draws.total_watts() == 1200.0


def test_a_node_counts_from_the_moment_it_exists(tmp_path: Path) -> None:
    draws = NodeDraws([tmp_path / "a"], Node)
    assert draws.total_watts() == 0.0
    (tmp_path / "a").write_text("500")
    assert draws.total_watts() == 500.0


def test_a_node_is_opened_once_and_again_when_it_is_made_anew(tmp_path: Path) -> None:
    opened: list[Node] = []

    def open_node(path: Path) -> Node:
        opened.append(Node(path))
        return opened[-1]

    (tmp_path / "a").write_text("500")
    draws = NodeDraws([tmp_path / "a"], open_node)
    assert [draws.total_watts(), draws.total_watts()] == [500.0, 500.0]
    assert len(opened) == 1
    (tmp_path / "new").write_text("600")
    (tmp_path / "new").replace(tmp_path / "a")
    assert draws.total_watts() == 600.0
    assert [node.closed for node in opened] == [True, False]


def test_a_broken_node_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("broken")
    (tmp_path / "b").write_text("700")
    assert NodeDraws([tmp_path / "a", tmp_path / "b"], Node).total_watts() == 700.0
