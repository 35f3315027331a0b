"""Errors of serving, grouped by what the caller should do.

ServingError             exit 1  unforeseen
|-- ConfigError          exit 3  stop; a person must edit a file or an option
|-- DoesNotFit           exit 3  stop; model and cache need more memory than the budget; the text has the numbers
|-- RankLost             exit 6  a process of the model is gone; nothing can be computed any more
`-- RequestRefused               this request only; carries the HTTP status to answer with
    |-- BadRequest       400     the client must change the request
    |-- UnknownModel     404     no such model is served
    |-- DeadlinePassed   408     the request's own deadline passed before it could be finished
    |-- QueueFull        429     try again in retry_after_s
    `-- NotServing       503     draining or asleep; try elsewhere, or again in retry_after_s
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of every error we raise on purpose; its text is one line for a person."""

    exit_code = 1


class ConfigError(ServingError):
    exit_code = 3


class DoesNotFit(ServingError):
    exit_code = 3


class RankLost(ServingError):
    exit_code = 6


class RequestRefused(ServingError):
    status = 500

    def __init__(self, text: str, *, parameter: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.parameter = parameter
        self.retry_after_s = retry_after_s


class BadRequest(RequestRefused):
    status = 400


class UnknownModel(RequestRefused):
    status = 404


class DeadlinePassed(RequestRefused):
    status = 408


class QueueFull(RequestRefused):
    status = 429


class NotServing(RequestRefused):
    status = 503


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise ConfigError naming key, value and rule unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{key} = {value}: {rule}")
