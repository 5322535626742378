"""The browser SDK: its snippet, and how it is published."""

import json
from pathlib import Path

import pytest
from werkzeug.test import Client

from doubles.s3 import MemoryS3
from local.page_server import Beside
from local.website import Website
from ops import browser_sdk
from ops.browser_sdk import Build
from ops.console.server import Server
from ops.failure import Failure
from ops.sdk_bucket import FOR_EVER, SHORTLY, objects, publish
from tests.support.deployed import deployed
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("ops")

SNIPPET = "<script>\nsluice('init',{endpoint:'{{endpoint}}',key:'{{key}}',auto:true});\n</script>\n<script src=\"{{sdk}}/0.1.0/sluice.js\"></script>\n"
"""A short form of the snippet that the SDK's build writes."""


def built(folder: Path, script: str = "first") -> Build:
    """Write the files of a build and return it."""
    same = {"bytes": 5, "gzip": 5, "integrity": "sha384-x"}
    files = {name: {"path": f"0.1.0/{name}", **same} for name in ("sluice.js", "sluice.mjs")}
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"version": "0.1.0", "files": files}))
    (folder / "snippet.html").write_text(SNIPPET)
    (folder / "sluice.d.ts").write_text("export {};")
    for name in files:
        (folder / name).write_text(script)
    return Build(folder)


def test_scripts_are_cached_for_ever_and_the_files_that_point_to_them_for_minutes(tmp_path: Path) -> None:
    """A published version is not overwritten, because other bytes would not match the integrity hashes in pages."""
    s3 = MemoryS3()
    s3.create_bucket(Bucket="scripts")
    made = objects(built(tmp_path))
    put = publish(s3, "scripts", made)
    served = {key: one.headers for key, one in s3.objects("scripts").items()}
    script = "text/javascript; charset=utf-8"

    assert "snippet.html" == put[-1]
    assert {"ContentType": script, "CacheControl": FOR_EVER} == served["0.1.0/sluice.js"]
    assert {"ContentType": script, "CacheControl": FOR_EVER} == served["0.1.0/sluice.mjs"]
    assert {"ContentType": script, "CacheControl": SHORTLY} == served["latest/sluice.js"]
    assert {"ContentType": "application/json", "CacheControl": SHORTLY} == served["manifest.json"]
    assert FOR_EVER == "public, max-age=31536000, immutable"
    assert [one.key for one in made if not one.is_fixed] == publish(s3, "scripts", made)
    with pytest.raises(Failure, match=r"0\.1\.0/sluice\.js is already published with different content"):
        publish(s3, "scripts", objects(built(tmp_path, "second")))
    scripts = [one.body for key, one in s3.objects("scripts").items() if key.endswith((".js", ".mjs"))]
    assert {b"first"} == set(scripts)
    with pytest.raises(Failure, match="the browser SDK is not built: run `make sdk`"):
        Build(tmp_path / "nowhere")


def test_the_snippet_contains_endpoint_key_host_and_table() -> None:
    """The table of page views is included only if it is not the default."""
    given = {"endpoint": "https://e", "key": "shop.k1.x", "host": "https://s"}

    assert browser_sdk.snippet(SNIPPET, **given).splitlines() == [
        "<script>",
        "sluice('init',{endpoint:'https://e',key:'shop.k1.x',auto:true});",
        "</script>",
        '<script src="https://s/0.1.0/sluice.js"></script>',
    ]
    assert "auto:true,pageTable:'visits'" in browser_sdk.snippet(SNIPPET, **given, table="visits")


def test_the_local_page_serves_the_scripts(tmp_path: Path) -> None:
    """A script has the same path as on the stack's hosting. CORS lets any page check its integrity."""
    built(tmp_path)
    client = Client(Beside(Website("", {}), tmp_path))
    answer = client.get("/sdk/0.1.0/sluice.js")

    assert (200, b"first") == (answer.status_code, answer.data)
    assert "*" == answer.headers["access-control-allow-origin"]
    assert "text/javascript; charset=utf-8" == answer.headers["content-type"]
    assert 404 == client.get("/sdk/0.1.0/other.js").status_code


def test_sdk_publish_and_keys_issue_print_the_same_snippet(sluice: Sluice, tmp_path: Path) -> None:
    """`sdk publish` fills the stack's bucket. `keys issue` then prints the snippet that is stored there."""
    built(tmp_path / "dist")
    s3 = sluice.stack.resources.client("s3")
    s3.create_bucket(Bucket="scripts")
    hosted = tmp_path / "hosted"
    hosted.mkdir()
    line = ["sdk", "publish", "--folder", str(tmp_path / "dist")]
    with (
        Server(Website("{{endpoint}}", {}, hosted)) as host,
        deployed(sluice.stack, SdkBucket="scripts", SdkUrl=host.url) as stack,
    ):
        before = json.loads(stack.run(["keys", "issue", "shop", "--json"]).stdout)
        dry = json.loads(stack.run([*line, "--dry-run", "--json"]).stdout)
        empty = s3.list_objects_v2(Bucket="scripts")["KeyCount"]
        published = stack.run(line)
        body = s3.get_object(Bucket="scripts", Key="snippet.html")["Body"].read()
        (hosted / "snippet.html").write_bytes(body)
        after = json.loads(stack.run(["keys", "issue", "shop", "--json"]).stdout)

    published_by = "the script is not published yet. Publish it with `sluice sdk publish --stack sluice-dev"
    assert published_by in before["remark"] or "the browser SDK is not built" in before["remark"]
    assert ([], 0) == (dry["put"], empty)
    assert (0, "0.1.0/sluice.js  published") == (published.exit_code, published.stdout.splitlines()[0])
    assert "key:'YOUR-KEY'" in published.stdout
    assert f"key:'{after['key']}'" in after["script"]
    assert f'src="{host.url}/0.1.0/sluice.js"' in after["script"]
    assert "" == after["remark"]


def test_sdk_publish_is_rejected_for_a_stack_without_hosting(sluice: Sluice) -> None:
    """The error names the missing output. The local stack serves the SDK itself, so it is a usage error there."""
    with deployed(sluice.stack) as stack:
        result = stack.run(["sdk", "publish"])

    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "does not host the SDK (it lacks the output SdkBucket)" in result.stderr
    assert 2 == sluice.run("sdk publish --local").exit_code
