"""Every message about a failure names a command or a page that helps."""

DEPLOYING = "docs/deploying.md#when-a-deploy-fails"
TROUBLESHOOTING = "docs/operations.md#troubleshooting"


def with_page(text: str, page: str) -> str:
    """Return a message with a page, unless it already names a command, in backticks, or a page."""
    if "`" in text or "docs/" in text:
        return text
    return f"{text}{'' if text.endswith('.') else '.'} See {page}."
