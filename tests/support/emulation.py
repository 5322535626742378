"""A stack that `sam deploy` has created in an emulator of AWS, whose event source and cache this module and emulator_app.py correct."""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import redis
from click.testing import CliRunner

from doubles.http_server import HttpServer
from doubles.treasure_data import API_KEY, TreasureData
from local import valkey
from local.functions import treasure_data_at
from local.lambda_runtime import ARCHITECTURE
from ops.cli import main
from ops.deploy import deployer as documented
from shared import write_key
from shared.accounts import Account, AccountKeys
from tests.support.ministack import Ministack
from tests.support.sam import ROOT, run
from tests.support.sluice import until
from tests.support.tls_front import TlsFront

STACK = "sluice-dev"
EXTERNAL = {"Network": "external", "SdkHosting": "off"}


class CacheUsers:
    """Makes the Valkey that serves as the cache admit only the users in the emulator's user groups, as a context manager."""

    def __init__(self, emulator: Ministack, valkey: redis.Redis) -> None:
        self._elasticache = emulator.client("elasticache")
        self._valkey = valkey
        self._admitted: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._update()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.wait(0.1):
            self._update()

    def _update(self) -> None:
        wanted: dict[str, str] = {}
        rules = {one["UserId"]: one["AccessString"] for one in self._elasticache.describe_users()["Users"]}
        for group in self._elasticache.describe_user_groups()["UserGroups"]:
            wanted |= {user: rules[user] for user in group["UserIds"] if user in rules}
        for user in self._admitted.keys() - wanted.keys():
            self._valkey.execute_command("ACL", "DELUSER", user)  # this ends the user's connections
        for user, rule in wanted.items():
            if self._admitted.get(user) != rule:
                self._valkey.execute_command("ACL", "SETUSER", user, "reset", *rule.split(), "nopass")
        self._admitted = wanted


class Destination(HttpServer):
    """The double of Treasure Data behind a port."""

    def __init__(self) -> None:
        self.core = TreasureData()
        super().__init__(self.core.handle)

    def rows(self, database: str, table: str) -> list[Any]:
        """Return a table's rows as soon as there are any."""
        until(lambda: bool(self.core.rows(database, table)))
        return self.core.rows(database, table)


class Stack:
    """The deployed stack, with everything that it needs."""

    def __init__(
        self, emulator: Ministack, destination: Destination, redis_url: str, name: str = STACK
    ) -> None:
        self.emulator = emulator
        self.name = name
        self.outputs = outputs(emulator, name)
        self.destination = destination
        self.redis_url = redis_url
        self.redis = redis.Redis.from_url(redis_url)
        secrets = emulator.client("secretsmanager")
        secrets.put_secret_value(SecretId=self.outputs["TdApiKeySecret"], SecretString=API_KEY)
        signing = secrets.get_secret_value(SecretId=self.outputs["WriteKeySecret"])["SecretString"]
        self._secret: str = json.loads(signing)["k1"]

    def map_account(self, name: str) -> None:
        """Map an account to the database with the same name."""
        keys = AccountKeys(self.outputs["LedgerTable"])
        self.redis.hset(keys.of(name), mapping=Account(name).to_fields())
        self.redis.hset(keys.sentinel, mapping={"at": "0", "count": "1"})

    def send_pixel(self, account: str, table: str, page: str) -> tuple[int, bytes]:
        """Request the pixel from the API, and return the response's status and body."""
        key = write_key.sign(account, "k1", self._secret)
        trust = ssl.create_default_context(cafile=str(self.emulator.certificate))
        connection = HTTPSConnection("127.0.0.1", urlsplit(self.emulator.url).port, context=trust)
        try:
            host = {"Host": urlsplit(self.outputs["ApiUrl"]).netloc}
            target = f"/pixel.gif?{urlencode({'k': key, 't': table, 'page': page})}"
            connection.request("GET", target, headers=host)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def put(self, account: str, table: str, page: str) -> None:
        """Put an event on the stream directly, as another producer does, bypassing the edge policy."""
        data = json.dumps({"account": account, "events": [{"table": table, "page": page}]}).encode()
        kinesis, stream = self.emulator.client("kinesis"), self.outputs["StreamName"]
        kinesis.put_record(StreamName=stream, PartitionKey=f"{account}/0", Data=data)

    def variables(self, function: str, **version: str) -> dict[str, str]:
        """Return the environment variables of a function of the stack, or of one of its versions."""
        client = self.emulator.client("lambda")
        found = client.get_function_configuration(FunctionName=self.outputs[function], **version)
        return found["Environment"]["Variables"]

    def sluice(self, *arguments: str) -> Any:
        """Run the `sluice` command on the stack with --json and return what it prints."""
        return json.loads(self._run(*arguments, "--stack", self.name, "--json"))

    def certify(self, *arguments: str, folder: Path) -> tuple[int, str, str]:
        """Run `sluice certify` on the stack with its state and reports in a folder. Return exit code, stdout and stderr."""
        command = [sys.executable, "-m", "ops", "certify", *arguments, "--stack", self.name]
        command += ["--to", str(folder), "--yes"]
        own = self.emulator.environment | {"SLUICE_HOME": str(folder)}
        done = subprocess.run(command, cwd=ROOT, env=own, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def preflight(self, environment: str) -> list[dict[str, str]]:
        """Run `sluice preflight` for a stage with Network=external, as its deployer, and return its findings."""
        overrides = " ".join(f"{name}={value}" for name, value in {"Stage": environment, **EXTERNAL}.items())
        where = ["--config-file", str(ROOT / "samconfig.toml"), "--config-env", environment]
        boundary = deployer(self.emulator, f"sluice-{environment}")
        overrides += f" PermissionsBoundary={boundary['BOUNDARY']}"
        words = ["preflight", "--json", *where, "--region", "us-east-1", "--parameter-overrides", overrides]
        return json.loads(self._run(*words, environment=boundary))["findings"]

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """Run a command in this process, because starting another one takes longer than most commands."""
        environment = environment or self.emulator.environment
        done = CliRunner(mix_stderr=False).invoke(main, arguments, env=environment)
        assert done.exit_code in (0, 3), f"{done.stdout}{done.stderr}"
        return done.stdout

    def dead(self) -> list[tuple[str, str]]:
        """Return account and reason of each dead chunk as soon as there is one."""
        until(lambda: bool(self.sluice("dead", "list")))
        return [(one["account"], one["reason"]) for one in self.sluice("dead", "list")]


def deployer(emulator: Ministack, stack: str) -> dict[str, str]:
    """Return the environment of a user who has the documented policies for a stack and no others, created on first use."""
    name, iam = f"deployer-of-{stack}", emulator.client("iam")
    if name not in emulator.users:
        iam.create_user(UserName=name)
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        boundary = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        arn = iam.create_policy(PolicyName=f"boundary-of-{stack}", PolicyDocument=boundary)["Policy"]["Arn"]
        for part in documented.PARTS:
            text = json.dumps(documented.policy(part)).replace("STACK", stack)
            text = text.replace("<PermissionsBoundary>", arn).replace("<HostedZoneId>", "*")
            found = json.loads(text)
            found["Statement"] = [one for one in found["Statement"] if "<" not in one["Resource"]]
            made = iam.create_policy(PolicyName=f"{part}-of-{stack}", PolicyDocument=json.dumps(found))
            iam.attach_user_policy(UserName=name, PolicyArn=made["Policy"]["Arn"])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        own = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        emulator.users[name] = emulator.environment | own | {"BOUNDARY": arn}
    return emulator.users[name]


def deploy(emulator: Ministack, artifacts: Path, stage: str, code: int = 0, **parameters: str) -> None:
    """Deploy a stage's stack with samconfig.toml and additional parameters, as its deployer."""
    stack = f"sluice-{stage}"
    boundary = deployer(emulator, stack)["BOUNDARY"]
    given = {"Stage": stage, "Architecture": ARCHITECTURE, "PermissionsBoundary": boundary, **parameters}
    command = ["deploy", "--template-file", str(artifacts / "template.yaml"), "--config-env", stage]
    command += ["--config-file", str(ROOT / "samconfig.toml"), "--no-confirm-changeset"]
    command += ["--parameter-overrides", *(f"{name}={value}" for name, value in given.items())]
    done, said = run("sam", *command, environment=deployer(emulator, stack))
    assert done == code, said


def remove(emulator: Ministack, stack: str) -> None:
    """Remove a stack with `sluice remove`, as its deployer."""
    command = ("-m", "ops", "remove", "--stack", stack, "--yes")
    code, said = run("python", *command, environment=deployer(emulator, stack))
    # For a few look-ups, the emulator wants another permission than AWS, so they are not made.
    assert 0 == code or "may be left" in said, said


def outputs(emulator: Ministack, stack: str) -> dict[str, str]:
    """Return a stack's outputs."""
    (found,) = emulator.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


@contextmanager
def deployed(folder: Path, artifacts: Path) -> Iterator[Stack]:
    """Create the stack with a single deploy using samconfig.toml, and map the account `shop`. All parts write to a folder."""
    with ExitStack() as parts:
        redis_server, port = valkey.start(folder)
        parts.callback(redis_server.wait, 60)
        parts.callback(redis_server.terminate)
        destination = parts.enter_context(Destination())
        front = parts.enter_context(TlsFront(port, folder))
        emulator = parts.enter_context(Ministack(folder, front.port))
        deploy(emulator, artifacts, "dev", StreamMode="PROVISIONED", **treasure_data_at(destination.url))
        stack = Stack(emulator, destination, f"redis://127.0.0.1:{port}/0")
        parts.callback(stack.redis.close)
        parts.enter_context(CacheUsers(emulator, stack.redis))
        stack.map_account("shop")
        yield stack
