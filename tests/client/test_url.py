"""A URL that cannot be that of a server is refused at once, and not dialed for ever."""

from __future__ import annotations

import pytest

from holdfast import connect


@pytest.mark.parametrize("url", ["", "http://", "ftp://host", "http://host:99999", "http://host:0", "http://host:many"])
def test_what_cannot_be_dialed_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"not the URL of a server|[Pp]ort"):
        connect(url)
