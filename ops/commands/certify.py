"""`sluice certify`: tests Sluice's promises on a deployed stage, and writes a dated report."""

import json
from collections.abc import Iterable
from pathlib import Path

import click

from ops import screen
from ops.commands import doctor
from ops.deploy.certify.certification import carry_out
from ops.deploy.certify.certification_report import PROMISES, CertificationReport, conclude
from ops.deploy.certify.opening import check_stage, open_stage
from ops.deploy.certify.restore import Repairs
from ops.deploy.certify.stage import EMULATED, ON_AWS, DeployedStage
from ops.deploy.certify.steps import STEPS
from ops.deploy.certify.trouble import repairs_of
from ops.deploy.stack_api import emulator_of
from ops.failure import INTERRUPTED, UNFINISHED, Failure
from ops.stack import Stack, home, works_on_deployed_stack
from ops.version import sluice_version
from shared.clock import SystemClock

_NAMES = [one.name for one in STEPS]


@click.command("certify")
@works_on_deployed_stack
@doctor.account_option
@click.option(
    "--only",
    "names",
    type=click.Choice(_NAMES),
    multiple=True,
    metavar="STEP",
    help="Only this step; may be repeated.",
)
@click.option("--restore", is_flag=True, help="Only restore what a killed run has left broken.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the report. Default: the current folder.",
)
@click.option("--even-prod", is_flag=True, help="Allow a stage that is called prod.")
@click.option(
    "--despite-traffic", is_flag=True, help="Allow a stage that received other events in the last hour."
)
@screen.yes_option
@screen.json_option
def command(
    stack: Stack,
    *,
    account: str | None,
    names: tuple[str, ...],
    restore: bool,
    folder: Path,
    even_prod: bool,
    despite_traffic: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Test Sluice's promises on a deployed stage, and write a dated report with a verdict for each.

    This sends events, replaces and restores the API key, cuts off Redis, replays, redrives and deploys a parameter. It restores
    everything that it breaks, even after Ctrl-C. Its rows stay in Treasure Data, in tables named sluice_certify….
    """
    if stack.is_local:
        raise Failure("`sluice certify` needs a deployed stack. `make endurance` tests the local one")
    clock = SystemClock()
    endpoint = emulator_of(stack)
    pace = EMULATED if endpoint else ON_AWS
    place = home() / "certify" / f"{stack.name}-{stack.session.region_name}"

    repairs = Repairs(place.with_suffix(".broken.json"), repairs_of(stack, clock, pace), clock, stack.option)
    left = [one.kind for one in repairs.broken]
    if left:
        screen.note("an earlier run left something broken")
        repairs.restore_all()
    if restore:
        if as_json:
            screen.show_json({"restored": left})
        else:
            screen.say(f"Restored: {', '.join(left)}." if left else "Nothing to restore.")
        return
    check_stage(stack, clock, even_prod=even_prod, despite_traffic=despite_traffic)
    wanted = names or tuple(_NAMES)
    screen.confirm(
        f"This runs {screen.plural(len(wanted), 'step')} on {stack.name}, for up to an hour and a half, and breaks and restores parts of it. Continue?",
        yes=yes,
    )
    screen.check_folder(folder)  # not only once an hour has passed
    stage = open_stage(stack, account, repairs, clock, endpoint=endpoint)
    is_interrupted = carry_out(stage, [one for one in STEPS if one.name in wanted], hidden=as_json)
    report = _report(stage, endpoint)
    files = _write(report, folder)
    if as_json:
        screen.show_json(report.document())
    else:
        _summarize(report, files)
    if repairs.broken:
        repairs.restore_all()
    if is_interrupted:
        screen.note("stopped; everything is restored. --only STEP runs a step alone")
        raise click.exceptions.Exit(INTERRUPTED)
    raise click.exceptions.Exit(UNFINISHED if report.failed else 0)


def _report(stage: DeployedStage, endpoint: str) -> CertificationReport:
    return CertificationReport(
        stack=stage.stack.name,
        region=str(stage.stack.session.region_name),
        where=endpoint or "AWS",
        version=sluice_version(),
        run=stage.run,
        began=screen.utc(int(stage.began)),
        ended=screen.utc(int(stage.clock.now())),
        steps=tuple(stage.reports.values()),
        promises=tuple(
            conclude(name, [one.name for one in STEPS if number in one.promises], stage.reports)
            for number, name in PROMISES.items()
        ),
        timings=stage.timings,
    )


def _write(report: CertificationReport, folder: Path) -> list[Path]:
    """Write the report as Markdown and as JSON, and return the files."""
    file = folder / f"sluice-certify-{report.stack}-{report.began[:10]}.md"
    screen.write(file, report.markdown())
    document = file.with_suffix(".json")
    screen.write(document, json.dumps(report.document(), indent=2) + "\n")
    return [file, document]


def _summarize(report: CertificationReport, files: Iterable[Path]) -> None:
    screen.say("")
    concluded = [(one.name, str(one.verdict)) for one in report.promises]
    screen.show_table(("promise", "verdict"), concluded)
    screen.say("\n" + "\n".join(map(str, files)))
