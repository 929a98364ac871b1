"""Projects, keys, shadow audits: the operator's."""

from cope.core.audit import AuditState
from cope.core.key_scopes import EVERY, KeyScope
from cope.core.problem import Kind
from cope.core.request import SERVED_KINDS
from cope_api.openapi.batches import PAGE
from cope_api.openapi.money_words import MONTH, PROJECT
from cope_api.openapi.operation import op
from cope_api.openapi.reports import AUDIT_REPORT
from cope_api.openapi.shapes import (
    DELETED,
    ID,
    SECONDS,
    USD,
    USD_IN,
    array,
    closed,
    const,
    either,
    example,
    flag,
    listed,
    named,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)

PROJECT_OBJECT = named(
    "Project",
    record(
        {
            "id": ID,
            "object": const("organization.project"),
            "name": text(),
            "created_at": SECONDS,
            "archived_at": nullable(SECONDS),
            "status": one_of(["active", "archived"]),
            "cope": record(
                {
                    "time_zone": text(),
                    "default_kind": one_of([kind.value for kind in Kind]),
                    "paused": flag(),
                    "pause_unparsable": flag(),
                    "cap_usd": nullable(USD),
                    "keep_days": nullable(whole("Null: as the settings say.", low=1)),
                    "audit": record({"share": text(), "cap_usd": nullable(USD)}),
                },
                optional={"webhook_secret": text("At its creation only.", like="^whsec_")},
            ),
        }
    ),
)
_COPE = closed(
    {},
    optional={
        "time_zone": text("An IANA name such as Europe/Berlin.", low=1, high=64),
        "default_kind": one_of([kind.value for kind in SERVED_KINDS]),
        "paused": flag("No work of it is begun."),
        "pause_unparsable": flag("Batches wait whose first answers can't be read."),
        "keep_days": nullable(whole("Its ended batches and live calls are kept this long.", low=1, high=36_500)),
        "audit": closed(
            {},
            optional={
                "share": either(text(low=1, high=32), number(low=0, high=1), about='Such as "0.02"; 0 is off.'),
                "cap_usd": nullable(USD_IN),
            },
        ),
    },
)
_REST = {"cope": nullable(_COPE), "external_key_id": {}, "geography": {}}
_NAME = text(low=1, high=200)
_KEY_OWN = record(
    {
        "status": one_of(["active", "expired", "revoked"]),
        "scopes": array(one_of([EVERY, *KeyScope])),
        "expires_at": nullable(SECONDS),
        "revoked_at": nullable(SECONDS),
        "rotated_at": nullable(SECONDS),
        "previous_secret_until": nullable(SECONDS),
    }
)
KEY_OBJECT = named(
    "ApiKey",
    record(
        {
            "object": const("organization.project.api_key"),
            "id": ID,
            "name": text(),
            "redacted_value": text(),
            "created_at": SECONDS,
            "last_used_at": nullable(SECONDS),
            "owner": record({"type": const("service_account"), "service_account": record({"id": ID, "name": text()})}),
            "cope": _KEY_OWN,
        }
    ),
)
_ACCOUNT = record(
    {
        "object": const("organization.project.service_account"),
        "id": ID,
        "name": text(),
        "role": const("member"),
        "created_at": SECONDS,
        "api_key": record(
            {
                "object": const("organization.project.service_account.api_key"),
                "value": text("The key. Shown here and never again."),
                "name": text(),
                "created_at": SECONDS,
                "id": ID,
            }
        ),
        "cope": _KEY_OWN,
    }
)
_EXPIRY = nullable(whole("Unix seconds, in the future.", low=1, high=253_402_300_799))
_SCOPES = array(one_of([EVERY, *KeyScope]), "Default: all of them.", low=1, high=16)
_PAIR = record({"answer": nullable(text()), "answer_key": nullable(text())})
_AUDIT = record(
    {
        "id": ID,
        "object": const("cope.audit"),
        "task_id": ID,
        "custom_id": nullable(text()),
        "batch_id": nullable(ID),
        "audit_task_id": nullable(ID),
        "state": one_of([state.value for state in AuditState]),
        "reason": nullable(text()),
        "stage": whole(),
        "confidence": text(),
        "small": _PAIR,
        "large": nullable(_PAIR),
        "cost_usd": USD,
        "month": MONTH,
        "created_at": SECONDS,
        "finished_at": nullable(SECONDS),
    }
)

OPERATIONS = {
    "POST /v1/organization/projects": op(
        "Projects", PROJECT_OBJECT, by="admin", body=example(closed({"name": _NAME}, optional=_REST), {"name": "maths"})
    ),
    "GET /v1/organization/projects": op("Projects", listed(PROJECT_OBJECT), by="admin", query=PAGE),
    f"GET {PROJECT}": op("Projects", PROJECT_OBJECT, by="admin"),
    f"POST {PROJECT}": op(
        "Projects", PROJECT_OBJECT, by="admin", body=closed({}, optional={"name": _NAME, **_REST}), body_needed=False
    ),
    f"POST {PROJECT}/archive": op("Projects", PROJECT_OBJECT, by="admin"),
    f"POST {PROJECT}/service_accounts": op(
        "Projects",
        _ACCOUNT,
        by="admin",
        body=closed(
            {}, optional={"name": _NAME, "cope": closed({}, optional={"scopes": _SCOPES, "expires_at": _EXPIRY})}
        ),
        body_needed=False,
    ),
    f"GET {PROJECT}/api_keys": op("Projects", listed(KEY_OBJECT), by="admin"),
    f"GET {PROJECT}/api_keys/{{key_id}}": op("Projects", KEY_OBJECT, by="admin"),
    f"POST {PROJECT}/api_keys/{{key_id}}/rotate": op(
        "Projects",
        _ACCOUNT,
        by="admin",
        body=closed(
            {},
            optional={
                "overlap_seconds": whole("How long the present secret goes on working.", low=0, high=7 * 86_400),
                "expires_at": _EXPIRY,
            },
        ),
        body_needed=False,
    ),
    f"DELETE {PROJECT}/api_keys/{{key_id}}": op(
        "Projects",
        record({"object": const("organization.project.api_key.deleted"), "id": text(), "deleted": DELETED}),
        by="admin",
    ),
    f"GET {PROJECT}/audit": op(
        "Audits",
        record(
            {
                "object": const("organization.project.audit"),
                "project_id": ID,
                "month": MONTH,
                "share": text(),
                "cap_usd": nullable(USD),
                "spent_usd": USD,
                "reserved_usd": USD,
                "unconfirmed_usd": USD,
                **AUDIT_REPORT,
            }
        ),
        by="either",
        query={"month": MONTH},
    ),
    "GET /v1/audits": op(
        "Audits",
        listed(_AUDIT),
        query={**PAGE, "batch_id": text(high=512), "state": one_of([state.value for state in AuditState])},
    ),
}
