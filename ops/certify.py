"""`sluice certify`: tests Sluice's promises on a deployed stage, and writes a dated report."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import requests

from ops import doctor, screen
from ops.certification import Certification, Progress
from ops.certify_report import PROMISES, CertificationReport, Conclusion, StepVerdict, conclude
from ops.certify_restore import Repairs
from ops.certify_run import CertifyRun
from ops.certify_stage import EMULATED, ON_AWS, DeployedStage, account_of, foreign_traffic
from ops.certify_steps import ASSUMPTIONS, STEPS
from ops.certify_trouble import repairs_of
from ops.failure import INTERRUPTED, UNFINISHED, Failure
from ops.stack import Stack, home, works_on_stack
from ops.td_query import TreasureDataQueries
from ops.teardown import Teardown
from ops.version import sluice_version
from shared.clock import Clock, SystemClock

_PROD = re.compile(r"(^|[^a-z])prod(uction)?($|[^a-z])")
_NAMES = [one.name for one in STEPS]
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


@click.command("certify")
@works_on_stack
@doctor.account_option
@click.option(
    "--only",
    "names",
    type=click.Choice(_NAMES),
    multiple=True,
    metavar="STEP",
    help="Only this step; may be repeated.",
)
@click.option(
    "--resume", is_flag=True, help="Continue the last run: run only the steps that have not passed."
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
@click.option(
    "--teardown",
    "removes",
    is_flag=True,
    help="Remove the stack and its data afterwards, and prove that nothing is left.",
)
@screen.yes_option
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    account: str | None,
    names: tuple[str, ...],
    resume: bool,
    restore: bool,
    folder: Path,
    even_prod: bool,
    despite_traffic: bool,
    removes: bool,
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
    endpoint = _emulator(stack)
    pace = EMULATED if endpoint else ON_AWS
    place = home() / "certify" / f"{stack.name}-{stack.session.region_name}"

    def say(text: str) -> None:
        click.echo(text, err=True)

    repairs = Repairs(place.with_suffix(".broken.json"), repairs_of(stack, clock, pace), clock, say)
    left = [one.kind for one in repairs.broken]
    if left:
        say("an earlier run left something broken")
        repairs.restore_all()
    if restore:
        if as_json:
            screen.show_json({"restored": left})
        else:
            screen.say(f"Restored: {', '.join(left)}." if left else "Nothing to restore.")
        return
    check_stage(stack, clock, even_prod=even_prod, despite_traffic=despite_traffic)
    wanted = names or tuple(_NAMES)
    screen.confirm(_warning(stack, wanted, removes=removes), yes=yes or as_json)
    file = place.with_suffix(".run.json")
    run = CertifyRun.resumed(file) if resume else CertifyRun.new(file, clock.now())
    stage = _stage(stack, account, run, repairs, clock, endpoint=endpoint)
    progress = Progress(len(wanted), hidden=as_json)
    certification = Certification(stage, run, STEPS, progress, clock)
    certification.carry_out(wanted)
    if removes and not certification.is_interrupted:
        run.keep(Teardown(stack, clock, pace.deploy_poll, say).report())
        progress.end(run.reports["teardown"])
    report = _report(stack, run, endpoint, clock)
    files = _write(report, folder)
    if as_json:
        screen.show_json(report.document())
    else:
        _summarize(report, files)
    if repairs.broken:
        repairs.restore_all()
    if certification.is_interrupted:
        say(f"stopped; everything is restored. To continue: `sluice certify {stack.option} --resume`")
        ctx.exit(INTERRUPTED)
    ctx.exit(UNFINISHED if report.failed else 0)


def _emulator(stack: Stack) -> str:
    """Return the URL of an emulator of AWS; empty for AWS itself."""
    url: str = stack.client("cloudformation").meta.endpoint_url
    host = (urlsplit(url).hostname or "").lower()
    return "" if host.endswith(_AWS_HOSTS) else url


def check_stage(stack: Stack, clock: Clock, *, even_prod: bool, despite_traffic: bool) -> None:
    """Refuse a stage that others rely on.

    Raises:
        Failure: it is called prod, or others have sent events to it recently.
    """
    if not even_prod and (stack.parameters.get("Stage") == "prod" or _PROD.search(stack.name)):
        raise Failure(
            f"{stack.name} is called prod, and a certification replaces its API key and cuts off Redis for minutes: use another "
            "stage, or add --even-prod"
        )
    if not despite_traffic and (sender := foreign_traffic(stack, clock)):
        raise Failure(
            f"{stack.name} received events of {sender} in the last hour, and a certification would hold such events for minutes: "
            "use another stage, or add --despite-traffic"
        )


def _warning(stack: Stack, wanted: Sequence[str], *, removes: bool) -> str:
    end = " Then it REMOVES THE STACK AND ITS DATA." if removes else ""
    return (
        f"This runs {screen.plural(len(wanted), 'step')} on {stack.name}, for up to an hour, and breaks and restores parts of it."
        f"{end} Continue?"
    )


def _stage(
    stack: Stack, account: str | None, run: CertifyRun, repairs: Repairs, clock: Clock, *, endpoint: str
) -> DeployedStage:
    name, database = account_of(stack, account)
    settings = stack.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["WorkerFunction"]
    )["Environment"]["Variables"]
    secret = stack.client("secretsmanager").get_secret_value(SecretId=stack.outputs["TdApiKeySecret"])
    session = requests.Session()
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        session.verify = bundle
    queries = TreasureDataQueries(
        requests.Session(), settings["TD_API_ENDPOINT"], secret["SecretString"].strip(), clock, database
    )
    return DeployedStage(
        stack=stack,
        run=run,
        account=name,
        database=database,
        queries=queries,
        session=session,
        endpoint=endpoint,
        repairs=repairs,
        clock=clock,
        pace=EMULATED if endpoint else ON_AWS,
    )


def _report(stack: Stack, run: CertifyRun, endpoint: str, clock: Clock) -> CertificationReport:
    reports = run.reports
    return CertificationReport(
        stack=stack.name,
        region=str(stack.session.region_name),
        where=endpoint or "AWS",
        version=sluice_version(),
        run=run.name,
        began=screen.utc(int(run.began)),
        ended=screen.utc(int(clock.now())),
        steps=tuple(reports.values()),
        promises=tuple(
            conclude(name, [one.name for one in STEPS if number in one.promises], reports)
            for number, name in PROMISES.items()
        ),
        # An emulator cannot confirm anything about AWS.
        assumptions=tuple(
            Conclusion(name, StepVerdict.NOT_TRIED, "", steps) if endpoint else conclude(name, steps, reports)
            for name, steps in ASSUMPTIONS.items()
        ),
        timings=run.timings,
    )


def _write(report: CertificationReport, folder: Path) -> list[Path]:
    """Write the report as Markdown and as JSON, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"sluice-certify-{report.stack}-{report.began[:10]}"
    texts = {".md": report.markdown(), ".json": json.dumps(report.document(), indent=2) + "\n"}
    files = []
    for suffix, text in texts.items():
        files.append(folder / f"{name}{suffix}")
        files[-1].write_text(text)
    return files


def _summarize(report: CertificationReport, files: Iterable[Path]) -> None:
    screen.say("")
    screen.show_table(
        ("#", "promise", "verdict"),
        [(str(number), one.name, str(one.verdict)) for number, one in enumerate(report.promises, 1)],
    )
    screen.say("")
    screen.show_table(("assumption", "verdict"), [(one.name, str(one.verdict)) for one in report.assumptions])
    screen.say("\n" + "\n".join(f"{file}" for file in files))
