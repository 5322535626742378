"""A double of Treasure Data: its import, its databases and tables, its queries, and whatever can go wrong with it.

`TreasureData.handle` turns a request into a response, without sockets and without waiting. `HttpServer` puts it behind
real sockets, `InProcess` under a `requests.Session`. Where TD's behaviour is not documented, such as how long it remembers a
unique_id, `Settings` decides.
"""

from doubles.http_server import Request, Response
from doubles.treasure_data.api import API_KEY, Settings
from doubles.treasure_data.core import TreasureData
from doubles.treasure_data.fault import Action, Fault, Kind, Target
from doubles.treasure_data.in_process import InProcess

__all__ = [
    "API_KEY",
    "Action",
    "Fault",
    "InProcess",
    "Kind",
    "Request",
    "Response",
    "Settings",
    "Target",
    "TreasureData",
]
