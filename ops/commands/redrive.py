"""`sluice redrive`: sends what waits now, or dead rows again, as they are or edited."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import click

from ops import known_accounts, screen
from ops.books.chunks import KINDS, NAMES, ListedChunk, chunks
from ops.editing import dead_rows, rejected_events
from ops.editing.edited_text import Change, Editor
from ops.failure import UNFINISHED, Failure
from ops.selecting import selects_rows
from ops.sending import OUTCOMES, balanced, send
from ops.stack import Stack, works_on_stack
from worker.selection import Selection
from worker.states import State


@click.command("redrive")
@works_on_stack
@click.option(
    "--kind",
    "names",
    type=click.Choice(list(KINDS)),
    multiple=True,
    help="Kind of rows; may be repeated. Default: waiting and again; dead with --edit; waiting with --send.",
)
@selects_rows
@click.option(
    "--send",
    "sends",
    is_flag=True,
    help="Send waiting rows, or dead ones, without asking, even though Treasure Data may already have them.",
)
@click.option(
    "--edit",
    "edits",
    is_flag=True,
    help="Open dead rows in $EDITOR and send the changed rows. With --kind rejected: the same for rejected events.",
)
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def command(
    stack: Stack,
    *,
    names: tuple[str, ...],
    sends: bool,
    edits: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **selected_by: Any,
) -> None:
    """Send what waits now instead of within a minute; with --kind dead, send dead rows again.

    --edit opens dead rows in an editor, then checks and sends the changed ones; the originals stay in S3. With --kind rejected, --edit
    opens rejected events, and repaired events are sent.
    """
    states = _states(stack, names, sends=sends, edits=edits, as_json=as_json)
    opened = shown(stack, Selection(states, **selected_by), dry_run=dry_run, as_json=as_json)
    if not opened:
        return
    if edits:
        raise click.exceptions.Exit(_edit(stack, opened, rejected=State.REJECTED in states, yes=yes))
    if sends:
        rows = screen.plural(sum(one.rows for one in opened), "row")
        question = (
            f"This sends {rows} that Treasure Data may already have, and would then have twice. Continue?"
        )
        screen.confirm(question, yes=yes)
    raise click.exceptions.Exit(
        carry_out(stack, states, opened, {"decision": "send"} if sends else {}, as_json=as_json)
    )


def shown(stack: Stack, selection: Selection, *, dry_run: bool, as_json: bool) -> list[ListedChunk]:
    """Show what is selected, and return it; nothing for a dry run."""
    selected: Counter[tuple[str, str, str]] = Counter()
    opened = list(chunks(stack.ledger(), selection))
    for chunk in opened:
        selected[NAMES[chunk.entry.state], chunk.key.account, chunk.reason] += chunk.rows
    if not opened:
        known_accounts.check(stack, selection.account)
    if not as_json:
        screen.say(
            f"{screen.plural(selected.total(), 'row')}." if selected else "There are no matching rows."
        )
        screen.show_table(
            ("kind", "account", "reason", "rows"),
            [(*place, rows) for place, rows in sorted(selected.items())],
        )
    elif dry_run or not selected:
        screen.show_json(balanced(selected.total(), dict.fromkeys(OUTCOMES, 0)) | {"dry_run": dry_run})
    if dry_run and not as_json:
        screen.say(screen.DRY_RUN)
    return [] if dry_run else opened


def carry_out(
    stack: Stack,
    states: Sequence[State],
    opened: Sequence[ListedChunk],
    decision: Mapping[str, str],
    *,
    as_json: bool,
) -> int:
    """Have the sender send or drop exactly what was shown, whatever has come into these states meanwhile; return the exit code."""
    event = {"kinds": [state.value for state in states], "chunks": [one.name for one in opened], **decision}
    with screen.progress("sending", hidden=as_json, unit="rows delivered") as show:
        sent = send(stack, event, lambda delivered: show(description="sending", completed=delivered))
    totals = balanced(sum(one.rows for one in opened), sent)
    if as_json:
        screen.show_json(totals)
        return _code(totals)
    return _report(stack, totals, drops="drop" in decision.values())


def _states(
    stack: Stack, names: tuple[str, ...], *, sends: bool, edits: bool, as_json: bool
) -> tuple[State, ...]:
    """Return the states to redrive."""
    if edits and (sends or as_json or set(names) not in (set(), {"dead"}, {"rejected"})):
        raise click.UsageError(
            "--edit is interactive and works on dead rows or rejected events only: do not combine it with other kinds, --send or --json"
        )
    if "rejected" in names and not edits:
        raise click.UsageError(
            f"to repair rejected events, add --edit; `sluice dead drop {stack.option} --rejected` gives them up"
        )
    if sends and not set(names) <= {"waiting", "dead"}:
        raise click.UsageError("--send works only with --kind waiting and --kind dead")
    default = ("dead",) if edits else ("waiting",) if sends else ("waiting", "again")
    return tuple(KINDS[name] for name in names or default)


def _report(stack: Stack, totals: Mapping[str, int], *, drops: bool = False) -> int:
    dropped = f", {totals['dropped']:,} dropped" if totals["dropped"] else ""
    if totals.get("replaced"):
        dropped += f", {totals['replaced']:,} split by table and waiting"
    if totals["copies"]:
        dropped += f", {totals['copies']:,} copies of rows that count elsewhere"
    untried = f", {totals['untried']:,} not tried or already settled" if totals.get("untried") else ""
    screen.say(
        f"{screen.plural(totals['delivered'], 'row')} delivered, {totals['kept']:,} kept, "
        f"{totals['dead']:,} newly dead{dropped}{untried}."
    )
    if totals["kept"] and drops and totals["complete"]:
        screen.say(
            f"Treasure Data may have what is kept. It is asked for rows that wait; `sluice redrive {stack.option} --kind dead` asks for dead ones."
        )
    elif totals["kept"]:
        screen.say(f"`sluice status {stack.option}` shows why rows are kept.")
    elif not totals["complete"]:
        screen.say("Some rows were not tried. Run the command again.")
    return _code(totals)


def _code(totals: Mapping[str, int]) -> int:
    return UNFINISHED if totals["kept"] or totals["dead"] or not totals["complete"] else 0


def _edit(stack: Stack, opened: list[ListedChunk], *, rejected: bool, yes: bool) -> int:
    """Open dead rows or rejected events in an editor, oldest first, and send what was changed; return the exit code."""
    opened = sorted(opened, key=lambda one: one.since)
    if rejected:
        known = known_accounts.known(stack)
        for name in known.damaged.keys() & {one.key.account for one in opened}:
            raise Failure(known_accounts.is_damaged(stack, name, known.damaged[name]))
        plans = {name: account.plan for name, account in known.accounts.items()}
        found: Sequence[Any] = rejected_events.batches_of(stack, opened, plans)
        text, read = rejected_events.text_of(found), partial(rejected_events.read, found)
        none = "there are no copies of these events: they have expired, or exceeded the number that is kept"
    else:
        found = dead_rows.editable_of(opened, stack.objects())
        text, read = dead_rows.text_of(found), partial(dead_rows.read, found)
        none = "these cannot be edited: they never became rows"
    if not found:
        raise Failure(none)
    editor = Editor()
    try:
        changes = editor.ask(text, read)
        if not changes:
            screen.say("Nothing was changed, so nothing is sent.")
            return 0
        return _send_edited(stack, changes, editor, rejected=rejected, yes=yes)
    except BaseException:
        editor.keep()
        raise


def _send_edited(
    stack: Stack, changes: Sequence[Change], editor: Editor, *, rejected: bool, yes: bool
) -> int:
    """Send what was changed, after a confirmation; return the exit code."""
    count, dropped = (sum(one.count for one in changes), sum(one.dropped for one in changes))
    rest = f" and give up {dropped:,} others" if dropped else ""
    screen.confirm(f"Send {screen.plural(count, 'event' if rejected else 'row')}{rest}?", yes=yes)
    totals = Counter(dict.fromkeys((*OUTCOMES, "repaired"), 0))
    for one in changes:
        report = stack.invoke("SenderFunction", one.event)
        if "error" in report:
            screen.note(f"{one.title}: {report['message']}")
            editor.keep()
            totals["kept"] += one.count
        elif rejected:
            totals["repaired"] += one.count
        else:
            totals.update({name: report[name] for name in OUTCOMES})
    if not rejected:
        return _report(stack, totals | {"complete": True})
    screen.say(
        f"{screen.plural(totals['repaired'], 'event')} repaired. Repaired events are sent like new ones."
    )
    return UNFINISHED if totals["kept"] else 0
