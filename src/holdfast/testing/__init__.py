"""
A small sea: what an application, and this library itself, is tested in.

`holdfast.testing.fixtures` has it for pytest.
"""

from holdfast.testing.client import SeaClient, SeaRoom
from holdfast.testing.history import History, Violation
from holdfast.testing.memory import hubs_in_memory
from holdfast.testing.network import Weather
from holdfast.testing.sea import Sea
from holdfast.testing.served import Served

__all__ = ["History", "Sea", "SeaClient", "SeaRoom", "Served", "Violation", "Weather", "hubs_in_memory"]
