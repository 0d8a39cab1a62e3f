# A configuration's attributes are whatever its file defines, each of one type; the package's own
# annotations give them the union of all types that there are.
from typing import Any

config_flags: Any

class ConfigDict(Any):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __getitem__(self, key: str) -> Any: ...
    def __iter__(self) -> Any: ...
