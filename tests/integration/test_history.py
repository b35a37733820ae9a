"""What plans leave behind: samples of the lag, and why they failed."""

import pytest

from headrace.exceptions import SourceChanged, TopicMissing
from headrace.generations import adopt
from headrace.ingest import drain_dataset, plan
from headrace.problems import Overview, judge
from headrace.status import read_status
from tests.integration import topics
from tests.integration.conftest import Stage
from tests.integration.test_drain import send_jobs, servers, topic_of


def overview(stage: Stage) -> Overview:
    return judge(read_status(stage.deployment.connect("test")), stage.deployment.settings)


def test_topic_made_anew_is_a_problem_with_its_command_until_it_is_adopted(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).problems == []
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 3)
    with pytest.raises(SourceChanged):
        drain_dataset(stage.deployment, "jobs")
    found = overview(stage)
    assert found.states["jobs"] == "failing"
    assert [problem.command for problem in found.problems] == ["headrace adopt jobs"]
    assert "it was deleted and made anew" in found.problems[0].text
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).problems == []


def test_topic_that_was_never_there_is_no_problem_and_one_that_is_gone_is(stage: Stage) -> None:
    jobs = stage.deployment.dataset("jobs")
    topic = topic_of(stage)
    topics.delete(servers(stage), topic)
    with pytest.raises(TopicMissing):
        plan(stage.deployment, jobs)
    assert overview(stage).problems == []
    topics.create(servers(stage), topic, 3)
    send_jobs(stage, 3)
    drain_dataset(stage.deployment, "jobs")
    topics.delete(servers(stage), topic)
    with pytest.raises(TopicMissing):
        plan(stage.deployment, jobs)
    assert overview(stage).states["jobs"] == "failing"


def test_plans_sample_the_lag_and_say_how_long_records_wait(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    assert stage.value("select count(*) from headrace.samples") == 3
    send_jobs(stage, 60)
    plan(stage.deployment, stage.deployment.dataset("jobs"))
    jobs = next(each for each in overview(stage).status.datasets if each.dataset == "jobs")
    assert jobs.lag == 60
    assert jobs.lag_s is not None
    assert 0 <= jobs.lag_s < 60
    assert overview(stage).states["jobs"] == "behind"
    assert overview(stage).status.history.lag["jobs"][-1] == 60
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).states["jobs"] in ("current", "building")
    assert sum(overview(stage).status.history.rows["jobs"]) == 90
