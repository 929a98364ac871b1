"""Which scope each address needs: one table, so that no endpoint forgets to ask. What is not in it needs them all."""

from cope.core.errors import Forbidden
from cope.core.key_scopes import ALL_SCOPES, KeyScope, scope_names

_READ, _SUBMIT, _FILES = KeyScope.READ, KeyScope.SUBMIT, KeyScope.FILES
_WEBHOOKS, _SPEND = KeyScope.WEBHOOKS, KeyScope.SPEND

# (address and what lies below it, scope of GET, scope of everything else); the first that fits counts. None: any key.
_TABLE: tuple[tuple[str, KeyScope | None, KeyScope | None], ...] = (
    ("/v1/models", None, None),
    ("/v1/files", _READ, _FILES),
    ("/v1/batches/{batch_id}/spend_limit", _SPEND, _SPEND),
    ("/v1/batches/{batch_id}/receipt", _SPEND, _SPEND),
    ("/v1/batches", _READ, _SUBMIT),
    ("/v1/tasks", _READ, _SUBMIT),
    ("/v1/chat/completions", _READ, _SUBMIT),
    ("/v1/responses", _READ, _SUBMIT),
    ("/v1/audits", _READ, _READ),
    ("/v1/events", _READ, _READ),
    ("/v1/event_types", _READ, _READ),
    ("/v1/event_consumers", _READ, _READ),
    ("/v1/event_dead_letters", _WEBHOOKS, _WEBHOOKS),
    ("/v1/webhook_endpoints", _WEBHOOKS, _WEBHOOKS),
    ("/v1/webhook_event_types", _WEBHOOKS, _WEBHOOKS),
    ("/v1/webhook_deliveries", _WEBHOOKS, _WEBHOOKS),
    ("/v1/usage", _SPEND, _SPEND),
    ("/v1/limits", _SPEND, _SPEND),
    ("/v1/organization", _SPEND, _SPEND),
)


def is_listed(path: str) -> bool:
    """Whether the table says anything of this route template."""
    return any(_within(path, address) for address, _, _ in _TABLE)


def needed(method: str, path: str) -> frozenset[KeyScope]:
    """The scopes that a key must have for this route template, such as ``/v1/files/{file_id}``."""
    for address, looking, changing in _TABLE:
        if _within(path, address):
            scope = looking if method in {"GET", "HEAD"} else changing
            return frozenset() if scope is None else frozenset({scope})
    return ALL_SCOPES


def check_scopes(has: frozenset[KeyScope], method: str, path: str) -> None:
    """Raises `Forbidden` naming the scope that is missing."""
    missing = needed(method, path) - has
    if not missing:
        return
    names = ", ".join(f"`{name}`" for name in scope_names(missing))
    held = ", ".join(scope_names(has)) or "none"
    raise Forbidden(
        f"This key lacks the scope {names}, which {method} {path} needs (it has: {held}). The operator makes keys: "
        "cope keys create PROJECT --scope …",
        code="missing_scope",
    )


def _within(path: str, address: str) -> bool:
    return path == address or path.startswith(f"{address}/")
