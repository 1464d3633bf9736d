"""What can go wrong in the stores, as types that callers can tell apart.

    OpenFoundError
    ├── InputError (also a ValueError)   the caller's argument, file or setting is wrong
    │   ├── TimeError                    a date before the data, or before the weights were trained
    │   └── NotCarried                   the snapshot lacks what is asked of it: facts, weights, …
    ├── ManifestError                    a snapshot's manifest, LIVE or a prompt is damaged
    ├── NoLiveSnapshot                   nothing has been activated yet
    ├── UnknownSnapshot (also a KeyError)
    ├── UnknownPrompt (also a KeyError)
    ├── UnknownAudience (also a KeyError)
    ├── UnknownKey (also a KeyError)
    ├── MissingKind                      the snapshot holds no embeddings of that kind
    ├── SpaceMismatch                    two embedding spaces met in one computation
    └── VectorsUnavailable               Milvus is away or refused; the exact scan can stand in

Every message says what was expected, what came, and what to do about it.
"""

from __future__ import annotations


class OpenFoundError(Exception):
    """Whatever OpenFound raises on purpose."""


class InputError(OpenFoundError, ValueError):
    """An argument, a file or a setting of the caller's is wrong."""


class TimeError(InputError):
    """A date lies before the data begin, or before the weights were trained."""


class NotCarried(InputError):
    """The snapshot lacks what the request needs: facts for rules, a calibration, or weights."""


class ManifestError(OpenFoundError):
    """A manifest, LIVE or a prompt is damaged; the message names the file and the remedy."""


class NoLiveSnapshot(OpenFoundError):
    """No snapshot is live, so there is nothing to serve."""


class UnknownSnapshot(OpenFoundError, KeyError):
    """The named snapshot does not exist in this workspace."""

    # KeyError shows the repr of its argument, quotes and escapes included.
    __str__ = Exception.__str__


class UnknownPrompt(OpenFoundError, KeyError):
    """The named tuned prompt does not exist in this workspace."""

    __str__ = Exception.__str__


class UnknownAudience(OpenFoundError, KeyError):
    """The named audience was never saved here, or was deleted."""

    __str__ = Exception.__str__


class UnknownKey(OpenFoundError, KeyError):
    """No API key has the given id, or it was revoked."""

    __str__ = Exception.__str__


class MissingKind(OpenFoundError):
    """The snapshot holds no embeddings of the kind asked for."""


class SpaceMismatch(OpenFoundError):
    """Vectors of two embedding spaces were about to meet in one computation."""


class VectorsUnavailable(OpenFoundError):
    """Milvus could not be reached or could not answer."""
