"""`sluice deploy`: deploys this version of Sluice without its repository, and goes on with `sluice setup`."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import click

from ops import screen
from ops.commands import preflight, setup
from ops.cost.monthly import cost_line
from ops.deploy.artifact import Artifact
from ops.deploy.change_set import ChangeSet
from ops.deploy.code_bucket import CodeBucket
from ops.deploy.preflight.findings import findings
from ops.deploy.preflight.planning import surveyed
from ops.deploy.preflight.survey import Deployment, Survey
from ops.deploy.stack_api import is_of_aws
from ops.deploy.stack_setup import SetupAnswers, read_key
from ops.failure import UNFINISHED, Failure
from ops.help_page import DEPLOYING
from ops.stack import deployed
from shared.clock import SystemClock

_POLL_SECONDS = 5.0
_EMULATED_POLL_SECONDS = 0.3


@click.command("deploy")
@preflight.plan_options
@click.option(
    "--parameter-overrides",
    default="",
    help="Parameters to set, such as 'TdSite=ap01 AlarmEmail=me@example.com'. The others keep their values.",
)
@setup.answers_options
@screen.yes_option
@screen.json_option
def command(*, plan: Deployment, answers: SetupAnswers, yes: bool, as_json: bool) -> None:
    """Create or update a stack with this version of Sluice, without its repository, and lead it to its first row.

    It checks what would make the deploy fail, shows what it will create and what that costs, and asks. Then it uploads the code to a
    bucket of its own, deploys, and goes on as `sluice setup` does. It can be stopped and run again at any point.
    """
    clock = SystemClock()
    survey = surveyed(
        replace(plan, build=None), read_key(answers.key_file) if answers.key_file else "", answers.database
    )
    cloudformation = survey.client("cloudformation")
    poll = _POLL_SECONDS if is_of_aws(cloudformation.meta.endpoint_url) else _EMULATED_POLL_SECONDS
    change = ChangeSet(cloudformation, plan.stack, clock, poll)
    change.settle()
    survey.look_at_stack()
    artifact = Artifact.find(survey.values["Architecture"])
    found = preflight.show(findings(survey), as_json=as_json)
    if faults := [one for one in found if one.state == "fault"]:
        for one in faults if as_json else ():
            screen.note(one.line)
        screen.note(f"\n{preflight.repeat(len(faults))}")
        raise click.exceptions.Exit(UNFINISHED)
    bucket = CodeBucket(survey.client("s3"), plan.stack, survey.account, survey.plan.region)
    is_new_bucket = not bucket.is_there()
    click.echo(
        _announcement(survey, artifact, bucket, is_new=is_new_bucket, updates=survey.live is not None),
        err=as_json,
    )
    screen.confirm("Deploy this?", yes=yes)
    if is_new_bucket:
        bucket.create()
    with screen.progress("deploying", hidden=as_json):
        at = datetime.fromtimestamp(clock.now(), UTC)
        given = {**plan.given, "Architecture": survey.values["Architecture"]}
        try:
            name = f"deploy-{at:%Y%m%dt%H%M%S}"
            change.deploy(name, given, bucket.upload(artifact), artifact.template["Parameters"])
        except Failure as failure:
            raise Failure(
                f"{failure.message.rstrip('.')}. See {DEPLOYING}; then run `sluice deploy` again"
            ) from failure
        except KeyboardInterrupt:
            screen.note("Stopped. `sluice deploy` waits for what CloudFormation has begun, and continues.")
            raise
    setup.set_up(deployed(plan.stack, survey.plan.region), answers, as_json=as_json)


def _announcement(
    survey: Survey, artifact: Artifact, bucket: CodeBucket, *, is_new: bool, updates: bool
) -> str:
    services = Counter(kind.split("::")[1] for kind in survey.types.values())
    services["Lambda"] += len(survey.template.logical_ids("AWS::Serverless::Function")) - 1
    parts = ", ".join(f"{count} {service}" for service, count in sorted(services.items()))
    does = "creates" if is_new else "uses"
    return (
        f"\nThis {'updates' if updates else 'creates'} the stack {survey.plan.stack} in {survey.plan.region}, account {survey.account}, "
        f"from {artifact.file.name}. Resources by service: {parts}.\n"
        f"It {does} the bucket {bucket.name} for the code, which `sluice remove --stack {survey.plan.stack} "
        f"--region {survey.plan.region}` removes with the stack.\nCost: {cost_line(survey.values, survey.plan.region)}"
    )
