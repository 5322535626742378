"""The local stack's accounts, their write keys and the secrets that sign the keys.

None of this is confidential. It is fixed so that recorded requests stay valid.
"""

from shared import write_key
from shared.accounts import Account
from shared.tracking_plan import TrackingPlan

SIGNING_SECRETS = {
    "demo": "not a secret: it signs the keys of recorded requests",
    "next": "not a secret either: two are valid at once while one is rotated",
}

NEWS_PLAN = TrackingPlan.parse(
    {
        "mode": "observe",
        "tables": {
            "article_views": {
                "columns": {"article": {"type": "string", "required": True}, "section": "string"}
            },
            "reactions": {"columns": {"article": "string", "reaction": "string", "depth": "number"}},
            # the pages send a number
            "sections_read": {
                "columns": {"article": "string", "section": {"type": "string", "required": True}}
            },
        },
    }
)
"""The tracking plan of the news site. Its events differ from the plan, which `sluice plan diff news --local` shows."""

ACCOUNTS = {
    "shop": Account("shop"),
    "outlet": Account("shop"),  # two accounts may share a database
    "news": Account("media", revoked_key_ids=frozenset({"next-1"}), plan=NEWS_PLAN),
    "app": Account("field_app"),
    "closed": Account("closed_shop", "disabled"),
}

KEYS = {
    name: write_key.sign(account, key_id, SIGNING_SECRETS[write_key.secret_id(key_id)])
    for name, account, key_id in (
        ("shop", "shop", "demo"),
        ("outlet", "outlet", "demo"),
        ("news", "news", "next-2"),
        ("app", "app", "next"),
        ("disabled account", "closed", "demo"),
        ("revoked key", "news", "next-1"),
        ("unknown account", "nobody", "demo"),
    )
}
"""Write keys by what they demonstrate. The last three have valid signatures; the worker rejects their rows."""
