"""What to do about a stack that CloudFormation has not finished."""

_STUCK = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")


def is_in_progress(status: str) -> bool:
    """Return whether CloudFormation is working on a stack in this status."""
    return status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"


def obstacle(status: str, name: str, region: str) -> str:
    """Return what to do before a stack in this status can be deployed to; empty if it can be."""
    command = f"`aws cloudformation {{}} --stack-name {name} --region {region}`"
    if status in _STUCK:
        return f"It cannot be updated, so delete it first: {command.format('delete-stack')}"
    if status == "UPDATE_ROLLBACK_FAILED":
        return f"Finish the rollback first: {command.format('continue-update-rollback')}"
    if is_in_progress(status):
        return f"Wait for it: {command.format('describe-stack-events')}"
    return ""
