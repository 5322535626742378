"""Every message about a failure names a command or a page that helps."""

from pathlib import Path

DEPLOYING = "docs/deploying.md#when-a-deploy-fails"
TROUBLESHOOTING = "docs/operations.md#troubleshooting"
RIGHTS = "docs/commands.md#iam-permissions"
RIGHTS_TO_DEPLOY = "docs/deploying.md#permissions"
IS_RELEASE = (Path(__file__).parent / "artifacts").is_dir()
"""Whether this is an installed release, which can deploy itself."""
DEPLOY = "`sluice deploy`" if IS_RELEASE else "`sam deploy`"
"""The command that deploys."""


def with_page(text: str, page: str) -> str:
    """Return a message with a page, unless it already names a command, in backticks, or a page."""
    if "`" in text or "docs/" in text:
        return text
    return f"{text}{'' if text.endswith('.') else '.'} See {page}."
