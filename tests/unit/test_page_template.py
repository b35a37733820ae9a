"""The page's HTML, from statuses that were made up."""

import json
import re
from html.parser import HTMLParser

import pytest

from headrace.airflow.page_template import render_figures, render_login, render_page
from headrace.command import Command
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from headrace.postgres.ledger import RunContext
from tests.support.statuses import HOSTILE, batch, build, dataset, dead_letter, model, partition, seconds_ago, status

ALL_DAGS = ("ingest_jobs", "build_marts", "replay_dead_letters")


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text between."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def overview(text: str = "no JSON", **values: object) -> Overview:
    return find_problems_by(
        status(
            dataset("jobs", **{"dead_by_reason": {"invalid_json": 3}, "recent_dead": 3, "topic": text} | values),
            dataset("rides", generation=None),
            models=[model("jobs", status="error", message=text), model("users", failed_tests=[text])],
            builds=[build(selection=text)],
            batches=[
                batch(run_id=f"manual__{text}"),
                batch(run_id="a+b", task_id="plan", map_index=-1),
                batch(run_id="old", map_index=None),
                batch(dag_id=None),
            ],
            dead_letters=[dead_letter(value=text, detail=text, json_path=text)],
        ),
        {"jobs": AlertThresholds(max_lag=9), "rides": AlertThresholds()},
    )


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    found = overview(HOSTILE, last_error=HOSTILE, followed_by=HOSTILE)
    paused: dict[str, object] = {"paused_at": seconds_ago(60), "paused_by": HOSTILE, "pause_reason": HOSTILE}
    assert "<script>alert" not in render_figures(overview(HOSTILE, **paused), ALL_DAGS)
    html = render_figures(found, ALL_DAGS)
    page = Elements(render_page("v", html))
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "".join(page.text).count("<img src=x onerror") >= 8  # it is there, to be read
    assert [attributes for attributes in page.of("script") if attributes.get("type") == "application/json"]
    assert all(attributes.get("src", "static/").startswith("static/") for attributes in page.of("script"))  # type: ignore[union-attr]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "49" not in re.sub(r"[^0-9{}]", " ", "".join(page.text)).split()  # no template of theirs ran


def test_history_cannot_end_its_script_element() -> None:
    found = find_problems_by(status(dataset("jobs</script><script>x")), {})
    html = render_figures(found, ())
    source = re.search(r'<script type="application/json" id="history">(.*?)</script>', html, re.S)
    assert source is not None
    assert list(json.loads(source[1])["rows"]) == ["jobs</script><script>x"]


def test_problems_come_first_each_with_its_command() -> None:
    page = Elements(render_figures(overview(last_error="no broker"), ALL_DAGS))
    sections = [attributes["id"] for attributes in page.of("section")]
    assert sections == ["problems", "datasets", "charts", "dead-letters", "builds", "batches"]
    commands = [attributes["data-copy"] for attributes in page.of("button") if "data-copy" in attributes]
    assert commands == [
        "headrace drain jobs", "headrace build --select jobs", "headrace build --select users",
        "headrace dead-letters jobs",
    ]  # fmt: skip


def test_pause_is_shown_with_who_when_why_and_the_command_that_ends_it() -> None:
    paused: dict[str, object] = {"paused_at": seconds_ago(60), "paused_by": "anna@a", "pause_reason": "broker upgrade"}
    page = Elements(render_figures(overview("", last_error="no broker", **paused), ALL_DAGS))
    text = " ".join("".join(page.text).split())
    assert "paused 1 min ago by anna@a: broker upgrade" in text
    assert "no broker" not in text
    assert "headrace resume jobs" in [attributes.get("data-copy") for attributes in page.of("button")]


def test_command_of_a_problem_is_set_as_code_and_no_other_text_is() -> None:
    text = "gone: `headrace reset <b> --yes`; `headrace adopt jobs` begins"
    html = render_figures(overview(last_error=text, last_command=Command("adopt", "jobs")), ())
    assert "gone: `headrace reset &lt;b&gt; --yes`; <code>headrace adopt jobs</code> begins" in html
    assert "odd ` &lt;b&gt;" in render_figures(overview(last_error="odd ` <b>"), ())


def test_page_shows_texts_of_others_in_visible_characters_alone() -> None:
    odd = "a\u202eb\x9bc\u200bd::group::e"
    html = render_figures(overview(last_error=odd, topic=odd, followed_by=odd), ())
    assert html.count("a\\u202eb\\x9bc\\u200bd\\x3a:group::e") == 4
    assert html.replace("\n", "").isprintable()


def test_commands_beside_dead_letters_are_quoted_for_a_shell() -> None:
    html = render_figures(overview(dead_by_reason={"x; rm -rf ~": 1}, recent_dead=1), ())
    assert "<code>headrace replay jobs --reason &#39;x; rm -rf ~&#39;</code>" in html


def test_dags_are_offered_only_to_those_who_may_trigger_them() -> None:
    def triggers(*dags: str) -> list[str]:
        html = render_figures(overview(last_error="no broker"), dags)
        return re.findall(r">Open DAG (\w+)<", html)

    assert triggers() == []
    assert set(triggers(*ALL_DAGS)) == {"ingest_jobs", "build_marts", "replay_dead_letters"}
    assert set(triggers("build_marts")) == {"build_marts"}


def test_links_stay_below_airflows_own_path() -> None:
    links = Elements(render_figures(overview(), ALL_DAGS)).of("a")
    for attributes in links:
        address = attributes["href"] or ""
        assert address.startswith(("#", "?", "../dags/", "runbook#")), address
    assert {
        "../dags/ingest_jobs/runs/manual__no%20JSON/tasks/drain/mapped/0",
        "../dags/ingest_jobs/runs/a%2Bb/tasks/plan",
        "../dags/ingest_jobs/runs/old",  # a line from before map_index was kept
    } <= {each["href"] for each in links}


def test_dataset_that_is_only_in_the_database_has_no_link_to_a_dag() -> None:
    html = render_figures(find_problems_by(status(dataset("gone")), {}), ())
    assert "dags/ingest_gone" not in html
    assert "no longer declared" in html


def test_tables_and_sections_say_what_they_are() -> None:
    page = Elements(render_page("v", render_figures(overview(), ALL_DAGS)))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(page.of("caption")) == len(page.of("table")) >= 5
    for attributes in page.of("th"):
        assert attributes.get("scope") in ("col", "row")
    for tag in ("section", "div"):
        for attributes in page.of(tag):
            assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
    assert [attributes["aria-live"] for _, attributes in page.tags if "aria-live" in attributes] == ["polite"]
    assert page.of("html") == [{"lang": "en"}]


def test_page_loads_nothing_from_elsewhere() -> None:
    html = render_page("v", render_figures(overview(), ALL_DAGS))
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html)
    assert "style=" not in html  # the content security policy forbids it


def test_page_without_figures_says_why() -> None:
    html = render_page("v", error="postgres: <gone>")
    assert "postgres: &lt;gone&gt;" in html


def test_page_of_nothing_has_no_problems() -> None:
    html = render_figures(find_problems_by(status(dataset("jobs", generation=None)), {"jobs": AlertThresholds()}), ())
    assert "No problems" in html
    assert "Nothing was ingested yet." in html
    assert "Nothing was built yet." in html


def test_samples_that_may_not_be_read_are_not_shown() -> None:
    from dataclasses import replace

    found = overview(HOSTILE)
    hidden = replace(found, status=replace(found.status, dead_letters=()))
    html = render_figures(hidden, ())
    assert "Samples are shown to those who may read the logs of ingest_jobs." in html


def test_partitions_with_lag_say_how_long() -> None:
    found = overview(lag=30, lag_s=90.0, partitions=[partition(0, lag=30, lag_s=90.0)])
    assert "2 min" in render_figures(found, ())


@pytest.mark.parametrize("code", [401, 403])
def test_login_page_is_a_page(code: int) -> None:
    assert Elements(render_login(code)).of("h1") == [{}]


def test_problem_shows_its_age_its_section_its_log_and_all_that_it_affects() -> None:
    names = [f"d{number}" for number in range(7)]
    run = RunContext("ingest_d0", "scheduled__1", "drain", 2, -1)
    cause = "Kafka at kafka:9092 does not answer"
    found = find_problems_by(
        status(
            *(dataset(each, last_error="x", last_cause=cause, error_since=seconds_ago(300)) for each in names[:-1]),
            dataset(names[-1], last_error="x", last_cause=cause, error_since=seconds_ago(600), last_run=run),
            dataset("followed", last_error="y", followed_by="host:17"),
        ),
        dict.fromkeys([*names, "followed"], AlertThresholds()),
    )
    html = Elements(render_figures(found, ()))
    text = " ".join("".join(html.text).split())
    assert f"{cause} 7 datasets (d0, d1, d2, d3, d4 and 2 more): x" in text
    assert "since 2026-03-01 11:50:00 UTC, 10 min" in text
    assert "Affected d0, d1, d2, d3, d4, d5, d6" in text
    assert "log: headrace follow on host:17" in text
    addresses = [each["href"] for each in html.of("a")]
    assert "runbook#at-0300" in addresses
    assert "../dags/ingest_d0/runs/scheduled__1/tasks/drain?try_number=2" in addresses
