# Pyright's own stubs of TensorFlow know no static shapes and miss operators; to the type checker TensorFlow is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
