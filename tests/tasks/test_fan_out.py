"""Tasks on a Dask cluster: what is missing is said in one line, and errors come back whole."""

import sys

import dask
import pytest

from core.errors import NetworkError, UnsupportedError
from tasks.fan_out import dask_cluster


async def test_the_extra_is_named_when_it_is_missing(monkeypatch):
    """Without the extra `dask` an address is answered by one line that says what to install."""
    monkeypatch.setitem(sys.modules, "prefect_dask.task_runners", None)
    with pytest.raises(UnsupportedError, match=r"candlelake\[dask\]"):
        async with dask_cluster("tcp://127.0.0.1:1"):
            pass


async def test_an_address_where_nobody_answers_is_named():
    """No scheduler at the address: one line with the address and the setting, worth another try later."""
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(NetworkError) as caught:
        async with dask_cluster("tcp://127.0.0.1:1"):
            pass
    assert "tcp://127.0.0.1:1" in str(caught.value)
    assert "CANDLELAKE_DASK_ADDRESS" in str(caught.value)
    assert "\n" not in str(caught.value)
