"""Creates or updates a stack through a change set, as `sam deploy` and `aws cloudformation deploy` do."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import WaiterError

from ops.deploy.stack_status import is_in_progress
from ops.failure import Failure, if_there
from shared.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import (
        CreateChangeSetInputTypeDef,
        ParameterTypeDef,
        StackEventTypeDef,
        StackTypeDef,
    )

_PATIENCE_SECONDS = 3600.0  # a canary and a CloudFront distribution take their time


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Creates or updates one stack."""

    cloudformation: "CloudFormationClient"
    stack: str
    clock: Clock
    poll_seconds: float

    def settle(self) -> None:
        """Wait until no change of the stack is under way, nor the clean-up after one: CloudFormation rejects another until then."""
        while (found := self._found()) is not None and is_in_progress(found["StackStatus"]):
            self.clock.sleep(self.poll_seconds)

    def parameters(self) -> dict[str, str]:
        """Return the stack's parameters."""
        return self._current() or {}

    def deploy(
        self,
        name: str,
        parameters: Mapping[str, str],
        template_url: str = "",
        names: Collection[str] = (),
        *,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Create or update the stack, with a change set of a new name, unless nothing has to change.

        Parameters that are not given keep their values and, without the URL of one in S3, the template stays. `names` are the parameters
        of the one in S3: CloudFormation rejects others, which the stack may have from a later version. `waiting` is called at each poll.

        Raises:
            Failure: CloudFormation rejected the change, rolled it back (the message has the first reason), or takes over an hour.
        """
        before = self._current()
        kept = (before or {}).keys() - parameters.keys()
        if template_url:
            kept &= set(names)
        given: list[ParameterTypeDef] = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ]
        given += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)]
        request: CreateChangeSetInputTypeDef = {
            "StackName": self.stack,
            "ChangeSetName": name,
            "ChangeSetType": "CREATE" if before is None else "UPDATE",
            "Parameters": given,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        if template_url:
            request["TemplateURL"] = template_url
        else:
            request["UsePreviousTemplate"] = True
        self.cloudformation.create_change_set(**request)
        try:
            self.cloudformation.get_waiter("change_set_create_complete").wait(
                StackName=self.stack,
                ChangeSetName=name,
                WaiterConfig={"Delay": self.poll_seconds},  # type: ignore[typeddict-item]  # botocore accepts fractions
            )
        except WaiterError:
            made = self.cloudformation.describe_change_set(StackName=self.stack, ChangeSetName=name)
            self.cloudformation.delete_change_set(StackName=self.stack, ChangeSetName=name)
            reason = made.get("StatusReason", "")
            if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                return
            raise Failure(f"CloudFormation rejects the change of {self.stack}: {reason}") from None
        self.cloudformation.execute_change_set(
            StackName=self.stack, ChangeSetName=name, ClientRequestToken=name
        )
        self._wait(waiting, name)

    def _wait(self, waiting: Callable[[], None], name: str) -> None:
        until = self.clock.now() + _PATIENCE_SECONDS
        while True:
            self.clock.sleep(self.poll_seconds)
            waiting()
            found = self._found()
            status = found["StackStatus"] if found else "gone"
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"):
                return
            if not status.endswith("IN_PROGRESS"):
                raise Failure(f"{self.stack} is {status}: {self._reason(name)}")
            if self.clock.now() > until:
                raise Failure(f"{self.stack} is still {status} after an hour")

    def _current(self) -> dict[str, str] | None:
        """Return the stack's parameters; None if there is no stack, or it was never created."""
        found = self._found()
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            return None
        return {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", ())}

    def _found(self) -> "StackTypeDef | None":
        found = if_there(self.cloudformation.describe_stacks, StackName=self.stack)
        return found and found["Stacks"][0]

    def _reason(self, name: str) -> str:
        """Return the first failure of the change that was of this name: a stack keeps the events of 90 days."""
        failed: list[StackEventTypeDef] = []
        pages = self.cloudformation.get_paginator("describe_stack_events").paginate(StackName=self.stack)
        for page in pages:  # the latest event comes first
            ours = [one for one in page["StackEvents"] if one.get("ClientRequestToken") == name]
            failed[:0] = [one for one in reversed(ours) if one["ResourceStatus"].endswith("FAILED")]
            if not ours:
                break
        if not failed:
            return "`aws cloudformation describe-stack-events` shows why"
        return f"{failed[0]['LogicalResourceId']}: {failed[0].get('ResourceStatusReason', '')}"
