"""What the board does to its tables, where two servers do it at once."""

from __future__ import annotations

from pathlib import Path

from board.conftest import Place
from holdfast import Hub, Transaction
from holdfast.board import changes
from holdfast.board.app import migrations
from holdfast.board.models import NewBoard


async def test_a_first_day_that_has_to_begin_again_ends_well(place: Place, tmp_path: Path) -> None:
    _, store = place(f"{tmp_path}/board.db")

    def seed(tx: Transaction) -> None:
        """As if another server had been at it: the numbers that it took are not given again."""
        for _ in range(3):
            for kind in ("board", "list", "user", "task"):
                tx.new_id(kind)
        changes.seed(tx)

    async with Hub(store, migrations=migrations()) as hub:
        await hub.write(seed)
        boards = await hub.read(changes.all_boards)
        assert [board.id for board in boards] == ["board-1", "board-2"]
        assert (await hub.write(changes.create_board, NewBoard("Later"))).id not in {"board-1", "board-2"}
