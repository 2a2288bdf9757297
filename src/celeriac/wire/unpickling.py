"""Reading pickles, apart because ``pickle`` costs every importing process a millisecond and few ever read one.

Loading a pickle runs whatever code it holds: only ``serializers`` calls this, once the accept set names pickle.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from celeriac.wire.error_names import OUR_CLASSES, unwrap_unpicklable


class _Unpickler(pickle.Unpickler):
    """Reads Celery's exceptions as ours, so that its pickled results stay readable where it is not installed."""

    def find_class(self, module: str, name: str) -> Any:
        ours = OUR_CLASSES.get((module, name))
        if ours is not None:
            return ours
        if name == "UnpickleableExceptionWrapper" and module == "celery.utils.serialization":
            return unwrap_unpicklable
        return super().find_class(module, name)


def unpickle(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()
